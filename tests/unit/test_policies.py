"""The rules of the policy pack, each both ways, on resources as the program registers them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import graph as graphs
import pytest
from google.protobuf.struct_pb2 import Struct
from graph import Graph, Node, platform

from components.services import registry
from policies.data import LABEL_DATA
from policies.pack import RULES
from policies.rules import CONTAINER, IMAGE, JOB, NETWORK, REMOTE_IMAGE, VOLUME, Resource, Stack, stack_of
from policies.secrecy import leaks
from policies.values import UNKNOWN, Secret, bare, dotted, from_struct
from tests.integration.services import resolved

STRICT = Stack(production=True, digests=True)
SECRET = "correct-horse-battery"
SIGNATURE = {"4dabf18193072939515e22adb298388d": "1b47061264138c4ac30d75fd1eb44270"}


def found(resource: Resource, stack: Stack = STRICT) -> dict[str, list[str]]:
    """What is wrong with a resource, by rule."""
    wrong = {
        rule.name: list(rule.check(resource, stack))
        for rule in RULES
        if rule.types is None or resource.type in rule.types
    }
    return {name: texts for name, texts in wrong.items() if texts}


def marked(value: Any) -> Any:
    """What the graph recorded, with the marks as the pack has them."""
    if isinstance(value, graphs.Secret):
        return Secret(marked(value.value))
    if isinstance(value, Mapping):
        return {key: marked(inner) for key, inner in value.items()}
    if isinstance(value, str) and value.startswith("sha256:"):
        return f"sha256:{'0' * 64}"  # the mock engine's ids are no hashes
    return [marked(inner) for inner in value] if isinstance(value, list) else value


def resource(node: Node) -> Resource:
    return Resource(
        type=node.type, name=node.name, urn=node.urn, props=marked(node.inputs), protect=node.protect
    )


@cache
def everything() -> Graph:
    return platform({"protect_data": True, **resolved(registry())})


def container(name: str = "postgres", **changes: Any) -> Resource:
    own = resource(everything().container(name))
    return replace(own, props={**own.props, **changes})


def job(**changes: Any) -> Resource:
    own = resource(everything().one(JOB, "postgres-setup"))
    return replace(own, props={**own.props, **changes})


def image(**changes: Any) -> Resource:
    return Resource(type=IMAGE, name="image-x", props={"title": "x", **changes})


# -- the platform itself keeps all rules


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"protect_data": True, **resolved(registry())},
        {"protect_data": True, "proxy": {"engine": "traefik"}, "kafka": {"brokers": 3}, "postgres": {}},
        {"domain": "data.acme.org", "tls": {"mode": "letsencrypt", "email": "a@b.org"}},
        {
            "domain": "data.acme.org",
            "tls": {"email": "a@b.org"},
            "target": {
                "kind": "digitalocean",
                "region": "fra1",
                "ssh_networks": ["203.0.113.7"],
                "object_store": {},
            },
            "protect_data": True,
            "object_store": {},
            "spark": {},
        },
    ],
    ids=["proxy", "everything", "traefik", "acme", "spaces"],
)
def test_the_platform_keeps_all_rules_in_production_too(values: dict[str, Any]) -> None:
    wrong = {node.name: texts for node in platform(values).nodes if (texts := found(resource(node)))}
    assert wrong == {}


def test_official_images_keep_all_rules_but_that_of_digests() -> None:
    made = platform({"images": "upstream", "postgres": {}, "object_store": {}, "protect_data": True})
    wrong = {node.name: texts for node in made.nodes if (texts := found(resource(node)))}
    assert {name for texts in wrong.values() for name in texts} == {"image-pinned"}
    assert "image-postgres-upstream" in wrong
    assert "image-minio-upstream" not in wrong
    without = replace(STRICT, digests=False)
    assert all(not found(resource(node), without) for node in made.nodes)


def test_nothing_secret_of_the_platform_stands_in_plain_elsewhere() -> None:
    assert list(leaks(map(resource, everything().nodes))) == []


# -- each rule broken: the resource, the rule, a part of the message

BAD: dict[str, tuple[Resource, str, str]] = {}
GOOD: dict[str, Resource] = {}


def bad(id_: str, wrong: Resource, rule: str, text: str) -> None:
    assert id_ not in BAD
    BAD[id_] = (wrong, rule, text)


def port(ip: str | None, external: float = 5432.0) -> list[dict[str, Any]]:
    return [{"internal": 5432.0, "external": external, "protocol": "tcp"} | ({"ip": ip} if ip else {})]


def host_volume(path: str) -> list[dict[str, Any]]:
    return [{"hostPath": path, "containerPath": "/x"}]


def env(*texts: Any) -> list[Any]:
    return ["TZ=UTC", *texts]


bad("port", container(ports=port("0.0.0.0")), "published-ports", "publishes port 5432 on 0.0.0.0 - give the")
bad("port-v6", container(ports=port("::")), "published-ports", "on ::")
bad("port-anywhere", container(ports=port(None)), "published-ports", "port 5432 on all addresses")
bad("port-of-the-portal", container("portal", ports=port("0.0.0.0", 80.0)), "published-ports", "port 80")
bad("all-ports", container(publishAllPorts=True), "published-ports", "publish_all_ports")
GOOD["loopback-port"] = container(ports=port("127.0.0.1"))
GOOD["loopback-v6"] = container(ports=port("::1"))
GOOD["port-of-the-proxy"] = container("proxy", ports=port("0.0.0.0", 443.0))
GOOD["no-port"] = container(ports=None)

bad("memory", container(memory=None), "limits", "has no memory limit - set limits.memory_mib")
bad("memory-zero", container(memory=0.0), "limits", "no memory limit")
bad("cpus", container(cpus=None), "limits", "has no CPU limit - set limits.cpus")
bad("cpus-zero", container(cpus="0"), "limits", "no CPU limit")
bad("memory-of-a-job", job(memoryMib=0.0), "limits", "no memory limit")
bad("cpus-of-a-job", job(cpus=None), "limits", "no CPU limit")
GOOD["limits-to-come"] = container(memory=UNKNOWN, cpus=UNKNOWN)
GOOD["quota"] = container(cpus=None, cpuQuota=50000.0)

bad("no-probe", container(healthcheck=None), "probe", "has no health check - give the workload a probe")
bad("probe-off", container(healthcheck={"tests": ["NONE"]}), "probe", "no health check")
bad("probe-empty", container(healthcheck={"interval": "5s"}), "probe", "no health check")
bad("endless-job", job(timeout=0.0), "probe", "may run for ever - set timeout_s")
GOOD["job-without-probe"] = job(healthcheck=None)
GOOD["one-shot"] = container(mustRun=False, healthcheck=None)
GOOD["probe-to-come"] = container(healthcheck=UNKNOWN)

bad("no-tag", image(reference="docker.io/library/postgres"), "image-pinned", "postgres has no tag - name an")
bad("no-tag-but-port", image(reference="localhost:5000/postgres"), "image-pinned", "has no tag")
bad("latest", image(reference="postgres:latest"), "image-pinned", "tag latest of postgres:latest moves")
bad("latest-something", image(reference="a/b:latest-dev"), "image-pinned", "moves")
bad("tag-alone", image(reference="postgres:15.19"), "image-pinned", "postgres:15.19 has no digest, which")
bad("container-by-tag", container(image="postgres:15.19"), "image-pinned", "has no digest")
bad("job-by-tag", job(image="postgres"), "image-pinned", "has no tag")
bad(
    "other-resource", Resource(type=REMOTE_IMAGE, name="i", props={"name": "nginx"}), "image-pinned", "no tag"
)
GOOD["digest"] = image(reference=f"postgres:15.19@sha256:{'0' * 64}")
GOOD["built"] = image(reference="millrace/postgres:15-0123456789ab", context="images")
GOOD["image-id"] = container(image=f"sha256:{'0' * 64}")
GOOD["image-to-come"] = container(image=UNKNOWN)
GOOD["built-by-docker"] = Resource(
    type=REMOTE_IMAGE, name="i", props={"name": "x", "build": {"context": "."}}
)

bad("root", container(user="root"), "no-root", "runs as root - set user")
bad("uid-0", container(user="0:999"), "no-root", "runs as 0")
bad("user-of-the-image", container(user=None), "no-root", "as whoever its image names, root perhaps")
bad("root-job", job(uid=0.0), "no-root", "runs as 0")
GOOD["user-to-come"] = container(user=UNKNOWN)
GOOD["group-0"] = container(user="999:0")

bad("privileged", container(privileged=True), "no-privileged", "is privileged - remove it")
bad("capability", container(capabilities={"adds": ["SYS_ADMIN"]}), "no-privileged", "capability SYS_ADMIN")
bad("seccomp", container(securityOpts=["seccomp=unconfined"]), "no-privileged", "seccomp=unconfined")
bad("label-disable", container(securityOpts=["label:disable"]), "no-privileged", "label:disable")
bad("device", container(devices=[{"hostPath": "/dev/sda"}]), "no-privileged", "devices of the host")
GOOD["low-port"] = container(capabilities={"drops": ["ALL"], "adds": ["NET_BIND_SERVICE"]})

bad("host-network", container(networkMode="host"), "no-host-namespaces", "network of the host (networkMode")
bad("pid", container(pidMode="host"), "no-host-namespaces", "processes of the host")
bad("ipc", container(ipcMode="host"), "no-host-namespaces", "shared memory of the host")
bad("users", container(usernsMode="host"), "no-host-namespaces", "users of the host")
bad("other", container(networkMode="container:abc"), "no-host-namespaces", "network of another container")
bad("job-host-network", job(networks=["host"]), "no-host-namespaces", "network of the host")
GOOD["private-ipc"] = container(ipcMode="private")

for where in ("/var/run/docker.sock", "/run/docker.sock", "/var/run", "/run/", "/", "/srv/docker.sock"):
    bad(
        f"socket-{where}",
        container(volumes=host_volume(where)),
        "docker-socket",
        f"mounts {where} of the host",
    )
bad(
    "socket-by-mount",
    container(mounts=[{"type": "bind", "source": "/run/docker.sock", "target": "/x"}]),
    "docker-socket",
    "name the service in millrace:policies.docker_socket",
)
bad("socket-of-a-job", job(volumes={"/x": "/var/run"}), "docker-socket", "mounts /var/run")
bad(
    "socket-by-volume",
    Resource(type=VOLUME, name="v", protect=True, props={"driverOpts": {"device": "/var/run", "o": "bind"}}),
    "docker-socket",
    "mounts /var/run",
)
GOOD["other-folder"] = container(volumes=host_volume("/srv/data"))
GOOD["mounted-volume"] = container(mounts=[{"type": "volume", "source": "run", "target": "/x"}])

volume = Resource(type=VOLUME, name="v", props={"labels": [{"label": "a", "value": "b"}]})
bad("unprotected", volume, "protected-data", "holds data and is not protected - set millrace:protect_data")
bad(
    "unprotected-bucket",
    Resource(type="digitalocean:index/spacesBucket:SpacesBucket", name="b", props={}),
    "protected-data",
    "set target.protect",
)
GOOD["protected"] = replace(volume, protect=True)
GOOD["cache"] = replace(volume, props={"labels": [{"label": LABEL_DATA, "value": "false"}]})

bad("env", container(envs=env(Secret(f"A={SECRET}"))), "no-plain-secrets", "has a secret in envs, which the")
bad("all-envs", container(envs=Secret(["TZ=UTC"])), "no-plain-secrets", "a secret in envs")
bad("label", container(labels=[{"label": "a", "value": Secret("b")}]), "no-plain-secrets", "secret in labels")
bad("entrypoint", container(entrypoints=["run", Secret("x")]), "no-plain-secrets", "in entrypoints")
bad("job-env", job(env={"A": Secret("x")}), "no-plain-secrets", "in env, which the engine shows")
bad("job-command", job(command=["run", Secret("x")]), "no-plain-secrets", "in command")
bad(
    "network-label",
    Resource(type=NETWORK, name="n", props={"labels": [Secret("x")]}),
    "no-plain-secrets",
    "in labels",
)
bad(
    "variable",
    container(envs=env(f"DB_PASSWORD={SECRET}")),
    "no-plain-secrets",
    "variable DB_PASSWORD with its",
)
bad("job-variable", job(env={"API_TOKEN": "abcdef"}), "no-plain-secrets", "variable API_TOKEN")
bad(
    "argument",
    container(command=["srv", "--password", "x"]),
    "no-plain-secrets",
    "has --password in its command",
)
bad(
    "argument-of-a-job", job(command=["srv", "--token=abc"]), "no-plain-secrets", "has --token in its command"
)
bad(
    "key",
    Resource(type="x:y:Z", name="z", props={"a": [{"b": "-----BEGIN RSA PRIVATE KEY-----\nMII"}]}),
    "no-plain-secrets",
    "private key in plain in a[0].b - mark it",
)
bad(
    "address",
    Resource(type="x:y:Z", name="z", props={"uri": "postgresql://me:pass@host/db"}),
    "no-plain-secrets",
    "address with a password in plain in uri",
)
GOOD["password-file"] = container(envs=env("DB_PASSWORD_FILE=/run/secrets/db", "DB_PASSWORD=/run/x"))
GOOD["no-password"] = container(envs=env("DB_PASSWORD=", "TOKEN=none", "MAX_TOKENS=12", "TOKEN_TTL=5m"))
GOOD["secret-file"] = container(uploads=Secret([{"file": "/x", "content": SECRET}]))
GOOD["marked-key"] = Resource(type="x:y:Z", name="z", props={"a": Secret("-----BEGIN PRIVATE KEY-----")})
GOOD["address-without-password"] = Resource(
    type="x:y:Z", name="z", props={"uri": "postgresql://me@host:5/db"}
)


def firewall(sources: list[str], ports: str = "22", **more: Any) -> Resource:
    rules = [{"protocol": "tcp", "portRange": ports, "sourceAddresses": sources}]
    return Resource(
        type="digitalocean:index/firewall:Firewall", name="fw", props={"inboundRules": rules, **more}
    )


def other(type_: str, **props: Any) -> Resource:
    return Resource(type=type_, name="fw", props=props)


WORLD = ["0.0.0.0/0", "::/0"]
SSH = "ssh-from-the-world"
bad("world", firewall(WORLD), SSH, "lets 0.0.0.0/0, ::/0 reach SSH (port 22) - name the networks")
bad("world-in-halves", firewall(["0.0.0.0/1", "128.0.0.0/1"]), SSH, "lets 0.0.0.0/1, 128.0.0.0/1 reach")
bad("range", firewall(["0.0.0.0/0"], "1-1024"), SSH, "reach SSH")
bad("all", firewall(["0.0.0.0/0"], "all"), SSH, "reach SSH")
bad(
    "aws",
    other(
        "aws:ec2/securityGroup:SecurityGroup",
        ingress=[{"protocol": "tcp", "fromPort": 20.0, "toPort": 30.0, "cidrBlocks": ["0.0.0.0/0"]}],
    ),
    SSH,
    "0.0.0.0/0",
)
bad(
    "aws-all",
    other("aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule", ipProtocol="-1", cidrIpv4="0.0.0.0/0"),
    SSH,
    "0.0.0.0/0",
)
bad(
    "gcp",
    other(
        "gcp:compute/firewall:Firewall",
        allows=[{"protocol": "tcp", "ports": ["80", "22"]}],
        sourceRanges=["0.0.0.0/0"],
    ),
    SSH,
    "0.0.0.0/0",
)
bad(
    "hetzner",
    other("hcloud:index/firewall:Firewall", rules=[{"direction": "in", "port": "22", "sourceIps": ["::/0"]}]),
    SSH,
    "::/0",
)
bad(
    "azure",
    other(
        "azure-native:network:NetworkSecurityGroup",
        securityRules=[
            {"direction": "Inbound", "destinationPortRange": "22", "sourceAddressPrefix": "*"},
        ],
    ),
    SSH,
    "*",
)
GOOD["named-network"] = firewall(["203.0.113.7/32", "198.51.100.0/24", "2001:db8::/32"])
GOOD["web"] = firewall(WORLD, "443")
GOOD["private"] = firewall(["10.0.0.0/8"])
GOOD["out"] = firewall(
    ["203.0.113.7/32"],
    outboundRules=[{"protocol": "tcp", "portRange": "all", "destinationAddresses": WORLD}],
)
GOOD["aws-egress"] = other(
    "aws:ec2/securityGroup:SecurityGroup",
    egress=[{"protocol": "-1", "fromPort": 0.0, "toPort": 0.0, "cidrBlocks": ["0.0.0.0/0"]}],
)
GOOD["hetzner-out"] = other(
    "hcloud:index/firewall:Firewall", rules=[{"direction": "out", "port": "22", "sourceIps": ["::/0"]}]
)
GOOD["to-come"] = firewall([UNKNOWN])  # type: ignore[list-item]


@pytest.mark.parametrize("id_", BAD)
def test_what_breaks_a_rule_is_told_with_its_mending(id_: str) -> None:
    wrong, rule, text = BAD[id_]
    told = found(wrong)
    assert list(told) == [rule]
    assert any(text in line for line in told[rule]), told
    for line in told[rule]:
        assert " - " in line
        assert "\n" not in line
        assert SECRET not in line


@pytest.mark.parametrize("id_", GOOD)
def test_what_is_allowed_breaks_no_rule(id_: str) -> None:
    assert found(GOOD[id_]) == {}


def test_every_rule_is_broken_and_kept_above() -> None:
    assert {rule for _, rule, _ in BAD.values()} == {rule.name for rule in RULES}


# -- what the stack's settings change


def test_digests_and_protection_are_asked_for_in_production_only() -> None:
    easy = Stack()
    assert found(image(reference="postgres:15.19"), easy) == {}
    assert found(volume, easy) == {}
    assert found(image(reference="postgres"), easy) != {}
    assert found(image(reference="postgres:15.19"), Stack(digests=True)) != {}


def test_the_socket_is_for_services_that_the_stack_file_names() -> None:
    wrong = container(volumes=host_volume("/var/run/docker.sock"))
    assert found(wrong, replace(STRICT, docker_socket=frozenset(["kafka"]))) != {}
    assert found(wrong, replace(STRICT, docker_socket=frozenset(["postgres"]))) == {}


@pytest.mark.parametrize(
    ("name", "own", "production", "digests"),
    [
        ("dev", None, False, False),
        ("prod", None, True, True),
        ("production", None, True, True),
        ("prod", {"production": False}, False, False),
        ("eu", {"production": True}, True, True),
        ("prod", {"digests": False}, True, False),
        ("dev", {"digests": True}, False, True),
        ("prod", "broken", True, True),
    ],
)
def test_production_goes_by_setting_then_by_name(
    name: str, own: Any, production: bool, digests: bool
) -> None:
    config = {} if own is None else {"millrace:policies": own if isinstance(own, str) else json.dumps(own)}
    stack = stack_of(name, config, frozenset())
    assert (stack.production, stack.digests) == (production, digests)


def test_secrets_of_the_configuration_are_known() -> None:
    config = {
        "millrace:registry": json.dumps({"mirror": "registry.acme.org", "password": SECRET}),
        "other:token": "another-secret",
        "other:plain": "not-a-secret",
        "other:short": "abc",
    }
    secret = frozenset(["millrace:registry", "other:token", "other:short"])
    stack = stack_of("dev", config, secret)
    assert stack.secrets == {SECRET, "another-secret"}
    assert SECRET not in repr(stack)
    leaking = Resource(type="x:y:Z", name="z", props={"list": [{"text": f"password={SECRET};"}]})
    (line,) = found(leaking, stack)["no-plain-secrets"]
    assert "a secret of the stack's configuration in plain in list[0].text" in line
    assert found(replace(leaking, props={"list": Secret([f"password={SECRET};"])}), stack) == {}
    assert found(replace(leaking, props={"mirror": "registry.acme.org"}), stack) == {}


def test_a_secret_of_one_resource_is_found_in_plain_at_another() -> None:
    maker = Resource(
        type="random:index/randomPassword:RandomPassword", name="p", props={"result": Secret(SECRET)}
    )
    user = Resource(type="x:y:Z", name="z", urn="urn::z", props={"args": ["-p", f"x={SECRET}"]})
    ((urn, text),) = leaks([maker, user])
    assert urn == "urn::z"
    assert text.startswith("has a secret in plain in args[1] - mark it")
    assert SECRET not in text
    assert list(leaks([maker, replace(user, props={"args": Secret(["-p", SECRET])})])) == []
    outputs = Resource(type="pulumi:pulumi:Stack", name="s", urn="urn::s", props={"password": SECRET})
    assert [urn for urn, _ in leaks([maker, outputs])] == ["urn::s"]


def test_public_and_short_values_are_no_secrets_even_when_marked() -> None:
    maker = Resource(
        type="x:y:Z", name="p", props={"a": Secret("short"), "b": Secret("-----BEGIN CERTIFICATE-----\nMII")}
    )
    user = Resource(type="x:y:Z", name="z", props={"a": "short", "b": "-----BEGIN CERTIFICATE-----\nMII"})
    assert list(leaks([maker, user])) == []


# -- values of the engine


def struct(values: Mapping[str, Any]) -> Struct:
    message = Struct()
    message.update(dict(values))
    return message


def test_marks_of_secret_and_unknown_values_are_kept() -> None:
    unknown = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
    values = from_struct(
        struct({"a": {**SIGNATURE, "value": ["x", unknown]}, "b": [unknown, 1, None, True], "c": {"d": "e"}})
    )
    assert values == {"a": Secret(["x", UNKNOWN]), "b": [UNKNOWN, 1, None, True], "c": {"d": "e"}}
    assert bare(values["a"]) == ["x", UNKNOWN]
    assert "x" not in repr(values["a"])


def test_paths_are_shown_as_one_writes_them() -> None:
    assert dotted(("envs", 0)) == "envs[0]"
    assert dotted(("a", "b", 1, "c")) == "a.b[1].c"


def labels() -> Iterator[tuple[str, str]]:
    for node in everything().of(VOLUME):
        own = resource(node).labels
        yield node.name, own.get(LABEL_DATA, "true")


def test_volumes_that_can_be_made_again_say_so() -> None:
    marks = dict(labels())
    assert marks["postgres-data"] == "true"
    assert marks["spark-scratch"] == "false"
    protected = {node.name for node in everything().of(VOLUME) if node.protect}
    assert {name for name, data in marks.items() if data == "true"} == protected


def test_containers_jobs_and_volumes_have_the_types_the_rules_look_for() -> None:
    types = {node.type for node in everything().nodes}
    assert {CONTAINER, JOB, VOLUME, IMAGE} <= types
