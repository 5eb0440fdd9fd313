"""``millrace:docker:Subnet``: a free address range for one network."""

from __future__ import annotations

import ipaddress
import threading
import zlib
from typing import Any

from typing_extensions import override

from millrace.resources import Call, Props, Resource, ResourceError

LABEL_STACK = "dev.millrace.stack"
"""Label of the networks that the program makes; the input ``stack`` is its value."""

_lock = threading.Lock()
_taken: set[ipaddress.IPv4Network] = set()


class Subnet(Resource):
    """Picks a range of ``prefix`` bits in ``pool`` that no network of the engine uses, and keeps it.

    The search starts at another place for each ``stack``: two of them that come up at the same time know
    nothing of each other's choice until the engine has made the networks. Should they meet nevertheless, the
    one whose network could not be made chooses again at its next ``up``.

    Docker's own default pools hold some 30 networks (moby/libnetwork, ipamutils: 172.17.0.0/12 in /16s and
    192.168.0.0/16 in /20s), fewer than one network per need takes.
    """

    type_token = "millrace:docker:Subnet"
    replace_on = frozenset({"pool", "prefix"})
    ignore = frozenset({"stack"})

    @override
    def create(self, call: Call, props: Props) -> tuple[str, dict[str, Any]]:
        pool, bits = ipaddress.IPv4Network(str(props["pool"])), int(props["prefix"])
        size, count = 2 ** (32 - bits), 2 ** (bits - pool.prefixlen)
        first = zlib.crc32(str(props["stack"]).encode()) % count if props.get("stack") else 0
        with _lock:
            used = _taken | {network for network, _ in _networks(call)}
            for number in range(count):
                base = int(pool.network_address) + (first + number) % count * size
                candidate = ipaddress.IPv4Network((base, bits))
                if not any(candidate.overlaps(other) for other in used):
                    _taken.add(candidate)
                    return str(candidate), {**props, "cidr": str(candidate)}
        raise ResourceError(f"network.pool {pool}: no free /{bits} range left on this engine")

    @override
    def read(self, call: Call, id_: str, props: Props) -> dict[str, Any] | None:
        mine, stack = ipaddress.IPv4Network(id_), props.get("stack")
        if stack and any(mine.overlaps(other) and owner != stack for other, owner in _networks(call)):
            return None
        return dict(props)

    @override
    def update(self, call: Call, id_: str, props: Props) -> dict[str, Any]:
        return {**props, "cidr": id_}


def _networks(call: Call) -> list[tuple[ipaddress.IPv4Network, str | None]]:
    """All ranges in use on the engine, with the stack whose network it is."""
    ranges = []
    for network in call.engine.client.networks.list():
        owner = (network.attrs.get("Labels") or {}).get(LABEL_STACK)
        for config in (network.attrs.get("IPAM") or {}).get("Config") or []:
            subnet = ipaddress.ip_network(config.get("Subnet") or "::/128", strict=False)
            if isinstance(subnet, ipaddress.IPv4Network):
                ranges.append((subnet, owner))
    return ranges
