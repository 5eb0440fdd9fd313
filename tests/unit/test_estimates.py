"""The estimate: what it counts, what it makes of a host, what it says."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pulumi
import pytest
from graph import Graph, platform, run

from components import estimates, fit, footprints
from components.estimate_table import document, table
from components.estimates import Estimate, Host, estimate
from components.fit import judged as judged_stack
from components.images import CATALOGUE, built_reference, pulled_reference
from components.plan import Plan, plan
from components.platform import Platform
from components.problems import SettingsError
from components.services import registry
from components.settings import Settings, load
from components.stack_file import mistakes, read
from components.targets.docker_capacity import _references
from tests.integration.services import resolved

USERS = [{"name": "ada", "role": "admin"}]
SMALL: dict[str, Any] = {"postgres": {}, "object_store": {}}
HUGE = Host(name="Docker engine big", memory_mib=512 * 1024, disk_mb=10**6)


def settings(**values: Any) -> Settings:
    return load({"users": USERS, **values}, "Pulumi.test.yaml")


def everything() -> dict[str, Any]:
    return resolved(registry())


def host(**changes: Any) -> Host:
    return Host(**{"name": "Docker engine h", "memory_mib": 64 * 1024, "disk_mb": 10**6, **changes})


_plans: dict[str, Plan] = {}


@pytest.fixture(autouse=True)
def plans_are_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Most tests look at the same few platforms."""

    def kept(asked: Settings) -> Plan:
        key = asked.model_dump_json()
        if key not in _plans:
            _plans[key] = plan(asked)
        return _plans[key]

    monkeypatch.setattr(estimates, "plan", kept)


# -- the plan


def limits(made: Graph) -> dict[str, int]:
    return {node.name: node.get("memory") for node in made.containers}


@pytest.mark.parametrize(
    "values",
    [
        {},
        SMALL,
        everything(),
        {"proxy": {"engine": "traefik"}, **SMALL},
        {"domain": "data.acme.org", "tls": {"mode": "letsencrypt", "email": "a@b.org"}},
        {"kafka": {"brokers": 3}, "postgres": {}, "presto": {"workers": 2}, "object_store": {}},
        {"images": "upstream", "bi": {"engine": "metabase", "memory_mib": 1024}, "postgres": {}},
    ],
    ids=["proxy", "small", "everything", "traefik", "acme", "replicas", "metabase"],
)
def test_the_plan_has_the_containers_and_jobs_of_the_real_target(values: dict[str, Any]) -> None:
    made = platform(values)
    planned = plan(settings(**values))
    assert {name: w.workload.limits.memory_mib for w in planned.workloads for name in w.hosts} == limits(made)
    assert {j.host for j in planned.jobs} == {node.name for node in made.jobs}


def test_a_plan_made_while_a_program_runs_registers_nothing_in_it() -> None:
    asked = settings(**SMALL)

    def program() -> None:
        before = pulumi.get_stack()
        assert plan(asked).workloads
        assert (pulumi.get_stack(), pulumi.runtime.get_root_resource() is not None) == (before, True)
        Platform(asked).export()

    alone = platform(SMALL)
    beside = run(program)
    assert {node.urn for node in beside.nodes} == {node.urn for node in alone.nodes}
    assert len(beside.nodes) == len(alone.nodes)
    assert beside.outputs.keys() == alone.outputs.keys()


def test_what_a_service_raises_comes_out_of_the_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    def build(self: Any) -> None:
        raise RuntimeError("no plan")

    monkeypatch.setattr(registry()["postgres"], "build", build)
    with pytest.raises(RuntimeError, match="no plan"):
        plan(settings(**SMALL))


# -- memory


def test_memory_is_the_sum_of_what_each_container_uses_idle() -> None:
    found = estimate(settings(**SMALL))
    by_service = {s.service: s for s in found.services}
    assert by_service.keys() == {"postgres", "object_store", "portal", "proxy"}
    assert by_service["object_store"].memory_mib == footprints.MEMORY["minio", "object_store"].idle
    assert found.memory_mib == sum(s.memory_mib for s in found.services)
    assert found.limit_mib == 512 + 512 + 32 + 128
    assert found.memory_mib < found.limit_mib / 2


