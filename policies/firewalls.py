"""Rules for cloud firewalls, whichever provider they are of.

Providers name alike things differently; what a rule lets in is found by the names of its properties.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping
from typing import Any

from policies.rules import Resource, Rule, Stack
from policies.values import bare

_SSH = 22
# Wider than this is no network of one's own: 0.0.0.0/1 and 128.0.0.0/1 are the world as well.
_WIDEST = {4: 8, 6: 19}

_FIREWALL = re.compile(r"firewall|securitygroup|securityrule|networkacl", re.I)
_OUTBOUND = re.compile(r"outbound|egress", re.I)
_PORTS = ("portRange", "portRanges", "port", "ports", "destinationPortRange", "destinationPortRanges")
_SOURCES = (
    "sourceAddresses", "sourceIps", "sourceRanges", "sourceAddressPrefix", "sourceAddressPrefixes",
    "cidrBlocks", "ipv6CidrBlocks", "cidrIpv4", "cidrIpv6", "cidr", "remoteIpPrefix",
)  # fmt: skip


def ssh_from_the_world(resource: Resource, stack: Stack) -> Iterator[str]:
    """Port 22 is open to networks that were named, not to everybody."""
    if not _FIREWALL.search(resource.type):
        return
    wide = {
        source
        for ports, sources in _inbound(bare(resource.props), resource.type)
        if any(map(_has_ssh, ports))
        for source in sources
        if _is_wide(source)
    }
    if wide:
        yield (
            f"lets {', '.join(sorted(wide))} reach SSH (port 22) - name the networks that may, such as "
            f"target.ssh_networks: [203.0.113.7/32]"
        )


def _inbound(value: Any, name: str, sources: tuple[str, ...] = ()) -> Iterator[tuple[list[str], list[str]]]:
    """Ports and sources of each rule; sources may stand above a list of ports."""
    if _OUTBOUND.search(name):
        return
    if isinstance(value, list):
        for entry in value:
            yield from _inbound(entry, "", sources)
    elif isinstance(value, Mapping):
        direction = str(value.get("direction") or value.get("type") or "")
        if re.fullmatch(r"out|outbound|egress", direction, re.I):
            return
        own = tuple(text for key in _SOURCES for text in _texts(value.get(key))) or sources
        if own and (ports := list(_ports(value))):
            yield ports, list(own)
        for key, inner in value.items():
            if isinstance(inner, list | Mapping):
                yield from _inbound(inner, key, own)


def _ports(rule: Mapping[str, Any]) -> Iterator[str]:
    for key in _PORTS:
        yield from _texts(rule.get(key))
    if "fromPort" in rule or "toPort" in rule:
        first, last = rule.get("fromPort"), rule.get("toPort")
        # AWS: all ports of all protocols are from 0 to 0, or -1.
        everything = str(rule.get("protocol") or rule.get("ipProtocol")) in ("-1", "all")
        yield "all" if everything else f"{_whole(first)}-{_whole(last)}"
    elif str(rule.get("ipProtocol") or rule.get("protocol")) in ("-1", "all"):
        yield "all"


def _has_ssh(ports: str) -> bool:
    if ports.lower() in ("all", "any", "*", "", "0"):
        return True
    first, _, last = ports.partition("-")
    try:
        return int(first) <= _SSH <= int(last or first)
    except ValueError:
        return False


def _is_wide(source: str) -> bool:
    if source.lower() in ("*", "any", "all", "internet"):
        return True
    try:
        network = ipaddress.ip_network(source, strict=False)
    except ValueError:
        return False  # a tag, a load balancer, another group
    return network.prefixlen < _WIDEST[network.version]


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, list):
        for entry in value:
            yield from _texts(entry)
    elif isinstance(value, str):
        yield value
    elif isinstance(value, float | int) and not isinstance(value, bool):
        yield _whole(value)


def _whole(value: Any) -> str:
    return f"{value:.0f}" if isinstance(value, float | int) else str(value)


RULES = (
    Rule(
        name="ssh-from-the-world",
        description="No firewall lets the whole world reach SSH.",
        check=ssh_from_the_world,
        types=None,
    ),
)
