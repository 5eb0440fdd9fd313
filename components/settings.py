"""The platform's settings: typed, validated before anything is created, built from the stack file.

Each top-level key of ``millrace:`` in ``Pulumi.<stack>.yaml`` is a field below or a service (a field for each
comes from the registry in :mod:`components.services`). A service is on when its key is present.
"""

from __future__ import annotations

import difflib
import inspect
import json
import os
from collections.abc import Collection, Iterable, Mapping
from enum import StrEnum
from functools import cache
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    SecretStr,
    Tag,
    ValidationError,
    create_model,
    model_validator,
)

from components.digitalocean_settings import DigitalOceanTarget, ManagedObjectStore
from components.problems import Problem, SettingsError, from_validation, nearest
from components.settings_types import (
    NAME_PATTERN,
    Domain,
    Email,
    EngineAddress,
    ExistingFile,
    Float,
    Form,
    HostKey,
    HttpsAddress,
    ImageReference,
    Int,
    Line,
    MiB,
    Mirror,
    MirrorUrl,
    Model,
    Name,
    Pool,
    Port,
    Text,
    TimeZone,
)
from components.workload import Access, Limits

NAMESPACE = "millrace"


class ImageSource(StrEnum):
    """Where images come from: built here from package registries, or the projects' official ones."""

    BUILD = "build"
    UPSTREAM = "upstream"


class Role(StrEnum):
    """What a platform user may open: everything of the role's level and below."""

    USER = "user"
    ENGINEER = "engineer"
    ADMIN = "admin"

    @property
    def access(self) -> Access:
        """The highest access level this role may open."""
        return Access(self.value)


class ServiceSettings(Model):
    """What every service lets one set. Memory is in MiB, CPU in cores."""

    images: ImageSource | None = None
    """Overrides the platform's `images` for this service."""
    image: ImageReference | None = None
    """Exact image reference instead of the catalogue's, used as upstream."""
    memory_mib: MiB = 512
    """Memory limit of a container of this service, in MiB."""
    cpus: Annotated[Float, Field(gt=0, le=256)] = 1.0
    """CPU limit of a container of this service, in cores."""

    @property
    def limits(self) -> Limits:
        """The limits as workloads take them."""
        return Limits(memory_mib=self.memory_mib, cpus=self.cpus)


def _default_host() -> str:
    return os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"


def _kind(value: object) -> object:
    if isinstance(value, str) and value not in _KINDS:
        near = nearest(value, _KINDS)
        raise ValueError('must be "docker" or "digitalocean"' + (near if "did you mean" in near else ""))
    return value


_KINDS = ("digitalocean", "docker")


class DockerTarget(Model):
    """Containers on a Docker engine, here or elsewhere."""

    kind: Annotated[Literal["docker"], BeforeValidator(_kind)] = "docker"
    """docker: on an engine that is there already."""
    host: EngineAddress = Field(default_factory=_default_host)
    """unix:///path, tcp://host:port (with TLS) or ssh://user@host[:port]; without it DOCKER_HOST, else
    unix:///var/run/docker.sock."""
    ca: ExistingFile | None = None
    """PEM file of the CA that signed the engine's certificate (tcp)."""
    certificate: ExistingFile | None = None
    """PEM file of the client certificate (tcp)."""
    key: ExistingFile | None = None
    """File of the private key: the client certificate's in PEM form (tcp), or the one to log in with (ssh).
    Without it ssh takes what its agent and its configuration have."""
    private_key: SecretStr | None = None
    """The private key itself instead of a file (ssh), for machines that have none:
    `pulumi config set --secret --path millrace:target.private_key < FILE`."""
    host_key: HostKey | None = None
    """Public key of the host (ssh), the only one that is accepted: a line of `ssh-keyscan HOST` without its
    first word."""
    known_hosts: ExistingFile | None = None
    """File of known host keys (ssh), instead of those that the user and the machine have."""
    ssh_options: tuple[Line, ...] = ()
    """More arguments for ssh, such as ["-J", "jump.example.com"]."""


def _target_model(value: object) -> str:
    kind = value.get("kind") if isinstance(value, Mapping) else getattr(value, "kind", None)
    return "DigitalOceanTarget" if kind == "digitalocean" else "DockerTarget"