def test_each_replica_counts() -> None:
    def kafka(brokers: int) -> Any:
        (found,) = [
            s for s in estimate(settings(kafka={"brokers": brokers})).services if s.service == "kafka"
        ]
        return found

    assert kafka(3).containers == 3 * kafka(1).containers
    assert kafka(3).memory_mib == pytest.approx(3 * kafka(1).memory_mib, abs=2)
    assert kafka(3).volumes_mb == 3 * kafka(1).volumes_mb


def test_a_container_never_counts_with_more_than_its_limit() -> None:
    assert footprints.Footprint(idle=200, of_limit=0.1).expected(128) == 128
    assert footprints.Footprint(idle=20, of_limit=0.1).expected(1000) == 120


@pytest.mark.parametrize("images", ["build", "upstream"])
def test_every_service_is_measured_but_those_that_cannot_be_had_here(images: str) -> None:
    # The official image of Delta Sharing cannot have these settings.
    own = {**everything(), "delta_sharing": {}}
    found = estimate(settings(images=images, **own))
    assert [s.service for s in found.services if not s.measured] == []


def test_what_has_no_figures_counts_with_half_of_its_limit_and_is_marked() -> None:
    asked = settings(images="upstream", bi={"engine": "metabase", "memory_mib": 1024}, postgres={})
    found = estimate(asked)
    (bi,) = [s for s in found.services if s.service == "bi"]
    assert (bi.memory_mib, bi.measured) == (512, False)
    assert "bi *" in table(found)
    assert "* not measured: half of the memory limit" in table(found)


# -- disk


def test_every_image_has_a_size() -> None:
    """Those that no measuring has seen yet count as unknown; a figure for no image is a slip."""
    assert footprints.BUILT_MB.keys() <= CATALOGUE.keys()
    assert {name for name, entry in CATALOGUE.items() if entry.upstream} == footprints.UPSTREAM_MB.keys()


def test_an_image_with_its_bases_counts_once() -> None:
    one = estimate(settings(**SMALL, jupyter={}))
    sizes = footprints.BUILT_MB
    chain = ("base", "python", "java", "spark", "fetch", "jupyter", "postgres", "nginx", "go-build", "minio")
    assert sum(s.images_mb for s in one.services) == sum(sizes[name] for name in chain)
    both = estimate(settings(**SMALL, spark={}, jupyter={}))
    assert sum(s.images_mb for s in both.services) == sum(s.images_mb for s in one.services)
    assert one.build_cache_mb == round(footprints.BUILD_CACHE * sum(sizes[name] for name in chain))


def test_what_the_host_has_is_not_made_again() -> None:
    asked = settings(**SMALL)
    new = estimate(asked, host())
    has_base = estimate(asked, host(images=frozenset([built_reference("base")])))
    assert new.disk_mb - has_base.disk_mb == round(footprints.BUILT_MB["base"] * (1 + footprints.BUILD_CACHE))
    full = host(
        images=frozenset(map(built_reference, CATALOGUE)),
        volumes=frozenset(["postgres-data", "object-store-data"]),
    )
    assert estimate(asked, full).disk_mb == 0


def test_pulled_images_count_by_their_own_references() -> None:
    asked = settings(images="upstream", postgres={}, object_store={"image": "registry.acme.org/s3:1"})
    sizes = footprints.UPSTREAM_MB
    images = sizes["postgres"] + sizes["nginx"] + footprints.UNKNOWN_IMAGE_MB
    found = estimate(asked)
    assert sum(s.images_mb for s in found.services) == images
    assert found.build_cache_mb == 0
    reference = pulled_reference("postgres", upstream=True, override=None, mirror=None)
    there = host(images=frozenset([str(reference)]))
    assert found.disk_mb - estimate(asked, there).disk_mb == sizes["postgres"]


