"""Mistakes that only the whole of the settings shows: needs, clashes, duplicates, unknown credentials."""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

from components import checks_target, digitalocean_settings
from components.problems import Problem, nearest, shown
from components.service import Demand, Login, Need
from components.settings import DockerTarget, Model, Settings, TlsMode
from components.workload import Access

ROTATE_ALL = "all"


def needs_of(settings: Settings, key: str) -> list[Need]:
    """What a service that is on needs, without the optional needs of services that are off."""
    from components.services import registry

    services = settings.services
    needs = registry()[key].needs(services[key], settings)
    return [need for need in needs if need.service in services or not need.optional]


def demands_of(settings: Settings) -> dict[str, list[Demand]]:
    """For each service that is on, what the others request of it, in a stable order."""
    found: dict[str, list[Demand]] = {key: [] for key in settings.services}
    for key in settings.services:
        for need in needs_of(settings, key):
            if need.service in found and need.request is not None and not isinstance(need.request, Login):
                found[need.service].append(Demand(consumer=key, request=need.request))
    return found


def consumers_of(settings: Settings, key: str) -> list[str]:
    """Services that reach this one, whether or not they request something of it."""
    return sorted(
        other for other in settings.services if any(n.service == key for n in needs_of(settings, other))
    )


def order(settings: Settings) -> list[str]:
    """Services that are on, each after those that make something for it.

    Raises:
        graphlib.CycleError: when services need each other in a circle.
    """
    services = settings.services
    graph = {
        key: sorted({n.service for n in needs_of(settings, key) if n.comes_after} & set(services))
        for key in services
    }
    return list(TopologicalSorter(graph).static_order())


def credential_ids(settings: Settings) -> list[str]:
    """Ids of all credentials the platform will have."""
    from components.services import registry

    demands = demands_of(settings)
    ids = [f"users/{user.name}" for user in settings.users]
    for key, own in settings.services.items():
        ids += [f"{key}/{name}" for name in registry()[key].credentials(own, demands[key])]
    return ids


def duplicates(
    names: Sequence[str], path: Sequence[str | int], what: str, field: str = "name"
) -> Iterator[Problem]:
    """One problem for each entry of a list whose name an earlier entry has."""
    counts: Counter[str] = Counter()
    for index, name in enumerate(names):
        if counts[name]:
            yield Problem(
                (*path, index, field), f'{what} "{name}" stands here a second time - remove or rename it'
            )
        counts[name] += 1


def problems(settings: Settings) -> Iterator[Problem]:
    """All of them, in a fixed order."""
    if isinstance(settings.target, DockerTarget):
        yield from checks_target.problems(settings.target)
    else:
        yield from digitalocean_settings.problems(settings, settings.target)
    yield from _registry(settings)
    yield from _portal(settings)
    yield from _tls(settings)
    yield from _files(settings)
    yield from _provided(settings)
    yield from duplicates([u.name for u in settings.users], ("users",), "user")
    needs = list(_needs(settings))
    yield from needs
    if not needs:
        # Without all services in place nobody knows which credentials there will be.
        yield from _rotation(settings)
        yield from _alike(settings)
        yield from _pool(settings)
    yield from _ports(settings)
    yield from _services(settings)


def _registry(settings: Settings) -> Iterator[Problem]:
    registry = settings.registry
    if registry is not None and (registry.username is None) != (registry.password is None):
        absent = "username" if registry.username is None else "password"
        yield Problem(("registry", absent), "missing - username and password go together")


def _portal(settings: Settings) -> Iterator[Problem]:
    needed = settings.proxy.portal_access
    if needed is not Access.PUBLIC and not any(u.role.access.rank >= needed.rank for u in settings.users):
        yield Problem(
            ("users",),
            f"nobody may open the portal (proxy.portal_access is {needed}) - "
            f"add a user such as `- {{name: admin, role: admin}}`",
        )


def _tls(settings: Settings) -> Iterator[Problem]:
    tls = settings.tls
    wanted: dict[TlsMode, tuple[str, ...]] = {
        TlsMode.PROVIDED: ("certificate", "key"),
        TlsMode.LETSENCRYPT: ("email",),
    }
    for name in wanted.get(tls.mode, ()):
        if getattr(tls, name) is None:
            yield Problem(("tls", name), f"missing - mode {tls.mode} needs it")
    for mode, names in wanted.items():
        for name in names:
            if mode is not tls.mode and getattr(tls, name) is not None:
                yield Problem(
                    ("tls", name), f"has no meaning in mode {tls.mode} - remove it or use mode {mode}"
                )
    if tls.mode is TlsMode.LETSENCRYPT and _is_default(tls, "server") and _is_local(settings.domain):
        yield Problem(
            ("domain",), f"no public CA knows {settings.domain} - use a public domain, or tls.server"
        )
    if tls.renew_days >= tls.validity_days:
        yield Problem(
            ("tls", "renew_days"),
            f"every `up` would renew - must be less than validity_days ({tls.validity_days})",
        )


