"""The platform's settings: typed, validated before anything is created, built from the stack file.

Each top-level key of ``millrace:`` in ``Pulumi.<stack>.yaml`` is a field below or a service (a field for each
comes from the registry in :mod:`components.services`). A service is on when its key is present.
"""

from __future__ import annotations

import difflib
import inspect
import json
from collections.abc import Collection, Iterable, Mapping
from functools import cache
from typing import Annotated, Any

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    create_model,
    model_validator,
)

from components.digitalocean_settings import DigitalOceanTarget, ManagedObjectStore
from components.docker_settings import DockerTarget
from components.problems import Problem, SettingsError, from_validation
from components.settings_parts import (
    Capacity,
    ImageSource,
    Network,
    PackageMirrors,
    Policies,
    Proxy,
    Registry,
    Role,
    ServiceSettings,
    Tls,
    TlsMode,
    User,
)
from components.settings_types import (
    NAME_PATTERN,
    Domain,
    ExistingFile,
    Float,
    Form,
    ImageReference,
    Int,
    Line,
    MiB,
    Model,
    Name,
    Port,
    Text,
    TimeZone,
)
from components.workload import Access

NAMESPACE = "millrace"


def _target_model(value: object) -> str:
    kind = value.get("kind") if isinstance(value, Mapping) else getattr(value, "kind", None)
    return "DigitalOceanTarget" if kind == "digitalocean" else "DockerTarget"


TargetSettings = Annotated[
    Annotated[DockerTarget, Tag("DockerTarget")] | Annotated[DigitalOceanTarget, Tag("DigitalOceanTarget")],
    Discriminator(_target_model),
]


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
    timeout_scale: Annotated[Float, Field(ge=0.1, le=20)] = 1.0
    """Multiplies how long a start and a job may take before they count as failed: more for a slow host."""
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

    if not values:
        text = f"there are no settings - all keys, such as {NAMESPACE}:users, stand below `config:`"
        raise SettingsError([f"{stack_file}: {text}"])
    model = settings_model()
    foreign = [Problem((key,), _astray(key)) for key in sorted(values) if _is_astray(key)]
    own = {key: values[key] for key in sorted(values) if not _is_astray(key)}
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


def _is_astray(key: str) -> bool:
    return ":" in key or key.startswith(f"{NAMESPACE}.")


def _astray(key: str) -> str:
    owner, colon, name = key.partition(":")
    what = "not a namespace of this project" if colon else "unknown key"
    return f'{what} - did you mean "{NAMESPACE}:{name or owner.removeprefix(f"{NAMESPACE}.")}"?'


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
