"""The stack for DigitalOcean that ships."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import yaml
from digitalocean_sample import one
from graph import PLANTED, Graph, plain_texts, platform

from components.fit import judged
from components.images import CATALOGUE
from components.settings import load

ROOT = Path(__file__).resolve().parents[2]


@cache
def _prod() -> Graph:
    config = yaml.safe_load((ROOT / "Pulumi.prod.yaml").read_text())["config"]
    return platform({key.removeprefix("millrace:"): value for key, value in config.items()}, stack="prod")


def test_stack_prod_is_whole() -> None:
    graph = _prod()
    assert one(graph, "Droplet").get("name") == "millrace-prod"
    names = {node.name for node in graph.containers}
    assert {"postgres", "object-store", "presto", "airflow", "bi", "proxy"} <= names
    assert "bi" in graph.outputs["urls"]
    assert any("metabase" in str(node.get("reference", "")) for node in graph.of("millrace:docker:Image"))


def test_stack_prod_loses_no_data() -> None:
    volumes = _prod().of("docker:index/volume:Volume")
    data = [node for node in volumes if node.protect]
    assert {"postgres-data", "object-store-data", "kafka-1-data"} <= {node.name for node in data}
    assert all(node.retain for node in data)
    assert one(_prod(), "Volume").protect


def test_stack_prod_runs_official_images_where_there_are_any() -> None:
    built = {n.name for n in _prod().of("millrace:docker:Image") if n.get("dockerfile")}
    official = {name for name, entry in CATALOGUE.items() if entry.upstream}
    # Parts of our own, and what they are built on.
    assert {name.removeprefix("image-") for name in built} - official == {
        "base", "fetch", "kafka-setup",
    }  # fmt: skip


def test_stack_prod_fits_its_droplet() -> None:
    config = yaml.safe_load((ROOT / "Pulumi.prod.yaml").read_text())["config"]
    settings = load({k.removeprefix("millrace:"): v for k, v in config.items()}, "Pulumi.prod.yaml")
    assert not judged(settings, "millrace", "prod").problems


def test_stack_prod_keeps_its_secrets() -> None:
    for node in _prod().nodes:
        assert not [text for text in plain_texts(node.inputs) if PLANTED in text], node
