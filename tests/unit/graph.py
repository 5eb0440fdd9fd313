"""Builds a platform with Pulumi's mocks and shows what it registered.

The mock engine does not mark generated values secret; here they are planted, so that a search of everything
registered finds each place where the program itself forgot to.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pulumi
import pytest
from google.protobuf.struct_pb2 import Struct, Value
from pulumi.runtime import mocks
from pulumi.runtime.settings import SETTINGS, set_root_resource
from pulumi.runtime.stack import run_in_stack

import components.platform
import components.services
from components import ca_bundle
from components.platform import Platform
from components.service import Service
from components.settings import load, settings_model

_SIGNATURE = "4dabf18193072939515e22adb298388d"
_SECRET = "1b47061264138c4ac30d75fd1eb44270"
PLANTED = "planted"
"""Part of every generated password, hash and private key."""


@dataclass(frozen=True)
class Secret:
    """A value that Pulumi encrypts in the state and hides in previews."""

    value: Any


@dataclass(frozen=True, repr=False)
class Node:
    """One registered resource: its inputs with secrets marked, and its options."""

    type: str
    name: str
    urn: str
    parent: str
    inputs: Mapping[str, Any]
    depends_on: frozenset[str]
    provider: str
    protect: bool
    retain: bool
    deleted_with: str
    delete_before_replace: bool
    replace_on: tuple[str, ...]
    ignored: tuple[str, ...]
    additional_secrets: tuple[str, ...]
    custom: bool
    hooks: frozenset[str]

    def __repr__(self) -> str:
        return f"<{self.type} {self.name}>"

    def get(self, key: str, default: Any = None) -> Any:
        """An input without its secret marks."""
        return bare(self.inputs.get(key, default))


@dataclass
class Graph:
    """All resources of one run, and the stack's outputs."""

    stack: str
    nodes: list[Node] = field(default_factory=list)
    outputs: dict[str, Any] = field(default_factory=dict)

    def of(self, type_: str) -> list[Node]:
        """All of a type."""
        return [node for node in self.nodes if node.type == type_]

    def one(self, type_: str, name: str) -> Node:
        """The one of that type and name."""
        (found,) = [node for node in self.of(type_) if node.name == name]
        return found

    def named(self, name: str) -> Node:
        """The one of that name."""
        (found,) = [node for node in self.nodes if node.name == name]
        return found

    @property
    def containers(self) -> list[Node]:
        """Workloads' containers."""
        return self.of("docker:index/container:Container")

    @property
    def jobs(self) -> list[Node]:
        """Runs of jobs."""
        return self.of("millrace:docker:Job")

    def container(self, name: str) -> Node:
        """A container by its short name."""
        return self.one("docker:index/container:Container", name)

    def waits_for(self, node: Node) -> set[str]:
        """URNs of everything that must exist before ``node``, directly or not."""
        by_urn = {n.urn: n for n in self.nodes}
        found: set[str] = set()
        todo = [node]
        while todo:
            for urn in todo.pop().depends_on - found:
                found.add(urn)
                if urn in by_urn:
                    todo.append(by_urn[urn])
        return found


