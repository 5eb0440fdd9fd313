"""Every mistake in the settings is one clear line."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from components.problems import Problem, SettingsError, dotted, printable, shown
from components.settings import DockerTarget, Settings, from_config, load, secret_names
from components.targets.docker_host import materials

pytestmark = pytest.mark.usefixtures("fakes")

USERS = [{"name": "ada", "role": "admin"}]
CERTIFICATE = "-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n"
KEY = "-----BEGIN PRIVATE KEY-----\nMA==\n-----END PRIVATE KEY-----\n"


def config(values: dict[str, Any]) -> dict[str, str]:
    """As Pulumi hands it over: structured values as JSON, scalars as text, nothing as an empty text."""

    def text(value: Any) -> str:
        if value is None:
            return ""
        if isinstance(value, bool | dict | list):
            return json.dumps(value)
        return str(value)

    return {key if ":" in key else f"millrace:{key}": text(value) for key, value in values.items()}


def good(**values: Any) -> Settings:
    return load(from_config(config({"users": USERS, **values})), "Pulumi.test.yaml")


def lines(secret_keys: set[str] | None = None, **values: Any) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load(from_config(config({"users": USERS, **values})), "Pulumi.test.yaml", secret_keys or set())
    prefix = "Pulumi.test.yaml: millrace:"
    assert all(line.startswith(prefix) for line in caught.value.lines), caught.value.lines
    assert str(caught.value) == "\n".join(caught.value.lines)
    return [line.removeprefix(prefix) for line in caught.value.lines]


def line(**values: Any) -> str:
    found = lines(**values)
    assert len(found) == 1, found
    return found[0]


# -- what is right


def test_nothing_but_a_user_is_enough() -> None:
    settings = good()
    assert (settings.domain, settings.proxy.https_port, settings.services) == ("data.localhost", 443, {})


def test_a_service_is_on_when_its_key_is_present() -> None:
    assert list(good(database={}).services) == ["database"]
    assert list(good(big_store={}, database={}, app={}).services) == ["app", "big_store", "database"]


def test_a_key_with_nothing_below_it_means_the_defaults() -> None:
    settings = good(database=None, proxy=None, rotation=None, registry=None, tls=None)
    assert "database" in settings.services
    assert settings == good(database={})
    assert good(database={"roles": None, "options": None, "images": None}) == good(database={})


def test_a_scalar_with_nothing_is_a_mistake() -> None:
    assert line(domain=None) == "domain: expected text, got nothing"
    assert line(proxy={"http_port": None}) == "proxy.http_port: expected a whole number, got nothing"


def test_scalars_arrive_as_text() -> None:
    assert good(protect_data=True).protect_data is True
    assert good(proxy={"http_port": "8080"}).proxy.http_port == 8080


def test_tls_is_a_mode_or_a_mapping() -> None:
    assert good(tls="self-signed") == good(tls={"mode": "self-signed"})


def test_text_may_look_like_a_number() -> None:
    assert good(database={"options": {"a": 5, "b": True, "c": 1.5}}).services["database"].options == {  # type: ignore[attr-defined]
        "a": "5",
        "b": "true",
        "c": "1.5",
    }


def test_other_namespaces_belong_to_somebody_else() -> None:
    assert good(**{"docker:host": "x", "aws:region": "y", "pulumi:tags": {}}) == good()


# -- what is wrong


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"domian": "x.y"}, 'domian: unknown key - did you mean "domain"?'),
        ({"databse": {}}, 'databse: unknown key - did you mean "database"?'),
        ({"proxy": {"prot": 1, "https_prot": 1}}, None),
        ({"database": {"roles": [{"name": "a", "acces": "user"}]}},
         'database.roles[0].acces: unknown key - did you mean "access"?'),
        ({"database": {"roles": [{"access": "user"}]}}, "database.roles[0].name: missing - add it (text)"),
        ({"users": [*USERS, {"name": "b"}]}, "users[1].role: missing - add it (user, engineer, admin)"),
        ({"app": True},
         'app: expected a mapping, got "true" - write `key: value` lines below it, or {} for the defaults'),
        ({"app": [1]},
         "app: expected a mapping, got a list - write `key: value` lines below it, or {} for the defaults"),
        ({"users": {"name": "a"}}, "users: expected a list, got a mapping - write each entry as `- …`"),
        ({"users": "ada"}, 'users: expected a list, got "ada" - write each entry as `- …`'),
        ({"users": [*USERS, None]},
         "users[1]: expected a mapping, got nothing - write `key: value` lines below it"),
        ({"domain": ["x"]}, "domain: expected text, got a list"),
        ({"proxy": {"http_port": "http"}}, 'proxy.http_port: expected a whole number, got "http"'),
        ({"proxy": {"http_port": True}}, 'proxy.http_port: expected a number, got "true"'),
        ({"proxy": {"http_port": 80.5}}, 'proxy.http_port: expected a whole number, got "80.5"'),
        ({"proxy": {"http_port": 0}}, 'proxy.http_port: must be greater than or equal to 1, got "0"'),
        ({"proxy": {"cpus": 0.001}}, 'proxy.cpus: must be greater than or equal to 0.01, got "0.001"'),
        ({"proxy": {"cpus": float("nan")}}, 'proxy.cpus: expected a number, got "nan"'),
        ({"proxy": {"cpus": float("inf")}}, 'proxy.cpus: expected a number, got "inf"'),
        ({"proxy": {"memory_mib": 10**400}}, None),
        ({"protect_data": "maybe"}, 'protect_data: expected true or false, got "maybe"'),
        ({"images": "biuld"}, 'images: must be "build" or "upstream", got "biuld" - did you mean "build"?'),
        ({"proxy": {"engine": "caddy"}}, 'proxy.engine: must be "nginx" or "traefik", got "caddy"'),
        ({"proxy": {"portal_access": "all"}},
         'proxy.portal_access: must be "public", "user", "engineer" or "admin", got "all"'),
        ({"users": [{"name": "a", "role": "amdin"}]},
         'users[0].role: must be "user", "engineer" or "admin", got "amdin" - did you mean "admin"?'),
        ({"users": [*USERS, *USERS]},
         'users[1].name: user "ada" stands here a second time - remove or rename it'),
        ({"database": {"roles": [{"name": "a"}, {"name": "b"}, {"name": "a"}]}},
         'database.roles[2].name: role "a" stands here a second time - remove or rename it'),
        ({"database": {"roles": [{"name": "a-b"}, {"name": "a_b"}]}},
         'database: "a_b" is too like "a-b" - rename one'),
        ({"users": []},
         "users: nobody may open the portal (proxy.portal_access is user) - "
         "add a user such as `- {name: admin, role: admin}`"),
        ({"app": {}}, "app: needs database, which is off - add the key database"),
        ({"database": {}, "app": {"use_app": True}, "ring": {}},
         "app: services need each other in a circle (app -> ring -> app) - break it"),
        ({"proxy": {"https_port": 80}},
         "proxy.https_port: port 80 is taken by proxy.http_port - choose another"),
        ({"database": {"loopback_port": 443}},
         "database.loopback_port: port 443 is taken by proxy.https_port - choose another"),
        ({"rotation": {"users/adda": "1"}},
         'rotation.users/adda: no such credential - did you mean "users/ada"?'),
        ({"rotation": {"x": "1"}}, "rotation.x: no such credential - known: all, users/ada"),
        ({"ca_bundle": "no.pem"},
         'ca_bundle: no such file, got "no.pem" - give a path relative to Pulumi.yaml, or an absolute one'),
        ({"ca_bundle": "."}, None),
        ({"ca_bundle": "~nobody-of-that-name/x"}, None),
        ({"ca_bundle": "x" * 5000}, None),
        ({"ca_bundle": "a\0b"}, None),
        ({"ca_bundle": "Pulumi.yaml"},
         'ca_bundle: "Pulumi.yaml" holds no certificate in PEM form - give a PEM file with one'),
        ({"time_zone": "Europe/Berln"},
         'time_zone: not a time zone of the IANA database, got "Europe/Berln" - '
         "write one such as UTC or Europe/Berlin"),
        ({"network": {"pool": "8.8.8.0/20"}}, None),
        ({"network": {"pool": "10.0.0.0/24"}}, None),
        ({"network": {"pool": "10.0.0.1/16"}}, None),
        ({"network": {"pool": "fd00::/16"}}, None),
        ({"registry": {"mirror": "r.example"}, "domain": "no domain"}, None),
        ({"registry": {"mirror": "https://r.example"}},
         'registry.mirror: has the wrong form, got "https://r.example" - '
         "write host[:port][/prefix], without https://"),
        ({"registry": {"mirror": "r.example", "username": "u"}},
         "registry.password: missing - username and password go together"),
        ({"registry": {"mirror": "r.example", "password": "hunter2"}},
         "registry.username: missing - username and password go together"),
        ({"tls": "self-singed"},
         'tls.mode: must be "self-signed", "provided" or "letsencrypt", got "self-singed" - '
         'did you mean "self-signed"?'),
        ({"tls": "letsencrypt", "domain": "x.example.org"}, "tls.email: missing - mode letsencrypt needs it"),
        ({"tls": {"mode": "letsencrypt", "email": "a@b.org"}},
         "domain: no public CA knows data.localhost - use a public domain, or tls.server"),
        ({"tls": {"email": "a@b.org"}},
         "tls.email: has no meaning in mode self-signed - remove it or use mode letsencrypt"),
        ({"tls": {"server": "http://x"}}, None),
        ({"tls": {"renew_days": 365}},
         "tls.renew_days: every `up` would renew - must be less than validity_days (365)"),
        ({"target": {"kind": "kubernetes"}},
         'target.kind: must be "docker" or "digitalocean", got "kubernetes"'),
        ({"target": {"ssh_options": ["-v"]}},
         "target.ssh_options: has no meaning for unix:///var/run/docker.sock - remove it or use ssh://"),
        ({"target": {"host": "tcp://engine"}},
         'target.host: lacks the port, got "tcp://engine" - write tcp://host:2376'),
    ],
)  # fmt: skip
def test_one_mistake_is_one_line(values: dict[str, Any], expected: str | None) -> None:
    found = lines(**values)
    assert expected is None or found == [expected]
    assert all(0 < len(text) < 400 and text.isprintable() for text in found)
    path = next(iter(values))
    if expected is None and len(values) == 1:
        assert all(text.startswith(path) for text in found)


@pytest.mark.parametrize(
    "domain",
    ["", "x", "a..b", "-a.b", "a-.b", "a.b-", "A.b", "a_b.c", "a b.c", "https://a.b", "a.b/c", "a.b:80",
     "10.0.0.1", "*.a.b", ".a.b", "a.b.", "x" * 64 + ".b", "a." * 127 + "b", "ä.b", "a.b\n", "a\0.b"],
)  # fmt: skip
def test_invalid_domains(domain: str) -> None:
    assert line(domain=domain).startswith("domain: ")


@pytest.mark.parametrize("domain", ["data.localhost", "a.b", "x1.y-2.org", "x" * 63 + ".b", "xn--a.com"])
def test_valid_domains(domain: str) -> None:
    assert good(domain=domain).domain == domain


@pytest.mark.parametrize(
    "host",
    ["", "unix://", "unix://relative", "unix:///a b", "tcp://h:0", "tcp://h:99999", "tcp://u@h:1", "tcp://h:1/path",
     "ssh://", "ssh://h/path", "ssh://h:x", "ssh://u:password@h", "ssh://-oProxyCommand=x", "ssh://u@h?x",
     "http://h:1", "npipe:////./pipe/docker", "ssh://[::1", "h", "unix:///a\n"],
)  # fmt: skip
def test_invalid_engines(host: str) -> None:
    text = line(target={"host": host})
    assert text.startswith("target.host: ")
    assert "password" not in text


@pytest.mark.parametrize(
    "host", ["unix:///run/docker.sock", "ssh://u@h", "ssh://h:2222", "ssh://deploy@10.1.2.3:22"]
)
def test_valid_engines(host: str) -> None:
    assert good(target={"host": host}).target.host == host


def test_an_engine_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "ssh://u@h")
    assert good().target.host == "ssh://u@h"
    assert good(target={"host": "unix:///run/docker.sock"}).target.host == "unix:///run/docker.sock"
    monkeypatch.setenv("DOCKER_HOST", "nonsense")
    for values in ({}, {"target": None}, {"target": {}}):
        assert line(**values).startswith(
            'target.host: DOCKER_HOST is "nonsense": not the address of an engine'
        )


def test_an_engine_over_tcp_wants_all_three_files(tmp_path: Path) -> None:
    for name, content in {"ca": CERTIFICATE, "certificate": CERTIFICATE, "key": KEY}.items():
        (tmp_path / name).write_text(content)
    files = {name: str(tmp_path / name) for name in ("ca", "certificate", "key")}
    assert good(target={"host": "tcp://h:2376", **files})
    assert lines(target={"host": "tcp://h:2376"}) == [
        f"target.{name}: missing - a tcp:// engine is used over TLS only; give its PEM file" for name in files
    ]
    assert lines(target=files) == [
        f"target.{name}: has no meaning for unix:///var/run/docker.sock - remove it or use tcp://host:port"
        for name in files
    ]
    swapped = {**files, "certificate": files["key"], "key": files["certificate"]}
    assert [text.split(":")[0] for text in lines(target={"host": "tcp://h:2376", **swapped})] == [
        "target.certificate",
        "target.key",
    ]


def test_files_for_an_engine_over_tcp_may_have_more_than_text_around_the_block(tmp_path: Path) -> None:
    """openssl pkcs12 writes the name of the owner before it, in whatever encoding it has."""
    for name, content in {"ca": CERTIFICATE, "certificate": CERTIFICATE, "key": KEY}.items():
        (tmp_path / name).write_bytes(b"friendlyName: M\xfcller\n" + content.encode())
    files = {name: str(tmp_path / name) for name in ("ca", "certificate", "key")}
    target = good(target={"host": "tcp://h:2376", **files}).target
    assert isinstance(target, DockerTarget)
    pems = materials(target)
    assert pems.keys() == {"caMaterial", "certMaterial", "keyMaterial"}
    assert pems["certMaterial"].endswith(f"ller\n{CERTIFICATE}")


def self_signed(domain: str) -> tuple[bytes, bytes]:
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    names = x509.SubjectAlternativeName([x509.DNSName(domain), x509.DNSName(f"*.{domain}")])
    builder = x509.CertificateBuilder().subject_name(x509.Name([])).issuer_name(x509.Name([]))
    builder = builder.public_key(key.public_key()).serial_number(1).add_extension(names, critical=True)
    builder = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM), private


def test_provided_certificates(tmp_path: Path) -> None:
    certificate, key = self_signed("data.localhost")
    (tmp_path / "crt").write_bytes(certificate)
    (tmp_path / "key").write_bytes(key)
    files = {"certificate": str(tmp_path / "crt"), "key": str(tmp_path / "key")}
    assert good(tls={"mode": "provided", **files})
    assert line(tls={"mode": "provided", **files}, domain="x.example.org").startswith(
        "tls.certificate: does not cover x.example.org and *.x.example.org"
    )
    swapped = {"certificate": files["key"], "key": files["certificate"]}
    assert line(tls={"mode": "provided", **swapped}).startswith(
        "tls.certificate: holds no readable certificate"
    )
    assert lines(tls={"mode": "provided"}) == [
        "tls.certificate: missing - mode provided needs it",
        "tls.key: missing - mode provided needs it",
    ]
    assert lines(tls=files) == [
        "tls.certificate: has no meaning in mode self-signed - remove it or use mode provided",
        "tls.key: has no meaning in mode self-signed - remove it or use mode provided",
    ]


@pytest.mark.parametrize("name", ["a\n", "\na", "A", "1a", "a b", "a.b", "a/b", "", "a" * 42, "ä", "-a"])
def test_invalid_names(name: str) -> None:
    assert line(users=[*USERS, {"name": name, "role": "user"}]).startswith(
        "users[1].name: has the wrong form"
    )


def test_many_mistakes_are_reported_at_once_and_in_a_fixed_order() -> None:
    values = {
        "domian": 1,
        "users": [{"name": "A", "role": "boss"}, 5],
        "proxy": {"http_port": "x", "extra": 1},
        "images": "x",
        "database": {"roles": 5, "memory_mib": 1},
    }
    found = lines(**values)
    assert [text.split(":")[0] for text in found] == [
        "images", "proxy.http_port", "proxy.extra", "users[0].name", "users[0].role", "users[1]",
        "database.memory_mib", "database.roles", "domian",
    ]  # fmt: skip
    assert found == lines(**dict(reversed(values.items())))


def test_mistakes_that_the_whole_shows_are_reported_at_once() -> None:
    found = lines(
        users=[{"name": "a", "role": "user"}, {"name": "a", "role": "user"}],
        proxy={"portal_access": "admin", "https_port": 80},
        registry={"mirror": "r.example", "username": "u"},
        app={"use_store": True},
        tls={"email": "a@b.org", "renew_days": 400},
    )
    assert [text.split(":")[0] for text in found] == [
        "registry.password", "users", "tls.email", "tls.renew_days", "users[1].name", "app", "app",
        "proxy.https_port",
    ]  # fmt: skip


@pytest.mark.parametrize("namespace", ["millrce", "Millrace", "millrace2", "milrace", "MILLRACE"])
def test_a_slip_in_the_namespace_is_a_mistake(namespace: str) -> None:
    values = config({"users": USERS, f"{namespace}:domain": "hunter2"})
    with pytest.raises(SettingsError) as caught:
        load(from_config(values), "Pulumi.test.yaml")
    assert caught.value.lines == [
        f"Pulumi.test.yaml: {namespace}:domain: not a namespace of this project - "
        'did you mean "millrace:domain"?'
    ]


def test_a_point_in_the_place_of_the_colon() -> None:
    assert lines(**{"millrace.bi": {}}) == ['["millrace.bi"]: unknown key - did you mean "millrace:bi"?']


def test_a_file_without_settings_says_where_they_belong() -> None:
    with pytest.raises(SettingsError) as caught:
        load(from_config({"docker:host": "unix:///other.sock"}), "Pulumi.test.yaml")
    assert caught.value.lines == [
        "Pulumi.test.yaml: there are no settings - all keys, such as millrace:users, stand below `config:`"
    ]


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"a":' * 100_000,
        "[" + "9" * 10_000 + "]",
        "[1,",
        '{"a"',
        "{}x",
        "[NaN",
        "{'a': 1}",
        "\ud800",
    ],
)
def test_what_is_no_json_is_text(text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load(from_config({"millrace:users": text}), "Pulumi.test.yaml")
    assert len(caught.value.lines) == 1
    assert caught.value.lines[0].startswith("Pulumi.test.yaml: millrace:users: expected a list, got ")
    assert len(caught.value.lines[0]) < 250


def test_deep_nesting_and_odd_keys() -> None:
    deep: Any = 1
    for _ in range(500):
        deep = {"k": deep}
    assert line(proxy=deep).startswith("proxy.k: unknown key")
    assert line(rotation={"a": deep}) == "rotation.a: expected text, got a mapping"
    text = line(proxy={"a\nb\x1b[31m" + "x" * 500: 1})
    assert text.startswith('proxy["a\\nb\\u001b[31m')
    assert len(text) < 300


# -- secrets


SECRET = "hunter2-Zx9"


@pytest.mark.parametrize(
    "values",
    [
        {"registry": SECRET},
        {"registry": '{"password": "' + SECRET},
        {"registry": [SECRET]},
        {"registry": {"mirror": "r.example", "username": "u", "password": [SECRET]}},
        {"registry": {"mirror": "r.example", "username": "u", "password": {"x": SECRET}}},
        {"registry": {"mirror": "r.example", "username": "u", "pasword": SECRET}},
        {"registry": {"mirror": f"https://u:{SECRET}@r.example", "username": "u", "password": SECRET}},
        {"registry": {"mirror": f"u:{SECRET}@r.example"}},
        {"registry": {"mirror": "r.example", "password": SECRET}},
        {"database": SECRET},
        {"database": {"token": [SECRET]}},
        {"database": {"token": {"a": SECRET}}},
        {"target": {"host": f"ssh://u:{SECRET}@h"}},
        {"tls": {"server": f"https://u:{SECRET}@h/"}},
    ],
)
def test_no_secret_is_shown(values: dict[str, Any]) -> None:
    assert SECRET not in "\n".join(lines(**values))


def test_what_the_user_marked_secret_is_not_shown() -> None:
    assert SECRET in "\n".join(lines(domain=f"{SECRET} x"))
    assert SECRET not in "\n".join(
        lines(secret_names(["millrace:domain", "aws:domain"]), domain=f"{SECRET} x")
    )
    assert SECRET not in "\n".join(lines({"proxy"}, proxy={"engine": SECRET, "http_port": SECRET}))


def test_a_registry_password_is_never_printed_by_accident() -> None:
    settings = good(registry={"mirror": "r.example:5000/x", "username": "u", "password": SECRET})
    assert SECRET not in repr(settings)
    assert settings.registry is not None
    assert settings.registry.password is not None
    assert settings.registry.password.get_secret_value() == SECRET


# -- the parts


def test_paths_are_those_of_pulumi_config() -> None:
    assert dotted(("roles", 0, "name")) == "roles[0].name"
    assert dotted(("rotation", "postgres/app")) == "rotation.postgres/app"
    assert dotted(("rotation", "a b", "c")) == 'rotation["a b"].c'
    assert dotted(("a", "")) == 'a[""]'


def test_values_are_short_and_printable() -> None:
    assert shown("x" * 1000) == f'"{"x" * 60}…"'
    assert shown("a\x1b[31mb\n\ud800") == '"a\\x1b[31mb\\n\\ud800"'
    assert shown(10**5000) == '"a number of thousands of digits"'
    assert printable("plain ü 漢") == "plain ü 漢"


def test_a_problem_without_path_or_text_still_says_something() -> None:
    assert Problem((), "x\ny").line("S", "millrace") == "S: millrace: x y"
    assert Problem(("a",), " ").line("S", "millrace").startswith("S: millrace:a: cannot be used")
    assert len(Problem(("a",), "x" * 5000).line("S", "millrace")) == 600