@pytest.mark.parametrize(
    ("tag", "reference"),
    [
        ("postgres:15.19-bookworm", "docker.io/library/postgres:15.19-bookworm"),
        ("apache/kafka:4.3.1", "docker.io/apache/kafka:4.3.1"),
        ("millrace/base:bookworm-0", "millrace/base:bookworm-0"),
        ("quay.io/minio/minio:1", "quay.io/minio/minio:1"),
        ("localhost:5000/library/nginx:1", "localhost:5000/library/nginx:1"),
    ],
)
def test_references_of_the_engine_are_found_by_those_of_the_catalogue(tag: str, reference: str) -> None:
    assert reference in _references({"RepoTags": [tag], "RepoDigests": None})


# -- a host


def judged(found_host: Host, **values: Any) -> Estimate:
    return estimate(settings(**{**SMALL, **values}), found_host)


NEEDED = judged(HUGE).memory_mib + 512


def test_enough_of_everything_says_nothing() -> None:
    found = judged(HUGE)
    assert (found.problems, found.warnings) == ((), ())


@pytest.mark.parametrize(("memory", "fits"), [(NEEDED, True), (NEEDED - 1, False)])
def test_expected_use_and_reserve_have_to_fit(memory: int, fits: bool) -> None:
    assert bool(judged(host(memory_mib=memory)).problems) is not fits


def test_a_stack_too_large_is_told_in_one_line_with_numbers_and_what_to_do() -> None:
    (line,) = judged(host(memory_mib=600)).problems
    assert "\n" not in line
    use = NEEDED - 512
    assert f"Docker engine h has 600 MiB of memory, too little for {use} MiB" in line
    assert "512 MiB kept for the host" in line
    assert "largest: object_store 180, postgres" in line
    assert f"a host with {NEEDED} MiB" in line


def test_reserve_is_a_setting() -> None:
    small = host(memory_mib=NEEDED - 1)
    assert judged(small).problems
    assert not judged(small, capacity={"reserve_mib": 256}).problems


def test_too_little_disk_is_told_with_what_takes_it() -> None:
    (line,) = judged(host(disk_mb=1000)).problems
    assert line.startswith("Docker engine h has 1000 MB of free disk, too little for 1")
    assert "largest: object_store " in line


def spark_on(found_host: Host, **spark: Any) -> Estimate:
    return judged(found_host, spark=spark, presto={}, jupyter={"cpus": 1.5})


def test_each_limit_above_the_cpus_of_the_host_is_a_line_with_its_setting() -> None:
    found = spark_on(host(cpus=1))
    by_service = {line.partition("container of ")[2].split()[0]: line for line in found.problems}
    assert by_service.keys() == {"spark", "presto", "jupyter"}
    assert by_service["spark"] == (
        "Docker engine h has 1 CPU, its engine makes no container of spark with a limit of 2 "
        "- set spark.worker_cores to 1 or less, or choose a host with 2 CPUs"
    )
    assert "with a limit of 1.5 - set jupyter.cpus to 1 or less" in by_service["jupyter"]
    assert len(found.problems) == 3


@pytest.mark.parametrize("cpus", [2, None])
def test_limits_up_to_the_cpus_of_the_host_fit_and_unknown_ones_are_not_judged(cpus: int | None) -> None:
    assert spark_on(host(cpus=cpus)).problems == ()


def test_limits_of_jobs_and_of_several_containers_are_one_line() -> None:
    (line,) = judged(host(cpus=2), airflow={"cpus": 2.5}).problems
    assert (
        "has 2 CPUs, its engine makes no container of airflow with a limit of 2.5 - set airflow.cpus" in line
    )
    assert line.endswith("choose a host with 3 CPUs")
    only_a_job = Plan(jobs=[j for j in plan(settings(postgres={"cpus": 4})).jobs if j.service == "postgres"])
    assert estimates._cpu_limits(only_a_job) == {"postgres.cpus": 4}


def test_without_enforcement_too_few_cpus_are_a_warning() -> None:
    found = judged(host(cpus=1), presto={}, capacity={"enforce": False})
    assert found.problems == ()
    assert ["set presto.cpus to 1" in line for line in found.warnings] == [True]


def test_without_enforcement_problems_are_warnings() -> None:
    found = judged(host(memory_mib=300, disk_mb=10), capacity={"enforce": False})
    assert found.problems == ()
    assert [line.split(",")[0] for line in found.warnings] == [
        "Docker engine h has 300 MiB of memory",
        "Docker engine h has 10 MB of free disk",
    ]


