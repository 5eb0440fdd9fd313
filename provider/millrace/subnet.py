"""``millrace:docker:Subnet``: a free address range for one network."""

from __future__ import annotations

import ipaddress
import threading
from typing import Any

from typing_extensions import override

from millrace.resources import Call, Props, Resource, ResourceError

_lock = threading.Lock()
_taken: set[ipaddress.IPv4Network] = set()


class Subnet(Resource):
    """Picks the first range of ``prefix`` bits in ``pool`` that no network of the engine uses, and keeps it.

    Docker's own default pools hold some 30 networks (moby/libnetwork, ipamutils: 172.17.0.0/12 in /16s and
    192.168.0.0/16 in /20s), fewer than one network per need takes.
    """

    type_token = "millrace:docker:Subnet"
    replace_on = frozenset({"pool", "prefix"})

    @override
    def create(self, call: Call, props: Props) -> tuple[str, dict[str, Any]]:
        pool = ipaddress.IPv4Network(str(props["pool"]))
        with _lock:
            used = _taken | set(_used(call))
            for candidate in pool.subnets(new_prefix=int(props["prefix"])):
                if not any(candidate.overlaps(other) for other in used):
                    _taken.add(candidate)
                    return str(candidate), {**props, "cidr": str(candidate)}
        raise ResourceError(f"network.pool {pool}: no free /{int(props['prefix'])} range left on this engine")

    @override
    def update(self, call: Call, id_: str, props: Props) -> dict[str, Any]:
        return {**props, "cidr": id_}


def _used(call: Call) -> list[ipaddress.IPv4Network]:
    ranges = []
    for network in call.engine.client.networks.list():
        for config in (network.attrs.get("IPAM") or {}).get("Config") or []:
            subnet = ipaddress.ip_network(config["Subnet"], strict=False)
            if isinstance(subnet, ipaddress.IPv4Network):
                ranges.append(subnet)
    return ranges