def bare(value: Any) -> Any:
    """``value`` without secret marks."""
    if isinstance(value, Secret):
        return bare(value.value)
    if isinstance(value, dict):
        return {key: bare(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [bare(inner) for inner in value]
    return value


def plain_texts(value: Any) -> Iterator[str]:
    """All texts below ``value`` that are not marked secret."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield key
            yield from plain_texts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from plain_texts(inner)


def _python(value: Value | Struct) -> Any:
    if isinstance(value, Struct):
        fields = {key: _python(inner) for key, inner in value.fields.items()}
        return Secret(fields["value"]) if fields.get(_SIGNATURE) == _SECRET else fields
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        return _python(value.struct_value)
    if kind == "list_value":
        return [_python(inner) for inner in value.list_value.values]
    return None if kind in (None, "null_value") else getattr(value, kind)


class _Mocks(mocks.Mocks):
    def call(self, args: mocks.MockCallArgs) -> tuple[dict[str, Any], list[Any]]:
        if args.token == "digitalocean:index/getDatabaseCa:getDatabaseCa":
            # Only for a target that has managed clusters.
            return {"certificate": f"CA of {args.args['clusterId']}\n", "id": "ca"}, []
        raise AssertionError(f"the program calls {args.token}: a preview must not")

    def new_resource(self, args: mocks.MockResourceArgs) -> tuple[str, dict[str, Any]]:
        name = args.name
        # Another rotation makes another password, as the real provider does.
        secret = f"{name}-{args.inputs.get('keepers', {}).get('rotation', '')}"
        made: dict[str, dict[str, Any]] = {
            "random:index/randomPassword:RandomPassword": {
                "result": f"{PLANTED}-password-{secret}",
                "bcryptHash": f"{PLANTED}-hash-{secret}",
            },
            "random:index/randomId:RandomId": {"hex": f"hex-{name}", "b64Url": f"b64-{name}"},
            "tls:index/privateKey:PrivateKey": {
                "privateKeyPem": f"{PLANTED}-key-{name}",
                "privateKeyPemPkcs8": f"{PLANTED}-pkcs8-{name}",
                "privateKeyOpenssh": f"{PLANTED}-ssh-{name}",
                "publicKeyPem": f"public {name}",
                "publicKeyOpenssh": f"ssh-ed25519 AAAA{name}\n",
            },
            "tls:index/selfSignedCert:SelfSignedCert": {"certPem": f"certificate {name}"},
            "tls:index/certRequest:CertRequest": {"certRequestPem": f"request {name}"},
            "tls:index/locallySignedCert:LocallySignedCert": {"certPem": f"certificate {name}"},
            "millrace:docker:Image": {"image": f"sha256:{name}"},
            "millrace:docker:Network": {"cidr": "10.213.0.0/27"},
            "millrace:core:Former": {"former": [f"{PLANTED}-former-{name}"]},
            "millrace:core:Kept": {"kept": args.inputs.get("value")},
            "digitalocean:index/droplet:Droplet": {
                "dropletUrn": "do:droplet:4711",
                "ipv4Address": "198.51.100.9",
                "ipv4AddressPrivate": "10.120.0.2",
            },
            "digitalocean:index/volume:Volume": {"volumeUrn": f"do:volume:{name}"},
            "digitalocean:index/reservedIp:ReservedIp": {
                "ipAddress": "203.0.113.80",
                "reservedIpUrn": "do:reservedip:203.0.113.80",
            },
            "digitalocean:index/databaseCluster:DatabaseCluster": {
                "privateHost": f"private-{args.inputs.get('name')}.db.ondigitalocean.com",
                "host": "never",
                "port": 25060.0,
                "password": f"{PLANTED}-admin-{name}",
                "clusterUrn": f"do:dbaas:{name}",
            },
            "digitalocean:index/databaseUser:DatabaseUser": {"password": f"{PLANTED}-user-{name}"},
            "digitalocean:index/spacesBucket:SpacesBucket": {
                "bucketUrn": f"do:space:{args.inputs.get('name')}"
            },
            # Another name is another key: see components.targets.digitalocean_spaces.
            "digitalocean:index/spacesKey:SpacesKey": {
                "accessKey": f"DO00{name}",
                "secretKey": f"{PLANTED}+/{args.inputs.get('name')}",
            },
            "digitalocean:index/domain:Domain": {"domainUrn": f"do:domain:{args.inputs.get('name')}"},
        }
        # Droplets are the only thing whose id is used as a number.
        id_ = "4711" if args.typ == "digitalocean:index/droplet:Droplet" else f"id-{name}"
        return id_, {**args.inputs, **made.get(args.typ, {})}


class _Monitor(mocks.MockMonitor):
    def __init__(self, graph: Graph) -> None:
        super().__init__(_Mocks())
        self.graph = graph

    def RegisterResource(self, request: Any) -> Any:
        response = super().RegisterResource(request)
        if request.type != "pulumi:pulumi:Stack":
            assert response.urn not in {node.urn for node in self.graph.nodes}, f"twice: {response.urn}"
            self.graph.nodes.append(
                Node(
                    type=request.type,
                    name=request.name,
                    urn=response.urn,
                    parent=request.parent,
                    inputs=_python(request.object),
                    depends_on=frozenset(request.dependencies),
                    provider=request.provider.split("::")[-2] if request.provider else "",
                    protect=request.protect,
                    retain=request.retainOnDelete,
                    deleted_with=request.deletedWith,
                    delete_before_replace=request.deleteBeforeReplace,
                    replace_on=tuple(request.replaceOnChanges),
                    ignored=tuple(request.ignoreChanges),
                    additional_secrets=tuple(request.additionalSecretOutputs),
                    custom=request.custom,
                    hooks=frozenset(
                        name
                        for kind in request.hooks.DESCRIPTOR.fields
                        for name in getattr(request.hooks, kind.name)
                    ),
                )
            )
        return response

    def RegisterResourceOutputs(self, request: Any) -> Any:
        if "pulumi:pulumi:Stack" in request.urn:
            self.graph.outputs = _python(request.outputs)
        return super().RegisterResourceOutputs(request)


def platform(
    values: Mapping[str, Any],
    *,
    services: Mapping[str, type[Service]] | None = None,
    stack: str = "test",
    project: str = "millrace",
) -> Graph:
    """The graph of a platform with these settings, of the real services or of ``services``."""
    with pytest.MonkeyPatch.context() as patch:
        if services is not None:
            patch.setattr(components.services, "registry", lambda: dict(services))
            patch.setattr(components.platform, "registry", lambda: dict(services))
        # The bundle for builds belongs to the checkout, and this machine's own CAs to nobody's test.
        patch.setattr(ca_bundle, "BUILD_BUNDLE", Path(tempfile.gettempdir()) / f"bundle-{os.getpid()}.crt")
        patch.delenv("SSL_CERT_FILE", raising=False)
        patch.delenv("DOCKER_HOST", raising=False)
        ca_bundle.combined.cache_clear()
        settings_model.cache_clear()
        try:
            settings = load({"users": [{"name": "ada", "role": "admin"}], **values}, f"Pulumi.{stack}.yaml")
            return run(lambda: Platform(settings).export(), stack=stack, project=project)
        finally:
            ca_bundle.BUILD_BUNDLE.unlink(missing_ok=True)
            ca_bundle.combined.cache_clear()
            settings_model.cache_clear()


def run(program: Callable[[], None], *, stack: str = "test", project: str = "millrace") -> Graph:
    """Run a Pulumi program against mocks, in an event loop and a context of its own."""
    graph = Graph(stack=stack)

    def isolated() -> None:
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        # Outputs that other tests made outside of a program wait in loops that are closed by now.
        SETTINGS.outputs.clear()
        SETTINGS.rpc_manager.clear()
        try:
            pulumi.runtime.set_mocks(_Mocks(), project=project, stack=stack, monitor=_Monitor(graph))
            # set_mocks makes a stack of its own, which would have to end before the program's begins.
            set_root_resource(None)  # type: ignore[arg-type]
            loop.run_until_complete(run_in_stack(program))
        finally:
            asyncio.set_event_loop(None)
            loop.close()

    contextvars.copy_context().run(isolated)
    return graph