TargetSettings = Annotated[
    Annotated[DockerTarget, Tag("DockerTarget")] | Annotated[DigitalOceanTarget, Tag("DigitalOceanTarget")],
    Discriminator(_target_model),
]


class Registry(Model):
    """An image registry to use instead of the public ones."""

    mirror: Mirror
    """host[:port][/prefix] that holds the official images under their usual names."""
    username: Line | None = None
    """User of the registry."""
    password: SecretStr | None = None
    """Password of the registry: `pulumi config set --secret --path millrace:registry.password`."""


class PackageMirrors(Model):
    """Package registries for builds, instead of the public ones. They need no login."""

    apt: MirrorUrl | None = None
    """Folder that holds `debian` and `debian-security`."""
    pypi: MirrorUrl | None = None
    """Index of Python packages, as pip's index-url."""
    go: MirrorUrl | None = None
    """Go module proxy, as GOPROXY."""
    maven: MirrorUrl | None = None
    """Repository in the layout of Maven Central."""

    @property
    def build_args(self) -> dict[str, str]:
        """Arguments of the Dockerfiles in images/."""
        named = {
            "APT_MIRROR": self.apt,
            "PIP_INDEX_URL": self.pypi,
            "GOPROXY": self.go,
            "MAVEN_MIRROR": self.maven,
        }
        return {name: url for name, url in named.items() if url is not None}


class TlsMode(StrEnum):
    """Where the proxy's certificate comes from."""

    SELF_SIGNED = "self-signed"
    PROVIDED = "provided"
    LETSENCRYPT = "letsencrypt"


class Tls(Model):
    """Certificates of the proxy, and the life time of those the platform issues."""

    mode: TlsMode = TlsMode.SELF_SIGNED
    """self-signed: by the platform's own CA; provided: your files; letsencrypt: by ACME."""
    certificate: ExistingFile | None = None
    """PEM file with the certificate and its chain (provided)."""
    key: ExistingFile | None = None
    """PEM file with the private key (provided)."""
    email: Email | None = None
    """Contact address of the ACME account (letsencrypt)."""
    server: HttpsAddress = "https://acme-v02.api.letsencrypt.org/directory"
    """Directory URL of the ACME server (letsencrypt)."""
    validity_days: Annotated[Int, Field(ge=2, le=825)] = 365
    """Life time of a certificate from the platform's CA, in days."""
    renew_days: Annotated[Int, Field(ge=1, le=800)] = 30
    """An `up` renews a certificate that has fewer days left."""


class Proxy(ServiceSettings):
    """The reverse proxy: the only service that publishes ports."""

    engine: Literal["nginx", "traefik"] = "nginx"
    """nginx or traefik; both serve the same routes alike."""
    http_port: Port = 80
    """Port on the host for HTTP, which only redirects (and answers ACME challenges)."""
    https_port: Port = 443
    """Port on the host for HTTPS."""
    portal_access: Access = Access.USER
    """Who may open the portal at the domain's root."""
    memory_mib: MiB = 128
    """Memory limit of the proxy, in MiB."""


class User(Model):
    """A person who uses the platform; the password is generated (stack output `credentials`)."""

    name: Name
    """Login name."""
    role: Role
    """user, engineer or admin: opens what has this access level or a lower one."""


class Network(Model):
    """Addresses of the platform's internal networks."""

    pool: Pool = "10.213.0.0/16"
    """Private range to take the internal networks from, a /27 for each pair of services."""


class Capacity(Model):
    """Whether a stack fits its host: its estimated memory and disk against what is there."""

    enforce: bool = True
    """Refuse a preview or `up` of what cannot fit the host; with false that is only a warning."""
    reserve_mib: Annotated[Int, Field(ge=0, le=1024 * 1024)] = 512
    """Memory to keep for the host itself: system, Docker engine, jobs, in MiB."""


class Policies(Model):
    """What the policy pack holds this stack to, beyond what it asks of every stack."""

    production: bool | None = None
    """Whether this is a production stack: data is protected, pulled images have digests. Without it, stacks
    called prod or production are."""
    digests: bool | None = None
    """Whether pulled images need a digest; without it, in production they do."""
    docker_socket: tuple[Name, ...] = ()
    """Services whose containers may mount the Docker engine's socket, which makes them root on the host."""