# RFC 2606, RFC 6762, ICANN's .internal: no public CA issues for these.
_LOCAL = ("localhost", "local", "internal", "test", "example", "invalid")


def _is_local(domain: str) -> bool:
    return domain.rpartition(".")[2] in _LOCAL


def _is_default(model: Model, field: str) -> bool:
    return bool(getattr(model, field) == type(model).model_fields[field].default)


_CERTIFICATE = "-----BEGIN CERTIFICATE-----"
_KEY = "PRIVATE KEY-----"


def _files(settings: Settings) -> Iterator[Problem]:
    """Files that are there but hold something else: swapped certificate and key, DER instead of PEM."""
    target = settings.target
    given: list[tuple[tuple[str, ...], str | None, str]] = [
        (("ca_bundle",), settings.ca_bundle, _CERTIFICATE),
    ]
    if isinstance(target, DockerTarget):
        given += [
            (("target", "ca"), target.ca, _CERTIFICATE),
            (("target", "certificate"), target.certificate, _CERTIFICATE),
            (("target", "key"), None if target.host.startswith("ssh://") else target.key, _KEY),
        ]
    for path, name, wanted in given:
        if name is not None and wanted not in Path(name).expanduser().read_text(errors="replace"):
            what = "private key" if wanted is _KEY else "certificate"
            yield Problem(path, f"{shown(name)} holds no {what} in PEM form - give a PEM file with one")


def _provided(settings: Settings) -> Iterator[Problem]:
    from components.proxy import check_provided

    yield from check_provided(settings)


def _rotation(settings: Settings) -> Iterator[Problem]:
    known = credential_ids(settings)
    for id_ in settings.rotation:
        if id_ not in known and id_ != ROTATE_ALL:
            yield Problem(("rotation", id_), f"no such credential{nearest(id_, [*known, ROTATE_ALL])}")


def _alike(settings: Settings) -> Iterator[Problem]:
    """Ids that differ only by ``-`` and ``_`` would become resources of one name."""
    seen: dict[str, str] = {}
    for id_ in credential_ids(settings):
        other = seen.setdefault(id_.replace("_", "-"), id_)
        if other != id_:
            owner, _, name = id_.partition("/")
            yield Problem(
                (owner,), f"{shown(name)} is too like {shown(other.partition('/')[2])} - rename one"
            )


def _needs(settings: Settings) -> Iterator[Problem]:
    services = settings.services
    for key in services:
        absent = sorted({n.service for n in needs_of(settings, key)} - set(services))
        for name in absent:
            yield Problem((key,), f"needs {name}, which is off - add the key {name}")
    try:
        order(settings)
    except CycleError as error:
        circle = " -> ".join(error.args[1])
        yield Problem((error.args[1][0],), f"services need each other in a circle ({circle}) - break it")


def networks(settings: Settings) -> int:
    """How many networks the Docker target makes; see :mod:`components.targets.docker_networks`."""
    from components.services import registry

    # Proxy, portal, the two together, and the proxy's way out with its public ports.
    count = 4
    if settings.tls.mode is TlsMode.LETSENCRYPT and settings.proxy.engine == "nginx":
        # Traefik itself calls the CA; beside nginx it is a container that has no port.
        count += 1
    publishing = {path[0] for path, _ in published_ports(settings)}
    for key, own in settings.services.items():
        service = registry()[key]
        count += 1 + len({need.service for need in needs_of(settings, key)})
        count += (key in publishing) + service.routed(own, settings) + service.calls_out(own, settings)
    return count


def _pool(settings: Settings) -> Iterator[Problem]:
    from components.targets.docker_networks import PREFIX_BITS

    pool = ipaddress.IPv4Network(settings.network.pool)
    room, needed = 2 ** (PREFIX_BITS - pool.prefixlen), networks(settings)
    if needed > room:
        enough = PREFIX_BITS - (needed - 1).bit_length()
        yield Problem(
            ("network", "pool"),
            f"{pool} has room for {room} networks, these settings need {needed} "
            f"- give a range of /{enough} or larger",
        )


def _ports(settings: Settings) -> Iterator[Problem]:
    taken: dict[int, str] = {}
    for path, port in published_ports(settings):
        label = ".".join(path)
        if port in taken and taken[port] != label:
            yield Problem(path, f"port {port} is taken by {taken[port]} - choose another")
        taken.setdefault(port, label)


def published_ports(settings: Settings) -> Iterable[tuple[tuple[str, ...], int]]:
    """Ports of the host that the settings name, with the paths of their keys."""
    yield ("proxy", "http_port"), settings.proxy.http_port
    yield ("proxy", "https_port"), settings.proxy.https_port
    for key, own in settings.services.items():
        for name in type(own).model_fields:
            value: Any = getattr(own, name)
            if name.endswith("loopback_port") and value is not None:
                yield (key, name), value


def _services(settings: Settings) -> Iterator[Problem]:
    from components.services import registry

    demands = demands_of(settings)
    for key, own in settings.services.items():
        for problem in registry()[key].check(own, demands[key], settings):
            yield Problem((key, *problem.path), problem.text)
