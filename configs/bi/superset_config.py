"""Superset's configuration: the same on the built and on the official image (SUPERSET_CONFIG_PATH).

Values come from settings.json beside this file, secrets from files of their own. Who a request comes from is
what the platform's proxy says, and nobody else's word counts.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from flask import Flask, Response, redirect, request
from flask_appbuilder import expose
from flask_appbuilder.const import AUTH_REMOTE_USER
from flask_appbuilder.security.views import AuthView
from sqlalchemy import text
from superset.config import THEME_DARK as _DARK
from superset.config import THEME_DEFAULT as _LIGHT
from superset.security import SupersetSecurityManager

_FOLDER = Path(__file__).parent
_SECRETS = Path("/run/millrace/bi")
_VALUES: dict[str, Any] = json.loads((_FOLDER / "settings.json").read_text())
_STATE = Path(os.environ["SUPERSET_HOME"])

HEALTH = "/.millrace/health"


def _secret(name: str) -> str:
    return (_SECRETS / name).read_text().strip()


def _derived(purpose: str) -> str:
    """A key for another purpose than the one that signs sessions and encrypts stored passwords."""
    return hmac.new(SECRET_KEY.encode(), purpose.encode(), hashlib.sha256).hexdigest()


# -- who is asking


class ProxyOnly:
    """Lets requests in that carry the proxy's secret, with the user the proxy names, and no others.

    Other services share a network with this one and could send X-Forwarded-User, too.
    """

    def __init__(self, app: Callable[..., Iterable[bytes]]) -> None:
        self.app = app
        self.token = _secret("proxy").encode()

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Take the identity out of the headers and into REMOTE_USER."""
        user = environ.pop("HTTP_X_FORWARDED_USER", "")
        token = environ.pop("HTTP_X_MILLRACE_PROXY", "").encode("latin-1", "replace")
        environ.pop("REMOTE_USER", None)
        if hmac.compare_digest(token, self.token):
            environ["REMOTE_USER"] = user
        elif environ.get("PATH_INFO") != HEALTH:
            start_response("403 Forbidden", [("Content-Type", "text/plain; charset=utf-8")])
            return [b"Superset is reached through the platform's proxy only.\n"]
        return self.app(environ, start_response)


class PlatformLogin(AuthView):
    """In place of a login form: Superset sends people there whom it does not know or does not let through."""

    route_base = ""

    @expose("/login/", methods=["GET", "POST"])
    def login(self, provider: str | None = None) -> Any:
        """The reason; sent back to where they came from, they would be here again at once."""
        name = request.environ.get("REMOTE_USER") or "nobody"
        if self.appbuilder.sm.platform_user() is None:
            return Response(f"Superset has no active user {name}.\n", status=403, mimetype="text/plain")
        if "next" in request.args:
            reason = f"The roles that {name} has in Superset do not allow this.\n"
            return Response(reason, status=403, mimetype="text/plain")
        return redirect(self.appbuilder.get_url_for_index)


class PlatformSecurityManager(SupersetSecurityManager):  # type: ignore[misc]
    """Takes the user of each request from the proxy; a session alone opens nothing."""

    authremoteuserview = PlatformLogin
    # Superset's own view is a form for passwords.
    register_superset_auth_view = False
    register_superset_registeruser_view = False

    def platform_user(self) -> Any:
        """The active user whom the proxy names, or None."""
        name = request.environ.get("REMOTE_USER")
        user = self.find_user(username=name) if name else None
        return user if user is not None and user.is_active else None

    def load_user(self, pk: int) -> Any:
        """The session's user, if the proxy says the same: another may have logged in there since."""
        user = super().load_user(pk)
        return user if user is not None and user.username == request.environ.get("REMOTE_USER") else None

    def request_loader(self, request: Any) -> Any:
        """The user of a request without a session of theirs."""
        return self.platform_user()


AUTH_TYPE = AUTH_REMOTE_USER
CUSTOM_SECURITY_MANAGER = PlatformSecurityManager
# Outside of everything else, so that nothing answers anybody who is not the proxy.
ADDITIONAL_MIDDLEWARE = [ProxyOnly]
AUTH_USER_REGISTRATION = False
LOGOUT_REDIRECT_URL = _VALUES["portal_url"]


def FLASK_APP_MUTATOR(app: Flask) -> None:  # noqa: N802 - Superset's name for it
    """Adds the address of the health check: it asks the database, as every page does."""
    from superset.extensions import db

    def health() -> Response:
        db.session.execute(text("SELECT 1"))
        return Response("OK\n", mimetype="text/plain")

    app.add_url_rule(HEALTH, "millrace_health", health)


# -- keys and database

