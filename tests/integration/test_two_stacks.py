"""Isolation: of two stacks on one engine from each other, of a stack's services, and of its ports."""

from __future__ import annotations

import io
import itertools
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import psycopg
import pytest
from docker.models.containers import Container
from minio.error import S3Error

from tests.integration.clients import ca_file, object_store, postgres
from tests.integration.conftest import full_config
from tests.integration.stack import Stack, wait_until

LINKED = {frozenset({"proxy", "portal"}), frozenset({"proxy", "object-store"})}
"""Services that share a network: the proxy and what it publishes."""

NAMES = ("postgres", "object-store", "portal", "proxy")


@pytest.fixture(scope="module")
def other(platform: Stack, new_stack: Callable[..., Stack]) -> Stack:
    """A second stack of the same project with the same settings but for its ports, with data of its own."""
    other = new_stack(full_config(), name="shared2")
    other.up()
    for stack in (platform, other):
        with postgres(stack, "shop", "shop_owner") as owner:
            owner.execute("create table whose (stack text)")
            owner.execute("insert into whose values (%s)", [stack.name])
        data = stack.name.encode()
        object_store(stack, "loader").put_object("raw", "whose", io.BytesIO(data), len(data))
    return other


@pytest.fixture(scope="module", autouse=True)
def _clean(platform: Stack) -> Iterator[None]:
    yield
    with postgres(platform, "shop", "shop_owner") as owner:
        owner.execute("drop table if exists whose")
    object_store(platform, "loader").remove_object("raw", "whose")


def has_its_data(stack: Stack) -> None:
    """Row and object of the stack are its own."""
    with postgres(stack, "shop", "reader") as reader:
        assert reader.execute("select stack from whose").fetchall() == [(stack.name,)]
    response = object_store(stack, "loader").get_object("raw", "whose")
    assert response.read() == stack.name.encode()
    response.close()
    assert wait_until(lambda: stack.http("", user="ada").status_code == 200)


# -- what reaches what


def listening(container: Container) -> set[int]:
    """TCP ports the container serves on more than its loopback."""
    output = container.exec_run(["cat", "/proc/net/tcp", "/proc/net/tcp6"]).output.decode()
    found = set()
    for line in output.splitlines():
        fields = line.split()
        if len(fields) > 3 and fields[3] == "0A":
            address, port = fields[1].split(":")
            # Little-endian: 127.x.y.z ends in 7F.
            if not address.endswith("7F") and address != "0" * 24 + "01000000":
                found.add(int(port, 16))
    return found


def addresses(container: Container) -> list[str]:
    """One for each network."""
    container.reload()
    return [network["IPAddress"] for network in container.attrs["NetworkSettings"]["Networks"].values()]


def reached(container: Container, targets: Iterable[tuple[str, int]]) -> set[tuple[str, int]]:
    """Those of the addresses that a TCP connection from the container gets to, five times in a row.

    While it creates a network, for whomever, Docker 20.10 takes its isolation rules out for a moment.
    """
    left = connected(container, targets)
    for _ in range(4):
        if left:
            time.sleep(1)
            left = connected(container, left)
    return left


def connected(container: Container, targets: Iterable[tuple[str, int]]) -> set[tuple[str, int]]:
    """Those of the addresses that a TCP connection from the container gets to within two seconds."""
    tries = " ".join(
        f"(timeout 2 bash -c '</dev/tcp/{host}/{port}' 2>/dev/null && echo {host} {port}) &"
        for host, port in targets
    )
    result = container.exec_run(["bash", "-c", f"{tries} wait"])
    assert result.exit_code == 0, result.output
    return {(line.split()[0], int(line.split()[1])) for line in result.output.decode().splitlines()}


