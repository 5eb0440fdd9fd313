"""What a platform registers with Pulumi: names, parents, order, isolation, limits, secrecy."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
from typing import Any

import pytest
import yaml
from graph import PLANTED, Graph, Node, bare, plain_texts
from graph_sample import ALONE, LETSENCRYPT, OTHERS, STACK_FILE, fake, label, made, real

from components.checks import needs_of
from components.settings import load

CONTAINER = "docker:index/container:Container"
GRAPHS = {
    "fake": lambda: fake(),
    "fake, traefik": lambda: fake(proxy={"engine": "traefik"}),
    "fake, letsencrypt": lambda: fake(tls=LETSENCRYPT),
    "fake, traefik, letsencrypt": lambda: fake(tls=LETSENCRYPT, proxy={"engine": "traefik"}),
    "fake, upstream": lambda: fake(images="upstream"),
    "real": lambda: real(),
}


@pytest.fixture(params=GRAPHS)
def graph(request: pytest.FixtureRequest) -> Graph:
    return GRAPHS[request.param]()


def networks(node: Node) -> set[str]:
    joined = node.get("networksAdvanced")
    return {entry["name"] for entry in joined} if joined is not None else set(node.get("networks"))


def volumes_of(node: Node) -> set[str]:
    bound = {volume["volumeName"] for volume in node.get("volumes") or []}
    return bound | {mount["source"] for mount in node.get("mounts") or []}


# -- parents and names


def test_everything_hangs_below_a_component_of_ours(graph: Graph) -> None:
    by_urn = {node.urn: node for node in graph.nodes}
    for node in graph.nodes:
        if "pulumi:pulumi:Stack" in node.parent.split("::")[2].split("$")[-1]:
            assert not node.custom, node.name
        else:
            assert not by_urn[node.parent].custom, node.name
        if not node.custom:
            assert re.fullmatch(r"millrace:[a-z]+:[A-Z]\w+", node.type), node.type


def test_what_a_service_runs_belongs_to_it(graph: Graph) -> None:
    by_urn = {node.urn: node for node in graph.nodes}
    for node in [*graph.containers, *graph.jobs]:
        service = label(node, "service")
        owner = by_urn[node.parent]
        assert owner.name in (service.replace("_", "-"), "edge")


def test_custom_resources_of_an_engine_use_the_platforms_own_providers(graph: Graph) -> None:
    for node in graph.nodes:
        if node.type.startswith("docker:"):
            assert node.provider == "docker-engine"
        if node.type.startswith("millrace:docker:") and node.custom:
            assert node.provider == "docker-engine-extras"


def engine_names(graph: Graph) -> dict[str, str]:
    types = {CONTAINER, "millrace:docker:Network", "docker:index/volume:Volume", "millrace:docker:Job"}
    return {f"{node.type} {node.name}": node.get("name") for node in graph.nodes if node.type in types}


def test_two_stacks_share_no_name_on_an_engine() -> None:
    one, other = engine_names(fake()), engine_names(fake(stack="other"))
    assert one.keys() == other.keys()
    assert not set(one.values()) & set(other.values())
    assert all(name.startswith("millrace-test-") for name in one.values())


def test_names_are_unique_and_fit_the_engine(graph: Graph) -> None:
    names = engine_names(graph)
    kinds = {"Container": "container", "Job": "container"}
    taken = [(kinds.get(key.split()[0].split(":")[-1], key.split()[0]), name) for key, name in names.items()]
    assert len(set(taken)) == len(taken)
    assert all(re.fullmatch(r"[a-z0-9][a-z0-9-]{1,62}", name) for name in names.values()), names


def test_labels_say_which_stack_and_service(graph: Graph) -> None:
    for node in [*graph.containers, *graph.jobs, *graph.of("docker:index/volume:Volume")]:
        assert label(node, "stack") == "millrace/test"
        assert label(node, "service")
        assert label(node, "workload")
    for node in graph.of("millrace:docker:Network"):
        assert label(node, "stack") == "millrace/test"


# -- every container


def test_every_container_is_limited_probed_and_confined(graph: Graph) -> None:
    ready = {node.get("container"): node for node in graph.of("millrace:docker:Ready")}
    assert graph.containers
    for node in graph.containers:
        assert node.get("memory") >= 16
        assert node.get("memorySwap") == node.get("memory")
        assert 0 < float(node.get("cpus")) <= 256
        tests = node.get("healthcheck")["tests"]
        assert tests[0] == "CMD"
        assert tests[1:] == ready[f"id-{node.name}"].get("probe")
        assert ready[f"id-{node.name}"].deleted_with == node.urn
        assert node.get("restart") == "always"
        assert node.get("logDriver") == "json-file"
        assert node.get("logOpts") == {"max-size": "10m", "max-file": "3"}
        assert node.get("capabilities") == {"drops": ["ALL"]}
        assert node.get("securityOpts") == ["no-new-privileges:true"]
        assert int(node.get("user")) > 0
        assert node.get("init") is True
        assert "/tmp" in node.get("tmpfs")
        assert "noexec" in node.get("tmpfs")["/tmp"]
        assert node.delete_before_replace
        assert "healthcheck" in node.replace_on
        for key in ("privileged", "devices", "pidMode", "ipcMode", "networkMode"):
            assert node.get(key) in (None, "bridge"), key
        # No folder of the host and no engine's socket inside a container.
        assert all(mount["type"] == "volume" for mount in node.get("mounts") or [])
        assert all("hostPath" not in volume for volume in node.get("volumes") or [])
        assert any(text.startswith("TZ=") for text in node.get("envs"))


def test_every_job_is_limited_and_confined(graph: Graph) -> None:
    assert graph.jobs
    for node in graph.jobs:
        assert node.get("memoryMib") >= 16
        assert float(node.get("cpus")) > 0
        assert node.get("uid") > 0
        assert node.get("timeout") > 0
        assert node.get("networks")
        assert node.get("command")


def test_limits_are_those_of_the_settings() -> None:
    store = fake().container("big-store")
    assert (store.get("memory"), store.get("cpus")) == (256, "0.5")
    database = fake().container("database")
    assert (database.get("memory"), database.get("cpus")) == (512, "1.0")


def test_replicas_have_names_of_their_own() -> None:
    graph = fake()
    names = {node.name for node in graph.containers}
    assert {"app-1", "app-2"} <= names
    aliases = [entry["aliases"] for entry in graph.container("app-1").get("networksAdvanced")]
    assert all(entry == ["app", "app-1"] for entry in aliases)


def test_time_zone_reaches_every_container() -> None:
    graph = fake(**OTHERS)
    assert all("TZ=Europe/Berlin" in node.get("envs") for node in graph.containers)
    assert all(node.get("env")["TZ"] == "Europe/Berlin" for node in graph.jobs)


# -- secrecy


def test_no_secret_is_registered_in_plain(graph: Graph) -> None:
    for node in graph.nodes:
        for text in plain_texts(node.inputs):
            assert PLANTED not in text, f"{node.type} {node.name}"
    for text in plain_texts(graph.outputs):
        assert PLANTED not in text


def test_the_state_encrypts_generated_values(graph: Graph) -> None:
    for node in graph.of("random:index/randomPassword:RandomPassword"):
        assert {"result", "bcryptHash"} <= set(node.additional_secrets)
        assert node.get("length") >= 16
    for node in graph.of("tls:index/privateKey:PrivateKey"):
        assert {"privateKeyPem", "privateKeyPemPkcs8"} <= set(node.additional_secrets)


def test_secrets_reach_containers_as_files_alone(graph: Graph) -> None:
    """Environment, command, labels and probe show up in `docker inspect` even if the state encrypts them."""
    for node in [*graph.containers, *graph.jobs]:
        for key, value in node.inputs.items():
            if key not in ("uploads", "files"):
                assert PLANTED not in json.dumps(bare(value)), f"{node.name} {key}"


def test_files_with_secrets_are_not_world_readable(graph: Graph) -> None:
    for node in graph.containers:
        for upload in node.get("uploads") or []:
            assert upload["content"]
            world = int(upload["permissions"], 8) & 0o007
            assert not (PLANTED in upload["content"] and world), f"{node.name} {upload['file']}"
    for node in graph.jobs:
        for file in node.get("files"):
            assert file["content"]
            assert not (PLANTED in file["content"] and not file["secret"]), f"{node.name} {file['path']}"


def test_outputs() -> None:
    outputs = fake().outputs
    assert set(outputs) == {"urls", "credentials", "connections", "ca_certificate"}
    assert set(outputs["urls"]) == {"app", "store", "portal"}
    assert outputs["urls"]["app"]["url"] == "https://app.data.localhost/"
    credentials = bare(outputs["credentials"])
    assert credentials["users"]["ada"].startswith(PLANTED)
    assert set(credentials["database"]) == {"admin", "reader", "app"}
    connection = bare(outputs["connections"])["database"]["app"]
    assert connection["uri"].startswith(f"postgresql://app:{PLANTED}")
    assert connection["uri"].endswith("@database:5432/app")
    assert connection["jdbc_url"] == "jdbc:postgresql://database:5432/app"


# -- order


def test_a_service_starts_after_all_it_needs_is_ready() -> None:
    graph = fake(app={"use_store": True})
    needs = {"database-ready", "database-roles", "big-store-ready"}
    for node in [graph.container("app"), graph.named("app-migrate")]:
        waited = {urn.split("::")[-1] for urn in graph.waits_for(node)}
        assert needs <= waited
    waited = {urn.split("::")[-1] for urn in graph.waits_for(graph.container("database"))}
    assert not waited & {"app", "app-ready", "big-store"}


def test_nothing_is_ready_before_its_container_or_owned_after_it(graph: Graph) -> None:
    for node in graph.of("millrace:docker:Ready"):
        assert graph.container(node.name.removesuffix("-ready")).urn in node.depends_on
    owners = graph.of("millrace:docker:VolumeOwner")
    for container in graph.containers:
        for name in volumes_of(container):
            (owner,) = [node for node in owners if node.get("volume") == name]
            assert owner.urn in container.depends_on
            assert owner.get("uid") == int(container.get("user"))


def test_jobs_run_when_their_service_is_ready() -> None:
    graph = fake()
    assert graph.named("database-ready").urn in graph.named("database-roles").depends_on
    assert {graph.named(f"app-{n}-ready").urn for n in (1, 2)} <= graph.named("app-migrate").depends_on


def test_nothing_waits_for_the_proxy(graph: Graph) -> None:
    services = {node.urn for node in graph.nodes if label_or_none(node) not in ("proxy", "portal", None)}
    proxy = graph.named("proxy-ready").urn
    for node in graph.nodes:
        assert not (node.urn in services and proxy in graph.waits_for(node))


def label_or_none(node: Node) -> str | None:
    return label(node, "service") if node.type == CONTAINER or node.type == "millrace:docker:Job" else None


# -- networks and ports


def links(graph: Graph, needs: set[tuple[str, str]]) -> set[frozenset[str]]:
    """Pairs of services that may talk: by need, or because the proxy publishes one."""
    services = {label(node, "service") for node in graph.containers}
    routed = services - {"database", "demo", "kafka", "postgres", "proxy"}
    return {frozenset(pair) for pair in needs} | {frozenset(("proxy", service)) for service in routed}


def declared() -> set[tuple[str, str]]:
    """What the services of the development stack say that they need."""
    config = yaml.safe_load(STACK_FILE.read_text())["config"]
    settings = load(
        {key.removeprefix("millrace:"): value for key, value in config.items()}, "Pulumi.dev.yaml"
    )
    return {(key, need.service) for key in settings.services for need in needs_of(settings, key)}


@pytest.mark.parametrize(
    ("make", "needs"),
    [
        (lambda: fake(), {("app", "database")}),
        (lambda: fake(app={"use_store": True}), {("app", "database"), ("app", "big_store")}),
        (lambda: fake(tls=LETSENCRYPT), {("app", "database")}),
        (lambda: real(), declared()),
    ],
)
def test_services_share_a_network_exactly_when_one_needs_the_other(make: Any, needs: Any) -> None:
    graph = make()
    allowed, found = links(graph, needs), set()
    for one, other in itertools.combinations([*graph.containers, *graph.jobs], 2):
        pair = frozenset((label(one, "service"), label(other, "service")))
        shared = networks(one) & networks(other)
        if len(pair) == 1:
            assert shared, (one.name, other.name)
        elif pair not in allowed:
            assert not shared, (one.name, other.name, shared)
        elif shared:
            found.add(pair)
    assert found == {
        pair for pair in allowed if pair <= {label(node, "service") for node in graph.containers}
    }


def test_only_what_publishes_or_calls_out_has_a_way_out(graph: Graph) -> None:
    outside = {n.get("name"): n for n in graph.of("millrace:docker:Network") if not n.get("internal")}
    for name, node in outside.items():
        members = [c for c in [*graph.containers, *graph.jobs] if name in networks(c)]
        assert len({label(c, "service") for c in members}) == 1
        calls_out = node.get("masquerade")
        assert name.endswith("-egress") == calls_out
        if not calls_out:
            assert all(c.get("ports") for c in members)
    for container in graph.containers:
        assert len(networks(container) & set(outside)) <= 1


def test_only_the_proxy_publishes(graph: Graph) -> None:
    for node in graph.containers:
        for port in node.get("ports") or []:
            assert (port["ip"] == "127.0.0.1") != (label(node, "service") == "proxy")
    proxy = graph.container("proxy").get("ports")
    assert sorted(port["external"] for port in proxy) == [80, 443]


def test_a_loopback_port_is_bound_only_when_asked_for() -> None:
    (port,) = fake().container("database").get("ports")
    assert (port["ip"], port["external"], port["internal"]) == ("127.0.0.1", 15432, 5432)
    assert made(ALONE, False, "test").container("database").get("ports") is None


def test_networks_come_from_the_pool() -> None:
    assert {node.get("pool") for node in fake(**OTHERS).of("millrace:docker:Network")} == {"172.30.0.0/16"}


# -- data


def test_volumes_with_data_can_be_protected() -> None:
    volumes = {node.name: node for node in fake(**OTHERS).of("docker:index/volume:Volume")}
    kept = {name for name, node in volumes.items() if node.protect and node.retain}
    assert kept == {"database-data", "big-store-data"}
    assert not any(n.protect or n.retain for n in fake(**OTHERS).nodes if n.name not in kept)
    assert not any(node.protect or node.retain for node in fake().nodes)


def test_nothing_but_its_name_replaces_a_volume(graph: Graph) -> None:
    for node in graph.of("docker:index/volume:Volume"):
        assert not graph.waits_for(node)
        assert node.inputs.keys() - set(node.ignored) == {"name"}


# -- what is imported


def test_only_the_sdks_in_use_are_imported() -> None:
    # In a process of its own: other tests use other targets.
    program = (
        "import sys; sys.path[:0] = ['tests/unit', 'provider']\n"
        "from fake_services import FAKES; from graph import platform\n"
        "platform({'database': {}, 'app': {}}, services=FAKES)\n"
        "print(*(name for name in sys.modules if name.startswith('pulumi_')))\n"
    )
    ran = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    sdks = {name for name in ran.stdout.split() if re.fullmatch(r"pulumi_\w+", name)}
    assert sdks == {"pulumi_docker", "pulumi_random", "pulumi_tls"}
