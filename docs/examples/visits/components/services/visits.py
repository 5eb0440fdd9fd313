"""Visits: a web page that counts its visitors in Postgres, the example of docs/add-a-service.md."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from components.postgres_settings import Database
from components.service import Need, Service, ca_file
from components.settings import Access, Line, MiB, ServiceSettings
from components.workload import Endpoint, File, Probe, Route, Scheme, Workload

_PORT = 8000
_FOLDER = "/run/millrace/visits"
_DATABASE = Need(service="postgres", request=Database(name="visits", role="visits"))


class VisitsSettings(ServiceSettings):
    """A page that counts its visitors."""

    memory_mib: MiB = 64
    """Memory limit, in MiB."""
    greeting: Line = "Welcome"
    """First line of the page."""


class Visits(Service):
    """A web page that counts its visitors in a database of its own."""

    key = "visits"
    settings_model = VisitsSettings
    settings: VisitsSettings

    @classmethod
    def needs(cls, settings: Any, platform: Any) -> Iterable[Need]:
        """A database of its own and a role that owns it."""
        return [_DATABASE]

    @classmethod
    def credentials(cls, settings: Any, demands: Any) -> Iterable[str]:
        """The token that resets the counter."""
        return ["reset"]

    def build(self) -> None:
        """One container."""
        database = self.context.platform.connect(self.key, "postgres", _DATABASE.request)
        route = Route(
            host="visits",
            access=Access.USER,
            title="Visits",
            purpose="Count visitors",
        )
        self.deploy(
            Workload(
                name=self.key,
                image="visits",
                command=("python3", "/opt/visits/app.py"),
                user=65534,
                env={"GREETING": self.settings.greeting},
                files=(
                    ca_file(database.ca_certificate),
                    File(path=f"{_FOLDER}/database", content=database.uri, secret=True),
                    File(path=f"{_FOLDER}/reset", content=self.credential("reset").password, secret=True),
                ),
                endpoints=(Endpoint(name="http", port=_PORT, scheme=Scheme.HTTP, route=route),),
                probe=Probe(command=("python3", "/opt/visits/app.py", "probe")),
                limits=self.settings.limits,
            )
        )

    def connections(self) -> Mapping[str, Any]:
        """Where other containers would find it."""
        return {"url": f"http://{self.hostname}:{_PORT}"}
