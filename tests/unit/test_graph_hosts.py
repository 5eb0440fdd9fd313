"""How engines of other hosts are reached, and which CAs are trusted besides."""

from __future__ import annotations

import json
from pathlib import Path

from fake_services import FAKES
from graph import PLANTED, bare, plain_texts, platform
from graph_sample import FAKE, OTHERS, fake

CA = "-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n"
KEY = f"-----BEGIN PRIVATE KEY-----\n{PLANTED}\n-----END PRIVATE KEY-----\n"


# -- hosts


def pem_files(folder: Path) -> dict[str, str]:
    for name, content in {"ca": CA, "certificate": CA, "key": KEY}.items():
        (folder / name).write_text(content)
    return {name: str(folder / name) for name in ("ca", "certificate", "key")}


def test_an_engine_over_tcp_is_given_tls_material(tmp_path: Path) -> None:
    graph = platform({**FAKE, "target": {"host": "tcp://h:2376", **pem_files(tmp_path)}}, services=FAKES)
    for provider in (graph.named("docker-engine"), graph.named("docker-engine-extras")):
        assert provider.get("host") == "tcp://h:2376"
        assert provider.get("caMaterial") == CA
        assert provider.get("certMaterial") == CA
        assert provider.get("keyMaterial") == KEY
        assert all(PLANTED not in text for text in plain_texts(provider.inputs))


def test_an_engine_over_ssh_shares_one_connection() -> None:
    graph = fake(**OTHERS)
    for provider in (graph.named("docker-engine"), graph.named("docker-engine-extras")):
        options = provider.get("sshOpts") or provider.get("sshOptions")
        options = json.loads(options) if isinstance(options, str) else options
        assert provider.get("host") == "ssh://u@h:22"
        assert "ControlMaster=auto" in options
        assert "BatchMode=yes" in options
        assert options.index("-i") + 1 == options.index("~/.ssh/deploy")
        assert "StrictHostKeyChecking=yes" in options


def test_a_local_engine_gets_no_options() -> None:
    provider = fake().named("docker-engine")
    assert {key for key in provider.inputs if provider.get(key) is not None} <= {"host", "version"}


# -- extra CAs


def test_a_ca_bundle_goes_where_something_calls_out(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text(CA)
    graph = platform({**FAKE, "ca_bundle": str(tmp_path / "ca.pem")}, services=FAKES)
    with_bundle = {n.name for n in graph.containers if "ca-bundle.crt" in json.dumps(bare(dict(n.inputs)))}
    assert with_bundle == {"app-1", "app-2"}
    assert [n.name for n in graph.jobs if "ca-bundle.crt" in json.dumps(bare(dict(n.inputs)))] == [
        "app-migrate"
    ]
    (upload,) = [u for u in graph.container("app-1").get("uploads") if u["file"].endswith("ca-bundle.crt")]
    assert upload["permissions"] == "0444"
    assert "MA==" in upload["content"]
    assert upload["content"].count("BEGIN CERTIFICATE") > 50
    assert "ca-bundle" not in json.dumps([bare(dict(n.inputs)) for n in fake().nodes])
