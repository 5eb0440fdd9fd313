"""``millrace:docker:Network``: a bridge network with an address range that is free on the engine."""

from __future__ import annotations

import contextlib
import ipaddress
import threading
from collections.abc import Iterator
from typing import Any

from docker.errors import APIError, NotFound
from docker.models.networks import Network as DockerNetwork
from docker.types import IPAMConfig, IPAMPool
from typing_extensions import override

from millrace.engine import same_owner
from millrace.resources import Call, Props, Resource, ResourceError

_MASQUERADE = "com.docker.network.bridge.enable_ip_masquerade"
# Without an address of its own on the bridge, the host can't be reached from the network either.
_NO_HOST = "com.docker.network.bridge.inhibit_ipv4"

_lock = threading.Lock()
_taken: set[ipaddress.IPv4Network] = set()


class Network(Resource):
    """A network with the first range of ``prefix`` bits in ``pool`` that no other network of the engine has.

    Docker's own default pools hold some 30 networks (moby/libnetwork, ipamutils: 172.17.0.0/12 in /16s and
    192.168.0.0/16 in /20s), fewer than one network per need takes, and an address range chosen beforehand can
    be gone by the time the network is made: here both happen at once, and a lost race means the next range.
    ``internal`` networks have no way out, not even to the host; of the others only those with ``masquerade``
    let their members call out. Deleting one detaches what an interrupted update left in it.
    """

    type_token = "millrace:docker:Network"
    replace_on = frozenset({"name", "pool", "prefix", "internal", "masquerade", "labels"})

    @override
    def create(self, call: Call, props: Props) -> tuple[str, dict[str, Any]]:
        _clear_leftover(call, props)
        refused: set[ipaddress.IPv4Network] = set()
        while True:
            subnet = _reserve(call, props, refused)
            try:
                network = _make(call, props, subnet)
            except APIError as error:
                if "overlap" not in str(error.explanation):
                    raise ResourceError(f"network {props['name']}: {error.explanation}") from None
                refused.add(subnet)
            else:
                return str(network.id), {**props, "cidr": str(subnet)}
            finally:
                with _lock:
                    _taken.discard(subnet)

    @override
    def read(self, call: Call, id_: str, props: Props) -> dict[str, Any] | None:
        try:
            call.engine.client.networks.get(id_)
        except NotFound:
            return None
        return dict(props)

    @override
    def delete(self, call: Call, id_: str, props: Props) -> None:
        try:
            _remove(call.engine.client.networks.get(id_))
        except NotFound:
            return
        except APIError as error:
            raise ResourceError(f"network {props['name']}: {error.explanation}") from None


def _make(call: Call, props: Props, subnet: ipaddress.IPv4Network) -> DockerNetwork:
    internal = bool(props["internal"])
    return call.engine.client.networks.create(
        str(props["name"]),
        driver="bridge",
        internal=internal,
        options={_NO_HOST: "true"} if internal else {_MASQUERADE: str(bool(props["masquerade"])).lower()},
        ipam=IPAMConfig(pool_configs=[IPAMPool(subnet=str(subnet))]),
        labels=dict(props["labels"]),
        check_duplicate=True,
    )


def _reserve(call: Call, props: Props, refused: set[ipaddress.IPv4Network]) -> ipaddress.IPv4Network:
    """The first free range, held against other calls of this process until its network exists."""
    pool, bits = ipaddress.IPv4Network(str(props["pool"])), int(props["prefix"])
    with _lock:
        used = _taken | refused | set(_in_use(call))
        for candidate in pool.subnets(new_prefix=bits):
            if not any(candidate.overlaps(other) for other in used):
                _taken.add(candidate)
                return candidate
    raise ResourceError(f"network.pool {pool}: no free /{bits} range left on this engine")


def _in_use(call: Call) -> Iterator[ipaddress.IPv4Network]:
    for network in call.engine.client.networks.list():
        for config in (network.attrs.get("IPAM") or {}).get("Config") or []:
            subnet = ipaddress.ip_network(config.get("Subnet") or "::/128", strict=False)
            if isinstance(subnet, ipaddress.IPv4Network):
                yield subnet


def _clear_leftover(call: Call, props: Props) -> None:
    """A network of this name that the state does not know: an update that was killed made it."""
    for network in call.engine.client.networks.list(names=[f"^{props['name']}$"]):
        if not same_owner(network.attrs.get("Labels") or {}, dict(props["labels"])):
            raise ResourceError(
                f"network {props['name']} is there already and not of this stack's state: another checkout "
                f"has a stack of this name on the engine, or the state was lost - choose another name, or "
                f"remove it"
            )
        _remove(network)


def _remove(network: DockerNetwork) -> None:
    network.reload()
    for container in list(network.attrs.get("Containers") or {}):
        with contextlib.suppress(NotFound):
            network.disconnect(container, force=True)
    with contextlib.suppress(NotFound):
        network.remove()
