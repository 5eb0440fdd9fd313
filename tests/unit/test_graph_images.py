"""Where the images of the platform's graph come from."""

from __future__ import annotations

import re
from typing import Any

from graph import PLANTED, Graph, Node, plain_texts
from graph_sample import OTHERS, fake

MIRROR: dict[str, Any] = {
    "images": "upstream",
    "registry": {"mirror": "r.example:5000/hub", "username": "u", "password": PLANTED},
}


def test_a_registry_password_is_secret() -> None:
    graph = fake(**MIRROR)
    for node in graph.of("millrace:docker:Image"):
        assert PLANTED in node.get("password")
    assert all(PLANTED not in text for node in graph.nodes for text in plain_texts(node.inputs))


def test_a_registry_password_is_for_that_registry_only() -> None:
    graph = fake(**MIRROR, database={"image": "elsewhere.example/hub/postgres:15"})
    assert graph.named("image-postgres-custom").get("password") is None
    assert graph.named("image-nginx-upstream").get("password")


def test_package_mirrors_reach_every_build() -> None:
    mirrors = {
        "apt": "https://apt.example",
        "pypi": "https://pypi.example/simple",
        "go": "https://go.example",
        "maven": "https://maven.example",
    }
    graph = fake(**OTHERS, package_mirrors=mirrors)
    builds = [node.get("args") for node in graph.of("millrace:docker:Image")]
    assert builds
    for build in builds:
        given = {k: v for k, v in build.items() if k not in ("BASE", "GO_BUILD")}
        assert given == {
            "APT_MIRROR": "https://apt.example",
            "PIP_INDEX_URL": "https://pypi.example/simple",
            "GOPROXY": "https://go.example",
            "MAVEN_MIRROR": "https://maven.example",
        }


def image(graph: Graph, container: str) -> Node:
    node = graph.container(container)
    (found,) = [n for n in graph.of("millrace:docker:Image") if n.urn in node.depends_on]
    return found


def test_built_images() -> None:
    graph = fake()
    postgres = image(graph, "database")
    assert postgres.get("dockerfile") == "postgres/Dockerfile"
    assert postgres.get("context") == "images"
    assert set(postgres.get("folders")) == {"postgres", "common", "ca"}
    assert postgres.get("args")["BASE"].startswith("millrace/base:")
    assert graph.named("image-base").urn in postgres.depends_on
    for node in graph.of("millrace:docker:Image"):
        assert re.fullmatch(r"millrace/[a-z-]+:[\w.-]+-[0-9a-f]{12}", node.get("reference"))


def test_upstream_images() -> None:
    graph = fake(images="upstream")
    images = {node.name: node.get("reference") for node in graph.of("millrace:docker:Image")}
    assert all(name.endswith("-upstream") for name in images)
    assert re.fullmatch(r"(docker.io/library/)?postgres:[\w.-]+", images["image-postgres-upstream"])
    for reference in images.values():
        tag = reference.rpartition("/")[2].partition(":")[2]
        assert tag not in ("", "latest"), reference
    assert not any(node.get("dockerfile") for node in graph.of("millrace:docker:Image"))


def test_a_registry_mirror_serves_all_upstream_images() -> None:
    graph = fake(**MIRROR)
    images = {node.name: node.get("reference") for node in graph.of("millrace:docker:Image")}
    assert all(reference.startswith("r.example:5000/hub/") for reference in images.values())
    assert images["image-postgres-upstream"].startswith("r.example:5000/hub/library/postgres:")


def test_a_service_may_have_its_own_source_or_image() -> None:
    graph = fake(
        big_store={"images": "upstream"},
        database={"image": "r.example/postgres@sha256:" + "0" * 64},
    )
    assert image(graph, "big-store").get("dockerfile") is None
    assert image(graph, "database").get("reference").startswith("r.example/postgres@sha256:")
    assert image(graph, "app-1").get("dockerfile")
    (job,) = [node for node in graph.jobs if node.name == "database-roles"]
    assert job.get("image") == graph.container("database").get("image")