def _tls(value: object) -> object:
    return {"mode": value} if isinstance(value, str) else value


class PlatformSettings(Model):
    """Everything of a stack but its services."""

    domain: Domain = "data.localhost"
    """Services are at https://<service>.<domain>; names below localhost need no DNS."""
    target: TargetSettings = Field(default_factory=DockerTarget)
    """Where the platform runs."""
    images: ImageSource = ImageSource.BUILD
    """build: from package registries on the engine itself; upstream: the projects' official images."""
    registry: Registry | None = None
    """Registry to pull upstream images from."""
    proxy: Proxy = Proxy()
    """The reverse proxy and portal."""
    tls: Annotated[Tls, BeforeValidator(_tls, json_schema_input_type=TlsMode | Tls)] = Tls()
    """self-signed, provided or letsencrypt, or a mapping with more keys."""
    users: tuple[User, ...] = ()
    """Who may log in at the proxy."""
    rotation: dict[str, Line] = {}
    """credential id -> any text; another text generates another password. `all` rotates all."""
    time_zone: TimeZone = "UTC"
    """IANA time zone of every container."""
    package_mirrors: PackageMirrors = PackageMirrors()
    """Mirrors of the package registries that builds take from, for networks that reach no others."""
    ca_bundle: ExistingFile | None = None
    """PEM file with more CAs to trust in builds and in containers that call out."""
    network: Network = Network()
    """Internal networks."""
    policies: Policies = Policies()
    """Rules for this stack; see docs/policies.md."""
    capacity: Capacity = Capacity()
    """What the host has to have for this stack; see docs/estimates.md."""
    protect_data: bool = False
    """Refuse to delete volumes that hold data; `destroy` then keeps them."""

    @model_validator(mode="before")
    @classmethod
    def _certificates_of_a_public_host(cls, values: Any) -> Any:
        """Let's Encrypt where the target has a public address of its own and the settings name no mode."""
        if not isinstance(values, dict) or _target_model(values.get("target")) != "DigitalOceanTarget":
            return values
        tls = values.get("tls")
        if tls is None or (isinstance(tls, dict) and tls.get("mode") is None):
            return {**values, "tls": {**(tls or {}), "mode": TlsMode.LETSENCRYPT.value}}
        return values

    @property
    def port_suffix(self) -> str:
        """``:8443`` where URLs must name the port, nothing for 443."""
        return "" if self.proxy.https_port == 443 else f":{self.proxy.https_port}"

    @property
    def managed(self) -> frozenset[str]:
        """Keys of services that the target's provider runs in place of containers."""
        return self.target.managed if isinstance(self.target, DigitalOceanTarget) else frozenset()

    @property
    def managed_kafka_nodes(self) -> int:
        """Nodes of the managed Kafka cluster; 0 where there is none."""
        kafka = self.target.kafka if isinstance(self.target, DigitalOceanTarget) else None
        return kafka.nodes if kafka else 0

    @property
    def managed_store(self) -> ManagedObjectStore | None:
        """Settings of the object store that the target's provider runs; None where there is none."""
        return self.target.object_store if isinstance(self.target, DigitalOceanTarget) else None

    def public_url(self, host: str) -> str:
        """Address of a host through the proxy, without a path; ``""`` is the domain itself."""
        fqdn = f"{host}.{self.domain}" if host else self.domain
        return f"https://{fqdn}{self.port_suffix}"


class Settings(PlatformSettings):
    """Base of the model that :func:`settings_model` builds: the platform plus one field per service."""

    # The services' fields come with their descriptions; there is no source to look for docstrings in.
    model_config = ConfigDict(use_attribute_docstrings=False)

    @property
    def services(self) -> dict[str, ServiceSettings]:
        """Settings of the services that are on, by key, in the registry's order."""
        own = PlatformSettings.model_fields
        values = {name: getattr(self, name) for name in type(self).model_fields if name not in own}
        return {name: value for name, value in values.items() if value is not None}