def resolved(container: Container, names: Iterable[str]) -> set[str]:
    """Those of the names that the container finds, all tried at once; the engine is slow to say no."""
    tries = " ".join(f"(timeout 3 getent hosts {name} >/dev/null && echo {name}) &" for name in names)
    result = container.exec_run(["bash", "-c", f"{tries} wait"])
    assert result.exit_code == 0, result.output
    return set(result.output.decode().split())


def ports_of(container: Container) -> set[tuple[str, int]]:
    """Every address and port of a container."""
    found = set(itertools.product(addresses(container), listening(container)))
    assert found
    return found


def test_a_container_reaches_itself(platform: Stack) -> None:
    """The way the tests below look would show a connection."""
    for name in NAMES:
        container = platform.container(name)
        assert wait_until(lambda c=container: connected(c, ports_of(c)) == ports_of(c))


def test_only_linked_services_reach_each_other(platform: Stack) -> None:
    containers = {name: platform.container(name) for name in NAMES}
    assert {c.name for c in containers.values()} == {c.name for c in platform.containers()}
    targets = {name: ports_of(container) for name, container in containers.items()}

    def at_one_address(source: str, target: str) -> bool:
        """At the one they share, and there at every port."""
        found = connected(containers[source], targets[target])
        ports = {port for _, port in targets[target]}
        return len({host for host, _ in found}) == 1 and {port for _, port in found} == ports

    for source, target in itertools.permutations(NAMES, 2):
        if frozenset({source, target}) in LINKED:
            assert wait_until(lambda pair=(source, target): at_one_address(*pair))
        else:
            assert reached(containers[source], targets[target]) == set(), (source, target)


def test_only_linked_services_know_each_others_names(platform: Stack) -> None:
    for source in NAMES:
        linked = {name for link in LINKED if source in link for name in link}
        known = (platform.container(source), linked | {source})
        assert wait_until(lambda known=known: resolved(known[0], NAMES) == known[1])


