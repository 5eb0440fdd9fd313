"""The BI service's graph with both engines and both image sources, its checks, and what its jobs are told."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path, PurePath
from typing import Any

import pytest

from components.bi_settings import BiSettings
from components.settings import SettingsError, load
from tests.unit.graph import PLANTED, Graph, Node, bare, plain_texts, platform

USERS = [
    {"name": "ada", "role": "admin"},
    {"name": "erin", "role": "engineer"},
    {"name": "uma", "role": "user"},
]
ENGINES = ("superset", "metabase")


@cache
def made(
    engine: str = "superset", values: str = "{}", postgres: str = '{"databases": [{"name": "shop"}]}'
) -> Graph:
    more = json.loads(values)
    own = {"engine": engine, **({"memory_mib": 1536} if engine == "metabase" else {}), **more.pop("bi", {})}
    return platform({"users": USERS, "postgres": json.loads(postgres), "bi": own, **more})


def file_of(node: Node, path: str) -> str:
    found = [f for f in node.get("uploads") or node.get("files") if (f.get("file") or f.get("path")) == path]
    assert len(found) == 1, path
    return str(found[0]["content"])


def wanted(graph: Graph) -> dict[str, Any]:
    return dict(json.loads(file_of(graph.named("bi-setup"), "/run/millrace/bi/setup.json")))


def problems_of(values: dict[str, Any]) -> list[str]:
    with pytest.raises(SettingsError) as error:
        load({"users": USERS, **values}, "Pulumi.test.yaml")
    return str(error.value).splitlines()


# -- what it needs


def test_without_postgres_one_line_says_so() -> None:
    (line,) = problems_of({"bi": {}})
    assert "millrace:bi" in line
    assert "needs postgres, which is off" in line


@pytest.mark.parametrize("engine", ENGINES)
def test_metadata_and_every_declared_database_are_requested(engine: str) -> None:
    graph = made(engine, postgres='{"databases": [{"name": "shop"}, {"name": "crm"}]}')
    databases = bare(graph.outputs["connections"])["postgres"]["databases"]
    assert set(databases["bi"]) == {"bi"}
    assert "bi_reader" in databases["shop"]
    assert "bi_reader" in databases["crm"]
    assert [s["id"] for s in wanted(graph)["data_sources"]] == ["postgres/shop", "postgres/crm"]


@pytest.mark.parametrize("engine", ENGINES)
def test_no_declared_database_no_data_source(engine: str) -> None:
    assert wanted(made(engine, postgres="{}"))["data_sources"] == []


def test_a_database_named_like_its_own_is_refused() -> None:
    lines = problems_of(
        {"bi": {}, "postgres": {"databases": [{"name": "bi", "owner": "x"}], "roles": [{"name": "x"}]}}
    )
    assert any('"bi" is the database of service bi' in line for line in lines)


@pytest.mark.parametrize(("engine", "scheme"), [("trino", "trino"), ("prestodb", "presto")])
def test_presto_is_a_data_source_where_it_is_on(engine: str, scheme: str) -> None:
    presto = json.dumps({"presto": {"engine": engine}})
    (_, source) = wanted(made(values=presto))["data_sources"]
    assert (source["id"], source["name"]) == ("presto", "Presto")
    assert source["uri"].startswith(f"{scheme}://bi:planted-password-credential-presto-bi-password-")
    assert "@presto:8443/postgres" in source["uri"]
    ca = "/run/millrace/tls/ca.crt"
    arguments = (
        {"http_scheme": "https", "verify": ca} if scheme == "trino" else {"requests_kwargs": {"verify": ca}}
    )
    assert source["extra"]["engine_params"] == {"connect_args": arguments}
    assert source["extra"]["allow_multi_catalog"] is True
    (_, *sources) = wanted(made("metabase", values=presto))["data_sources"]
    assert [s["id"] for s in sources] == ["presto/postgres", "presto/tpch"]
    assert {s["engine"] for s in sources} == {"starburst" if scheme == "trino" else "presto-jdbc"}
    assert all(s["details"]["additional-options"] == f"SSLTrustStorePath={ca}" for s in sources)


# -- mistakes


@pytest.mark.parametrize(("engine", "least"), [("superset", 512), ("metabase", 1024)])
def test_too_little_memory(engine: str, least: int) -> None:
    (line,) = problems_of({"postgres": {}, "bi": {"engine": engine, "memory_mib": least - 1}})
    assert f"too little for {engine} - give at least {least}" in line


def test_a_setting_without_effect() -> None:
    (line,) = problems_of({"postgres": {}, "bi": {"engine": "metabase", "memory_mib": 1024, "cache_s": 60}})
    assert "cache_s" in line
    assert "has no meaning for metabase" in line


@pytest.mark.parametrize(
    ("memory", "cpus", "workers"), [(512, 1, 1), (700, 1, 2), (4096, 1, 2), (4096, 4, 8), (512, 0.25, 1)]
)
def test_workers_follow_memory_and_cores(memory: int, cpus: float, workers: int) -> None:
    assert BiSettings(memory_mib=memory, cpus=cpus).workers == workers


# -- secrecy and identity


@pytest.mark.parametrize("engine", ENGINES)
def test_no_secret_is_in_plain(engine: str) -> None:
    for node in made(engine).nodes:
        assert not any(PLANTED in text for text in plain_texts(node.inputs)), node


@pytest.mark.parametrize("engine", ENGINES)
def test_no_secret_in_environment_or_command(engine: str) -> None:
    graph = made(engine)
    for node in (graph.container("bi"), graph.named("bi-setup")):
        for key in ("envs", "env", "entrypoints", "command", "labels"):
            assert PLANTED not in json.dumps(node.get(key)), (node, key)


def test_only_the_proxy_is_given_the_proof() -> None:
    graph = made()
    proof = "planted-password-credential-bi-proxy-password-/"
    holders = {
        node.name for node in graph.nodes if node.type != "random:index/randomPassword:RandomPassword"
        if proof in json.dumps(bare(dict(node.inputs)))
    }  # fmt: skip
    assert holders == {"bi", "bi-setup", "proxy"}
    directives = file_of(graph.container("proxy"), "/run/millrace/headers/bi.conf")
    assert directives == f'proxy_set_header X-Millrace-Proxy "{proof}";\n'


def test_superset_is_told_who_may_what() -> None:
    users = wanted(made())["users"]
    assert users == [
        {"name": u["name"], "email": f"{u['name']}@data.localhost", "role": u["role"]} for u in USERS
    ]


def test_metabase_users_have_the_platforms_passwords() -> None:
    told = wanted(made("metabase"))
    assert {u["name"]: u["password"] for u in told["users"]} == {
        u["name"]: f"planted-password-credential-users-{u['name']}-password-/" for u in USERS
    }
    assert told["admin"]["email"] == "millrace.setup@millrace.invalid"
    assert told["admin"]["email_before"] == "millrace.setup@data.localhost"


# -- TLS


def test_superset_verifies_postgres() -> None:
    graph = made()
    for uri in (
        file_of(graph.container("bi"), "/run/millrace/bi/database"),
        file_of(graph.named("bi-setup"), "/run/millrace/bi/database"),
        wanted(graph)["data_sources"][0]["uri"],
    ):
        assert uri.endswith(
            "?sslmode=verify-full&sslrootcert=/run/millrace/tls/ca.crt".replace("/", "%2F")
        ) or uri.endswith("?sslmode=verify-full&sslrootcert=/run/millrace/tls/ca.crt")


def test_metabase_verifies_postgres() -> None:
    graph = made("metabase")
    (uri,) = [e for e in graph.container("bi").get("envs") if e.startswith("MB_DB_CONNECTION_URI=")]
    assert "sslmode=verify-full" in uri
    assert "sslrootcert=/run/millrace/tls/ca.crt" in uri
    details = wanted(graph)["data_sources"][0]["details"]
    assert (details["ssl"], details["ssl-mode"]) == (True, "verify-full")
    assert details["ssl-root-cert-path"] == "/run/millrace/tls/ca.crt"
    assert details["user"] == "bi_reader"


# -- rotation


def changed(before: Graph, after: Graph) -> set[str]:
    old = {node.urn: node for node in before.nodes}
    return {n.name for n in after.nodes if bare(dict(n.inputs)) != bare(dict(old[n.urn].inputs))}


def test_a_new_secret_key_reaches_job_and_server_with_the_old_ones() -> None:
    rotated = made(values='{"rotation": {"bi/secret_key": "2"}}')
    assert changed(made(), rotated) == {
        "credential-bi-secret-key-password",
        "former-bi-secret-key",
        "bi-setup",
        "bi",
    }
    assert wanted(rotated)["former_keys"] == [f"{PLANTED}-former-former-bi-secret-key"]


def test_a_new_password_of_the_reader_touches_no_server() -> None:
    rotated = made(values='{"rotation": {"postgres/bi_reader": "2"}}')
    assert changed(made(), rotated) == {
        "credential-postgres-bi-reader-password",
        "credential-postgres-bi-reader-salt",
        "postgres-setup",
        "bi-setup",
    }


def test_another_user_touches_no_server_of_superset() -> None:
    more = made(values=json.dumps({"users": [*USERS, {"name": "ivo", "role": "user"}]}))
    old = {node.urn: node for node in made().nodes}
    touched = {
        n.name for n in more.nodes if n.urn in old and bare(dict(n.inputs)) != bare(dict(old[n.urn].inputs))
    }
    assert touched == {"bi-setup", "proxy"}


@pytest.mark.parametrize("engine", ENGINES)
def test_keys_of_both_engines_are_kept(engine: str) -> None:
    """A switch to the other engine and back finds the keys that read what was stored."""
    names = {node.name for node in made(engine).nodes}
    kept = {"credential-bi-secret-key-password", "former-bi-secret-key"}
    kept |= {"credential-bi-admin-password", "former-bi-admin", "bi-metabase-encryption-key"}
    assert kept <= names
    load({"users": USERS, "postgres": {}, "bi": {"engine": engine, "memory_mib": 1024},
          "rotation": {"bi/secret_key": "2", "bi/admin": "2"}}, "Pulumi.test.yaml")  # fmt: skip


@pytest.mark.parametrize(("engine", "waits"), [("superset", False), ("metabase", True)])
def test_superset_is_set_up_while_presto_starts(engine: str, waits: bool) -> None:
    """Its job tries Presto until it answers; Metabase's API refuses one that does not answer at once."""
    graph = made(engine, '{"presto": {}}')
    before = graph.waits_for(graph.named("bi-setup"))
    assert (graph.named("presto-ready").urn in before) is waits
    assert graph.named("postgres-ready").urn in before
    patience = [source.get("patience_s", 0) for source in wanted(graph)["data_sources"]]
    assert patience == ([0, 0, 0] if waits else [0, 300])