@cache
def settings_model() -> type[Settings]:
    """The settings with a field for each service of the registry."""
    from components.services import registry

    fields: dict[str, Any] = {
        key: (service.settings_model | None, Field(default=None, description=_first_line(service.__doc__)))
        for key, service in registry().items()
    }
    return create_model("Settings", __base__=Settings, **fields)


def _first_line(text: str | None) -> str:
    lines = inspect.cleandoc(text or "").splitlines()
    return lines[0] if lines else ""


def load(values: Mapping[str, object], stack_file: str, secret_keys: Collection[str] = ()) -> Settings:
    """Settings from the stack's configuration (keys without namespace).

    Values below a key of ``secret_keys`` are never shown. Mistakes of single values are reported first; those
    that only the whole shows (:mod:`components.checks`) once every value is good by itself.

    Raises:
        SettingsError: with one line for each mistake.
    """
    from components.checks import problems
    from components.demo_overlay import with_demo
    from components.demo_settings import KEY as DEMO

    model = settings_model()
    foreign = [Problem((key,), _astray(key)) for key in sorted(values) if ":" in key]
    own = {key: values[key] for key in sorted(values) if ":" not in key}
    # `millrace:object_store:` with nothing below is a service with its defaults.
    services = model.model_fields.keys() - PlatformSettings.model_fields.keys()
    own = {key: {} if value is None and key in services else value for key, value in own.items()}
    if DEMO in services:
        own = with_demo(own)
    # What DOCKER_HOST says is judged in its place, as if it stood in the file.
    own["target"] = {} if own.get("target") is None else own["target"]
    try:
        settings = model.model_validate(own)
    except ValidationError as error:
        found: Iterable[Problem] = [*foreign, *from_validation(error, model, secret_keys)]
    else:
        found = foreign or list(problems(settings))
        if not found:
            return settings
    lines = [problem.line(stack_file, NAMESPACE) for problem in found]
    raise SettingsError(list(dict.fromkeys(lines)))


def from_config(config: Mapping[str, str], namespace: str = NAMESPACE) -> dict[str, object]:
    """The namespace's part of Pulumi's raw configuration, with structured values decoded.

    Pulumi hands every value over as text, mappings and lists as JSON. Keys of other namespaces belong to
    somebody else, unless they look like a slip of the pen: those stay in, with their namespace, for
    :func:`load` to report.
    """
    values: dict[str, object] = {}
    for key, text in config.items():
        owner, _, name = key.partition(":")
        if owner == namespace:
            values[name] = _decode(text)
        elif difflib.SequenceMatcher(None, owner.lower(), namespace).ratio() >= _NEAR:
            values[key] = None
    return values


# "millrce" is 0.93 near, "docker" 0.14; no published provider's name comes closer than 0.7.
_NEAR = 0.8


def _astray(key: str) -> str:
    return f'not a namespace of this project - did you mean "{NAMESPACE}:{key.partition(":")[2]}"?'


def secret_names(keys: Iterable[str], namespace: str = NAMESPACE) -> set[str]:
    """Pulumi's list of secret keys as :func:`load` takes it: this namespace's, without it."""
    return {name for owner, _, name in (key.partition(":") for key in keys) if owner == namespace}


def _decode(text: str) -> object:
    if text[:1] in ("{", "["):
        try:
            value: object = json.loads(text)
        except (ValueError, RecursionError):
            # Broken, thousands of digits, thousands of levels: as text it is the wrong type everywhere.
            return text
        return value
    return None if text in ("", "null") else text


__all__ = [
    "NAMESPACE",
    "NAME_PATTERN",
    "Access",
    "DigitalOceanTarget",
    "DockerTarget",
    "Domain",
    "ExistingFile",
    "Float",
    "Form",
    "ImageReference",
    "ImageSource",
    "Int",
    "Line",
    "MiB",
    "Model",
    "Name",
    "Network",
    "PlatformSettings",
    "Port",
    "Proxy",
    "Registry",
    "Role",
    "ServiceSettings",
    "Settings",
    "TargetSettings",
    "Text",
    "Tls",
    "TlsMode",
    "User",
    "from_config",
    "load",
    "secret_names",
    "settings_model",
]
