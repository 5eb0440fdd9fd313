"""Needs between services: optional ones, mere links; and what a route and a job may carry."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import yaml
from graph import PLANTED, Graph, Secret, bare, platform

from components.service import Need, Service
from components.settings import Access, ServiceSettings
from components.workload import Endpoint, Job, Limits, Probe, Route, Scheme, Volume, Workload


class PlainSettings(ServiceSettings):
    """Nothing of its own."""


def service(key: str, needed: Callable[[Any], Iterable[Need]], **parts: Any) -> type[Service]:
    """A service with one container, and a route with a secret header or a job where ``parts`` say so."""

    class Plain(Service):
        """One of a few."""

        settings_model = PlainSettings

        @classmethod
        def needs(cls, settings: Any, platform: Any) -> Iterable[Need]:
            return needed(platform)

        @classmethod
        def credentials(cls, settings: Any, demands: Any) -> Iterable[str]:
            return ["shared", *(f"for-{demand.consumer}" for demand in demands)]

        def build(self) -> None:
            for demand in self.context.demands:
                self.credential(f"for-{demand.consumer}")
            token = self.credential("shared").password.apply(lambda p: f'token "{p}\\')
            headers = {"X-Shared": token, "authorization": token}
            route = Route(host=key, access=Access.USER, title=key, purpose="Test", headers=headers)
            self.deploy(
                Workload(
                    name=key,
                    image="nginx",
                    command=("serve",),
                    user=101,
                    probe=Probe(command=("true",)),
                    limits=Limits(memory_mib=64),
                    volumes=(Volume(name="data", path="/data"),),
                    endpoints=(
                        Endpoint(
                            name="web",
                            port=8080,
                            scheme=Scheme.HTTP,
                            route=route if parts.get("routed") else None,
                        ),
                    ),
                )
            )
            if parts.get("job"):
                shared = Volume(name="data", path="/shared", of=key)
                job = Job(
                    name="fill",
                    image="nginx",
                    command=("fill",),
                    user=101,
                    limits=Limits(memory_mib=64),
                    volumes=(shared,),
                )
                self.run(job)

    Plain.key = key
    Plain.__name__ = key.title()
    return Plain


def nothing(platform: Any) -> Iterable[Need]:
    return ()


def built(*services: type[Service], **more: Any) -> Graph:
    registry = {s.key: s for s in services}
    return platform({**{key: {} for key in registry}, **more}, services=registry)


def networks(graph: Graph, name: str) -> set[str]:
    return {entry["name"].split("-", 2)[2] for entry in graph.container(name).get("networksAdvanced")}


def test_an_optional_need_of_a_service_that_is_off_is_none() -> None:
    reader = service("reader", lambda _: [Need(service="queue", request="topic", optional=True)])
    alone = built(reader)
    assert networks(alone, "reader") == {"reader"}
    both = built(reader, service("queue", nothing))
    assert networks(both, "reader") == networks(both, "queue") - {"queue"} | {"reader"}
    assert both.named("credential-queue-for-reader")


def test_needs_follow_from_the_whole_of_the_settings() -> None:
    def wanted(settings: Any) -> Iterable[Need]:
        return [Need(service="queue")] if "queue" in settings.services else []

    graph = built(service("reader", wanted), service("queue", nothing))
    assert "reader--queue" in networks(graph, "reader")


def test_who_does_not_wait_is_linked_only() -> None:
    """Each reaches the other, neither starts after the other: not even a circle."""
    one = service("one", lambda _: [Need(service="two", wait=False)])
    two = service("two", lambda _: [Need(service="one")])
    graph = built(one, two)
    assert {"one--two", "two--one"} <= networks(graph, "one") & networks(graph, "two")
    before = {graph_node.name for graph_node in graph.nodes if graph_node.urn in _waits(graph, "one")}
    assert not any(name.startswith("two") for name in before)
    assert "one-ready" in {n.name for n in graph.nodes if n.urn in _waits(graph, "two")}


def _waits(graph: Graph, name: str) -> set[str]:
    return graph.waits_for(graph.container(name))


def test_a_request_need_not_wait() -> None:
    """What the other makes is known before it is ready."""
    queue = service("queue", nothing)
    early = service("alpha", lambda _: [Need(service="queue", request="topic", wait=False)])
    late = service("beta", lambda _: [Need(service="queue", request="topic")])
    graph = built(early, late, queue)
    assert graph.named("credential-queue-for-alpha")
    assert "alpha--queue" in networks(graph, "alpha")
    ready = graph.named("queue-ready").urn
    assert ready not in _waits(graph, "alpha")
    assert ready in _waits(graph, "beta")


def upload(graph: Graph, path: str) -> tuple[str, str]:
    """Content and mode of a file of the proxy, which must be secret."""
    uploads = graph.container("proxy").inputs["uploads"]
    assert isinstance(uploads, Secret)
    (found,) = [entry for entry in bare(uploads) if entry["file"] == path]
    return found["content"], found["permissions"]


def test_nginx_sends_a_route_s_headers_and_nobody_may_read_them() -> None:
    graph = built(service("notes", nothing, routed=True))
    content, mode = upload(graph, "/run/millrace/headers/notes.conf")
    assert mode == "0440"
    line = next(line for line in content.splitlines() if "X-Shared" in line)
    assert line.startswith('proxy_set_header X-Shared "token \\"')
    assert line.endswith('\\\\";')
    assert PLANTED in line
    config, _ = upload(graph, "/etc/millrace/nginx.conf")
    block = config.split("server_name notes.data.localhost;")[1].split("server {")[0]
    assert "include /run/millrace/headers/notes.conf;" in block
    assert 'proxy_set_header Authorization "";' not in block
    assert PLANTED not in config


def test_traefik_sends_a_route_s_headers_after_the_login() -> None:
    graph = built(service("notes", nothing, routed=True), proxy={"engine": "traefik"})
    content, mode = upload(graph, "/etc/millrace/traefik-routes.yaml")
    assert mode == "0440"
    http = yaml.safe_load(content)["http"]
    assert http["routers"]["site-notes"]["middlewares"] == ["common", "login-user", "headers-notes"]
    sent = http["middlewares"]["headers-notes"]["headers"]["customRequestHeaders"]
    assert set(sent) == {"X-Shared", "authorization"}
    assert PLANTED in sent["X-Shared"]


def test_a_job_may_use_the_volume_of_a_workload() -> None:
    graph = built(service("notes", nothing, job=True))
    (job,) = graph.jobs
    volume = graph.one("docker:index/volume:Volume", "notes-data")
    assert job.get("volumes") == {"/shared": volume.get("name")}
    assert graph.named("notes-data-owner").urn in graph.waits_for(job)