def test_a_tight_host_and_limits_above_it_are_warnings() -> None:
    found = judged(host(memory_mib=NEEDED + 10))
    assert found.problems == ()
    tight, limits = found.warnings
    assert tight.startswith(f"memory will be tight: {NEEDED} of {NEEDED + 10} MiB")
    assert limits.startswith(f"all memory limits together are 1184 MiB, Docker engine h has {NEEDED + 10}")
    assert "largest: object_store 512, postgres 512, proxy 128" in limits


def test_tight_disk_is_a_warning() -> None:
    needed = judged(HUGE).disk_mb
    (line,) = judged(host(disk_mb=needed + 1)).warnings
    assert line.startswith(f"disk will be tight: {needed} of {needed + 1} MB")


def test_what_is_not_known_is_not_judged() -> None:
    assert judged(host(memory_mib=None, disk_mb=None)).problems == ()
    found = estimate(settings(**SMALL))
    assert (found.problems, found.warnings, found.host) == ((), (), None)
    assert "not reached" in table(found)


# -- shown


def test_the_table_names_services_sums_and_host() -> None:
    found = judged(host(memory_mib=4000, disk_mb=9000))
    text = table(found)
    for service in found.services:
        assert f"{service.service} " in text
    assert (
        f"Docker engine h: 4000 MiB of memory, 9000 MB of disk free; needed: {found.memory_mib} + 512" in text
    )
    assert f"{found.limit_mib}" in text.splitlines()[-3]
    assert "9000 MB of disk free, CPUs: 4; needed" in table(judged(host(disk_mb=9000, cpus=4)))


def test_settings_are_read_without_pulumi(tmp_path: Path) -> None:
    file = tmp_path / "Pulumi.some.yaml"
    file.write_text(
        textwrap.dedent("""
        encryptionsalt: v1:x
        config:
          docker:host: unix:///other.sock
          millrace:users: [{name: ada, role: admin}]
          millrace:registry:
            mirror: registry.acme.org
            username: me
            password: {secure: AAAB}
          millrace:postgres:
        """)
    )
    found = read(file)
    assert list(found.services) == ["postgres"]
    assert found.registry is not None
    assert found.registry.password is not None
    assert "AAAB" not in found.registry.password.get_secret_value()


def test_the_file_is_read_as_the_program_reads_it(tmp_path: Path) -> None:
    """`pulumi config set` writes `""` for a key with nothing below it."""
    file = tmp_path / "Pulumi.some.yaml"
    file.write_text('config: {"millrace:users": [{name: ada, role: admin}], "millrace:postgres": ""}')
    assert list(read(file).services) == ["postgres"]
    file.write_text("config: {millrce:domain: example.org}")
    with pytest.raises(SettingsError, match="not a namespace of this project"):
        read(file)


def test_a_host_is_not_asked_with_what_stands_for_its_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "Pulumi.some.yaml"
    file.write_text(
        textwrap.dedent("""
        config:
          millrace:users: [{name: ada, role: admin}]
          millrace:target: {host: "ssh://me@box", private_key: {secure: AAAB}}
        """)
    )
    monkeypatch.setattr(fit, "engine_capacity", lambda *_: pytest.fail("somebody knocked"))
    assert fit.host_of(read(file), "millrace", "some") is None
    plain = settings(target={"host": "ssh://me@box"})
    assert fit.judged(plain, "millrace", "some", alone=True).host is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("config:\n  millrace:users: [{name: ada, role: admin}]\n", []),
        # What is encrypted may be right.
        (
            "config:\n  millrace:users: [{name: ada, role: admin}]\n  millrace:tls: {renew_days: {secure: A}}"
            '\n  millrace:target: {host: "ssh://me@box", private_key: {secure: A}}\n',
            [],
        ),
        (
            "config:\n  millrace:users: [{name: ada, role: admin}]\n  millrace:target: {host: 192.0.2.1}\n",
            ["Pulumi.some.yaml: millrace:target.host: "],
        ),
        ("config:\n  millrace:users: [\n", ["Pulumi.some.yaml:3: "]),
        (
            "config:\n  millrace:users: []\n  millrace:users: []\n",
            ['Pulumi.some.yaml:3: key "millrace:users" stands in line 2 already'],
        ),
        ("millrace:users: [{name: ada, role: admin}]\n", ["Pulumi.some.yaml: there are no settings"]),
        # Pulumi takes it for one of the project.
        ("config:\n  users: [{name: ada, role: admin}]\n", []),
        ("config:\n\tmillrace:users: []\n", ["Pulumi.some.yaml:2: found character '\\t'"]),
    ],
)
def test_mistakes_are_found_without_pulumi(tmp_path: Path, text: str, expected: list[str]) -> None:
    file = tmp_path / "Pulumi.some.yaml"
    file.write_text(text)
    found = mistakes(file)
    assert len(found) == len(expected)
    assert all(line.startswith(start) for line, start in zip(found, expected, strict=True)), found