SECRET_KEY = _secret("secret-key")
GUEST_TOKEN_JWT_SECRET = _derived("guest-token")
GLOBAL_ASYNC_QUERIES_JWT_SECRET = _derived("async-queries")
SQLALCHEMY_DATABASE_URI = _secret("database")
SQLALCHEMY_EXAMPLES_URI = SQLALCHEMY_DATABASE_URI
SQLALCHEMY_ENGINE_OPTIONS = {
    "pool_size": _VALUES["pool_size"],
    "max_overflow": _VALUES["threads"],
    "pool_pre_ping": True,
    "pool_recycle": 1800,
}
DATA_DIR = str(_STATE)
UPLOAD_FOLDER = str(_STATE / "uploads") + "/"

# -- behind the proxy, over HTTPS

ENABLE_PROXY_FIX = True
PROXY_FIX_CONFIG = {"x_for": 1, "x_proto": 1, "x_host": 1, "x_port": 0, "x_prefix": 0}
SESSION_COOKIE_SECURE = True
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
GLOBAL_ASYNC_QUERIES_JWT_COOKIE_SECURE = True
ENABLE_CORS = False
WTF_CSRF_ENABLED = True
TALISMAN_ENABLED = True
_TILES = ["https://tile.openstreetmap.org", "https://tile.osm.ch", "https://a.basemaps.cartocdn.com"]
TALISMAN_CONFIG = {
    "content_security_policy": {
        "base-uri": ["'self'"],
        "default-src": ["'self'"],
        "img-src": ["'self'", "blob:", "data:"],
        "worker-src": ["'self'", "blob:"],
        # Backgrounds of map charts, the one thing a browser may fetch elsewhere.
        "connect-src": ["'self'", *_TILES],
        "object-src": "'none'",
        "style-src": ["'self'", "'unsafe-inline'"],
        "script-src": ["'self'", "'strict-dynamic'"],
    },
    "content_security_policy_nonce_in": ["script-src"],
    # The proxy redirects plain HTTP, and decides on Strict-Transport-Security.
    "force_https": False,
    "strict_transport_security": False,
    "session_cookie_secure": True,
}
# The proxy limits attempts to log in, for all services alike. The storage is named to silence a warning.
RATELIMIT_ENABLED = False
AUTH_RATE_LIMITED = False
RATELIMIT_STORAGE_URI = "memory://"

# -- caches: files that all workers share; what must not be lost is in the database


def _cache(name: str, seconds: int) -> dict[str, Any]:
    if seconds == 0:  # to the library: for ever
        return {"CACHE_TYPE": "NullCache", "CACHE_NO_NULL_WARNING": True}
    return {
        "CACHE_TYPE": "FileSystemCache",
        "CACHE_DIR": str(_STATE / "cache" / name),
        "CACHE_THRESHOLD": 1000,
        "CACHE_DEFAULT_TIMEOUT": seconds,
    }


CACHE_DEFAULT_TIMEOUT = _VALUES["cache_s"]
CACHE_CONFIG = _cache("metadata", 3600)
DATA_CACHE_CONFIG = _cache("data", _VALUES["cache_s"])
STORE_CACHE_KEYS_IN_METADATA_DB = True

# -- queries: answered within the request, there is no queue

SUPERSET_WEBSERVER_TIMEOUT = _VALUES["query_timeout_s"]
SQLLAB_TIMEOUT = _VALUES["query_timeout_s"]
SQL_MAX_ROW = _VALUES["row_limit"]
ROW_LIMIT = min(50000, _VALUES["row_limit"])
TABLE_VIZ_MAX_ROW_SERVER = _VALUES["row_limit"]
NATIVE_FILTER_DEFAULT_ROW_LIMIT = min(1000, _VALUES["row_limit"])
FILTER_SELECT_ROW_LIMIT = min(10000, _VALUES["row_limit"])
DEFAULT_SQLLAB_LIMIT = min(1000, _VALUES["row_limit"])
DISPLAY_MAX_ROW = min(10000, _VALUES["row_limit"])
PREVENT_UNSAFE_DB_CONNECTIONS = True


class CELERY_CONFIG:  # noqa: N801 - Superset's name for it
    """No broker: reports, thumbnails and asynchronous queries are off."""

    broker_url = None
    result_backend = None
    imports = ()
    beat_schedule: dict[str, Any] = {}


# The package lacks the picture of its own spinner and logs that for each page.
_SPINNER = {"brandSpinnerUrl": "/static/assets/images/loading.gif"}
THEME_DEFAULT = {**_LIGHT, "token": {**_LIGHT["token"], **_SPINNER}}
THEME_DARK = {**_DARK, "token": {**_DARK["token"], **_SPINNER}}

FEATURE_FLAGS = {
    "ALERT_REPORTS": False,
    "ALLOW_FULL_CSV_EXPORT": False,
    "EMBEDDED_SUPERSET": False,
    "ENABLE_TEMPLATE_PROCESSING": False,
    "GLOBAL_ASYNC_QUERIES": False,
    "SQLLAB_BACKEND_PERSISTENCE": True,
    "SSH_TUNNELING": False,
    "THUMBNAILS": False,
}
