"""BI: dashboards and SQL in the browser, on every data source of the platform."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from components import bi_metabase, bi_superset
from components.bi_settings import BiSettings, needs, problems
from components.problems import Problem
from components.service import Demand, Need, Service
from components.settings import Settings


class Bi(Service):
    """Dashboards and SQL in the browser: Superset or Metabase.

    Charts, dashboards and accounts are in a database of its own in Postgres. Data sources are Presto and the
    databases that Postgres declares, read-only. Users are those of the platform.
    """

    key = "bi"
    settings_model = BiSettings
    settings: BiSettings

    @classmethod
    def needs(cls, settings: BiSettings, platform: Settings) -> Iterable[Need]:
        """See :func:`components.bi_settings.needs`."""
        return needs(settings, platform)

    @classmethod
    def credentials(cls, settings: BiSettings, demands: Sequence[Demand]) -> Iterable[str]:
        """Keys of both engines, so that a switch there and back finds them; the proxy's proof of itself."""
        kept = [bi_superset.SECRET_KEY, bi_metabase.ADMIN]
        return [*kept, bi_superset.PROXY] if settings.engine == "superset" else kept

    @classmethod
    def check(cls, settings: BiSettings, demands: Sequence[Demand], platform: Settings) -> Iterable[Problem]:
        """See :func:`components.bi_settings.problems`."""
        return problems(settings, demands, platform)

    def build(self) -> None:
        """Server and setup job of the engine; of the other one its keys alone."""
        engines = {"superset": bi_superset, "metabase": bi_metabase}
        for name, engine in engines.items():
            (engine.build if name == self.settings.engine else engine.keep)(self)

    def connections(self) -> Mapping[str, Any]:
        """Where it is inside the platform, and where people open it."""
        scheme, port = (
            ("https", bi_superset.PORT) if self.settings.engine == "superset" else ("http", bi_metabase.PORT)
        )
        inside = f"{scheme}://{self.hostname}:{port}"
        return {"engine": self.settings.engine, "url": inside, "public_url": self.public_url()}
