"""The rules of the policy pack, each both ways, on resources as the program registers them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from policy_sample import SECRET, STRICT, container, everything, found, image, resource

from policies.data import LABEL_DATA
from policies.pack import RULES
from policies.rules import JOB, NETWORK, REMOTE_IMAGE, VOLUME, Resource, Stack
from policies.values import UNKNOWN, Secret


def job(**changes: Any) -> Resource:
    own = resource(everything().one(JOB, "postgres-setup"))
    return replace(own, props={**own.props, **changes})


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