def outside_address() -> str:
    """The address of this machine that others see."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # sends nothing
        return str(probe.getsockname()[0])


def answers(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=3).close()
    except OSError:
        return False
    return True


def test_only_the_proxys_two_ports_are_published(platform: Stack) -> None:
    published: dict[str, set[tuple[str, int]]] = {"0.0.0.0": set(), "127.0.0.1": set()}
    for container in platform.containers():
        for bindings in container.attrs["NetworkSettings"]["Ports"].values():
            for binding in bindings or ():
                host = "0.0.0.0" if binding["HostIp"] in ("", "::", "0.0.0.0") else binding["HostIp"]
                name = container.labels["dev.millrace.service"]
                published[host].add((name, int(binding["HostPort"])))
    config = platform.config
    web = {config["proxy"]["http_port"], config["proxy"]["https_port"]}
    local = {config["postgres"]["loopback_port"], config["object_store"]["loopback_port"]}
    assert published["0.0.0.0"] == {("proxy", port) for port in web}
    assert {port for _, port in published["127.0.0.1"]} == local
    outside = outside_address()
    assert {port for port in web | local if answers(outside, port)} == web
    assert {port for port in web | local if answers("127.0.0.1", port)} == web | local


def test_ports_on_the_hosts_loopback_are_not_for_containers(platform: Stack) -> None:
    config = platform.config
    ports = (config["postgres"]["loopback_port"], config["object_store"]["loopback_port"])
    for container in platform.containers():
        networks = [platform.docker.networks.get(n) for n in container.attrs["NetworkSettings"]["Networks"]]
        gateways = [
            pool["Gateway"] for n in networks for pool in n.attrs["IPAM"]["Config"] if "Gateway" in pool
        ]
        assert reached(container, itertools.product([*gateways, outside_address()], ports)) == set()


def test_only_containers_with_ports_on_the_host_have_a_way_out(platform: Stack) -> None:
    """And theirs has no address translation: replies find their way, new connections get no answer."""
    for container in platform.containers():
        for name in container.attrs["NetworkSettings"]["Networks"]:
            network = platform.docker.networks.get(name)
            assert network.attrs["Internal"] or (
                name.endswith("-publish")
                and network.attrs["Options"]["com.docker.network.bridge.enable_ip_masquerade"] == "false"
            )


def test_container_without_ports_on_the_host_does_not_reach_the_host(platform: Stack) -> None:
    """The proxy's ports are open on every address the host has, the bridges' own included."""
    portal, proxy = platform.container("portal"), platform.config["proxy"]
    networks = [platform.docker.networks.get(n) for n in portal.attrs["NetworkSettings"]["Networks"]]
    gateways = [pool["Gateway"] for n in networks for pool in n.attrs["IPAM"]["Config"] if "Gateway" in pool]
    assert answers(outside_address(), proxy["https_port"])
    ports = (proxy["http_port"], proxy["https_port"])
    assert reached(portal, itertools.product([*gateways, outside_address()], ports)) == set()


# -- two stacks


def test_stacks_share_no_container_network_or_volume(platform: Stack, other: Stack) -> None:
    def parts(stack: Stack) -> dict[str, set[Any]]:
        containers = stack.containers()
        return {
            "containers": {c.name for c in containers},
            "networks": {n for c in containers for n in c.attrs["NetworkSettings"]["Networks"]},
            "addresses": {a for c in containers for a in addresses(c)},
            "volumes": {m["Name"] for c in containers for m in c.attrs["Mounts"] if m["Type"] == "volume"},
            "binds": {m["Source"] for c in containers for m in c.attrs["Mounts"] if m["Type"] == "bind"},
        }

    one, two = parts(platform), parts(other)
    for what in one:
        assert not one[what] & two[what], what
    for found, prefix in ((one, platform.prefix), (two, other.prefix)):
        for what in ("containers", "networks", "volumes"):
            assert found[what] and all(name.startswith(f"{prefix}-") for name in found[what])
        assert len(found["volumes"]) == 2
        assert not found["binds"]


def test_containers_of_one_stack_do_not_reach_the_other(platform: Stack, other: Stack) -> None:
    for here, there in ((platform, other), (other, platform)):
        targets = {t for c in there.containers() for t in ports_of(c)}
        assert len(targets) > 10
        for container in here.containers():
            assert reached(container, targets) == set(), container.name
            assert resolved(container, [f"{there.prefix}-{name}" for name in NAMES]) == set()


def test_credentials_of_one_stack_fail_at_the_other(platform: Stack, other: Stack) -> None:
    for here, there in ((platform, other), (other, platform)):
        mine, theirs = (stack.outputs_once["credentials"] for stack in (here, there))
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            postgres(there, "shop", "reader", password=mine["postgres"]["reader"]).close()
        with pytest.raises(S3Error, match="SignatureDoesNotMatch"):
            object_store(there, "loader", secret=mine["object_store"]["loader"]).list_buckets()
        assert there.http("", user="ada", password=mine["users"]["ada"]).status_code == 401
        assert there.http("", user="ada").status_code == 200
        for group in mine:
            assert not set(mine[group].values()) & set(theirs[group].values())


def test_cas_of_the_stacks_differ(platform: Stack, other: Stack) -> None:
    with pytest.raises(psycopg.OperationalError, match="certificate verify failed"):
        psycopg.connect(
            host="localhost",
            port=other.config["postgres"]["loopback_port"],
            sslmode="verify-full",
            sslrootcert=ca_file(platform),
        ).close()


def test_destroying_one_leaves_the_other(platform: Stack, other: Stack) -> None:
    has_its_data(other)
    before = {c.id: c.attrs["State"]["StartedAt"] for c in platform.containers()}
    remains = platform.remains()
    other.destroy()
    assert other.remains() == []
    has_its_data(platform)
    assert {c.id: c.attrs["State"]["StartedAt"] for c in platform.containers()} == before
    assert platform.remains() == remains
    platform.no_change()
