"""Parts of the settings, a model each: what all services have, and what stands below the platform's keys."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, SecretStr

from components.settings_types import (
    Cpus,
    Email,
    ExistingFile,
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
)
from components.workload import Access, Limits


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
    cpus: Cpus = 1.0
    """CPU limit of a container of this service, in cores."""

    @property
    def limits(self) -> Limits:
        """The limits as workloads take them."""
        return Limits(memory_mib=self.memory_mib, cpus=self.cpus)


class Registry(Model):
    """An image registry to use instead of the public ones."""

    mirror: Mirror
    """host[:port][/prefix] that holds the official images under their usual names."""
    username: Line | None = None
    """User of the registry."""
    password: SecretStr | None = None
    """Password of the registry:
    `pulumi config set --secret --path millrace:registry.password --stack NAME`."""


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
    """Whether a stack fits its host: estimated memory and disk, and CPU limits, against what is there."""

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