# -- images, order, exposure


def test_images_of_both_sources() -> None:
    def images(graph: Graph) -> dict[str, str]:
        names = {
            node.urn: str(node.get("name") or node.get("reference"))
            for node in graph.nodes
            if "mage" in node.type
        }
        return {
            node.name: name
            for node in (graph.container("bi"), graph.named("bi-setup"))
            for urn, name in names.items()
            if urn in node.depends_on
        }

    built = images(made())
    assert set(built) == {"bi", "bi-setup"}
    assert all(name.startswith("millrace/superset:6.1.0-") for name in built.values())
    upstream = images(made(values='{"images": "upstream"}'))
    assert set(upstream.values()) == {"docker.io/apache/superset:6.1.0-dev"}
    # Metabase is on no package registry: pulled in either case.
    assert images(made("metabase"))["bi"] == "docker.io/metabase/metabase:v0.63.19"


def test_superset_starts_on_migrated_metadata_and_metabase_is_set_up_running() -> None:
    superset, metabase = made(), made("metabase")
    assert superset.named("bi-setup").urn in superset.waits_for(superset.container("bi"))
    assert metabase.named("bi-ready").urn in metabase.waits_for(metabase.named("bi-setup"))


@pytest.mark.parametrize("engine", ENGINES)
def test_the_setup_job_has_every_script_that_another_one_imports(engine: str) -> None:
    scripts = {file.stem: file for file in Path("configs/bi").glob("*.py")}
    sent = {PurePath(file["path"]).stem for file in made(engine).named("bi-setup").get("files")} & {*scripts}
    imported = {
        name
        for script in sent
        for name in re.findall(r"^(?:from|import) (\w+)", scripts[script].read_text(), re.MULTILINE)
    }
    assert imported & {*scripts} <= sent
    assert f"{engine}_dashboards" in imported


@pytest.mark.parametrize("engine", ENGINES)
def test_every_user_may_open_it(engine: str) -> None:
    graph = made(engine)
    url = bare(graph.outputs["urls"])["bi"]
    assert (url["url"], url["access"], url["group"]) == ("https://bi.data.localhost/", "user", "analytics")
    inside = {"superset": "https://bi:8088", "metabase": "http://bi:3000"}[engine]
    assert bare(graph.outputs["connections"])["bi"] == {
        "engine": engine, "url": inside, "public_url": "https://bi.data.localhost"
    }  # fmt: skip
    assert graph.container("bi").get("ports") is None


def test_the_cache_is_no_data() -> None:
    graph = made(values='{"protect_data": true}')
    assert not graph.named("bi-cache").protect