@pytest.mark.parametrize("stack", ["dev", "minimal"])
def test_the_stacks_that_come_with_it_can_be_estimated(stack: str) -> None:
    found = estimate(read(Path(f"Pulumi.{stack}.yaml")), HUGE)
    assert all(s.measured for s in found.services)
    assert found.problems == ()


# -- a Droplet


def rented(services: Mapping[str, Any] | None = None, **target: Any) -> Estimate:
    asked = settings(
        domain="data.acme.org",
        tls={"mode": "letsencrypt", "email": "a@acme.org"},
        target={"kind": "digitalocean", "region": "fra1", "ssh_networks": ["203.0.113.7/32"], **target},
        **{**SMALL, "presto": {}, "bi": {}, **(services or {})},
    )
    return judged_stack(asked, "millrace", "prod")


def test_a_droplet_is_judged_by_its_size_without_asking_anybody() -> None:
    memory, cpus = rented(size="s-1vcpu-1gb").problems
    assert memory.startswith("Pulumi.prod.yaml: millrace:target: Droplet s-1vcpu-1gb has 983 MiB of memory")
    assert cpus.startswith("Pulumi.prod.yaml: millrace:target: Droplet s-1vcpu-1gb has 1 CPU, its engine")
    for line in (memory, cpus):
        assert line.endswith("or choose target.size s-2vcpu-2gb")
    (memory,) = rented({"presto": {"cpus": 1}}, size="s-1vcpu-1gb").problems
    assert memory.endswith("or choose target.size s-1vcpu-2gb")
    assert rented({"presto": {"cpus": 1}}, size="s-1vcpu-2gb").problems == ()
    assert rented(size="s-4vcpu-8gb").problems == ()


def test_disk_of_a_droplet_is_its_volume() -> None:
    target = {"size": "s-4vcpu-8gb", "volume_gib": 10}
    assert rented(**target).problems == ()
    (line,) = rented({"images": "upstream", "spark": {}, "jupyter": {}, "airflow": {}}, **target).problems
    assert "Droplet s-4vcpu-8gb has 9985 MB of free disk" in line
    assert "raise target.volume_gib" in line


def test_a_droplet_has_a_monthly_bill() -> None:
    found = rented(size="s-4vcpu-8gb")
    assert ("Droplet s-4vcpu-8gb", 48.0) in [(cost.what, cost.monthly_usd) for cost in found.costs]
    assert found.monthly_usd == pytest.approx(sum(cost.monthly_usd or 0 for cost in found.costs))
    text = table(found)
    assert "USD A MONTH" in text
    assert f"{found.monthly_usd:.2f}  all" in text
    assert estimate(settings(**SMALL)).costs == ()


def test_other_programs_get_all_of_it_as_json() -> None:
    found = judged(host(memory_mib=600))
    values = json.loads(json.dumps(document(found)))
    assert values["memory_mib"] == found.memory_mib
    assert values["problems"] == list(found.problems)
    assert values["services"][0]["service"] == found.services[0].service
    expected = {"name": "Docker engine h", "memory_mib": 600, "cpus": None, "disk_mb": 10**6}
    assert values["host"] == expected
    assert json.loads(json.dumps(document(estimate(settings(**SMALL)))))["host"] is None
