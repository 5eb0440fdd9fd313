"""The HTTP interface: the protocol's paths, headers and errors."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Header, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel
from starlette.exceptions import HTTPException

from sharing_server import requests
from sharing_server.access import Caller, Gate
from sharing_server.catalog import Catalog, page, schema_json, share_json, table_json
from sharing_server.config import Settings
from sharing_server.deltalog import Logs
from sharing_server.errors import ApiError, invalid
from sharing_server.formats import Capabilities, encode, end_stream
from sharing_server.storage import Storage
from sharing_server.tables import Answer, Reader

_LOG = logging.getLogger("sharing_server")
_NDJSON = "application/x-ndjson; charset=utf-8"
_TABLE = "/shares/{share}/schemas/{schema}/tables/{table}"


class QueryBody(BaseModel):
    """Body of a query; keys that aren't known are ignored, as clients may be newer."""

    model_config = ConfigDict(alias_generator=to_camel)

    predicate_hints: list[str] = []
    json_predicate_hints: str | None = None
    limit_hint: int | None = None
    version: int | None = None
    timestamp: str | None = None
    starting_version: int | None = None
    ending_version: int | None = None
    max_files: int | None = None
    page_token: str | None = None
    include_refresh_token: bool | None = None
    refresh_token: str | None = None
    include_historical_protocol: bool | None = None

    def query(self) -> requests.Query:
        """As the tables take it."""
        values = {name: getattr(self, name) for name in type(self).model_fields}
        values["predicate_hints"] = tuple(self.predicate_hints)
        return requests.Query(**{name: value for name, value in values.items() if value is not None})


class ChangesQuery(BaseModel):
    """Query string of a request for changes."""

    model_config = ConfigDict(alias_generator=to_camel)

    starting_version: int | None = None
    starting_timestamp: str | None = None
    ending_version: int | None = None
    ending_timestamp: str | None = None
    max_files: int | None = None
    page_token: str | None = None
    historical_metadata: bool = Field(False, alias="includeHistoricalMetadata")
    historical_protocol: bool = Field(False, alias="includeHistoricalProtocol")

    def changes(self) -> requests.Changes:
        """As the tables take it."""
        return requests.Changes(**{name: getattr(self, name) for name in type(self).model_fields})


@dataclass(frozen=True)
class _Asked:
    """Headers of a request for data."""

    client: Capabilities
    file_ids: str | None


def _asked(
    delta_sharing_capabilities: Annotated[str | None, Header()] = None,
    fileidhash: Annotated[str | None, Header()] = None,
) -> _Asked:
    # Either value names the one scheme of ids there is here: they are the same in both formats.
    ids = None if fileidhash is None else fileidhash.strip().lower()
    if ids not in (None, "parquet", "delta"):
        raise invalid("fileidhash must be parquet or delta")
    return _Asked(Capabilities.parse(delta_sharing_capabilities), ids)


def _admitted(request: Request, authorization: Annotated[str | None, Header()] = None) -> Caller:
    gate: Gate = request.app.state.gate
    return gate.admit(authorization)


Who = Annotated[Caller, Depends(_admitted)]
MaxResults = Annotated[int | None, Query(alias="maxResults")]
PageToken = Annotated[str | None, Query(alias="pageToken")]
Headers = Annotated[_Asked, Depends(_asked)]


def create_app(settings: Settings, gate: Gate, storage: Storage, healthy: Callable[[], None]) -> FastAPI:
    """The application; ``healthy`` raises what keeps it from working."""
    app = FastAPI(openapi_url=None, redirect_slashes=False)
    catalog, logs = Catalog(settings.shares), Logs(storage, settings.table_cache)

    app.state.gate = gate
    api = APIRouter(prefix=settings.endpoint.rstrip("/"))

    def reader(caller: Caller, share: str, schema: str, table: str) -> Reader:
        found = catalog.table(caller.recipient, share, schema, table)
        return Reader(storage, logs, settings, found, f"{share}.{schema}.{table}".lower(), caller)

    @api.get("/shares")
    def list_shares(caller: Who, max_results: MaxResults = None, page_token: PageToken = None) -> Any:
        items = [share_json(share) for share in catalog.shares(caller.recipient)]
        return page(items, "shares", caller, max_results, page_token)

    @api.get("/shares/{share}")
    def get_share(caller: Who, share: str) -> Any:
        return {"share": share_json(catalog.share(caller.recipient, share))}

    @api.get("/shares/{share}/schemas")
    def list_schemas(
        caller: Who, share: str, max_results: MaxResults = None, page_token: PageToken = None
    ) -> Any:
        found = catalog.share(caller.recipient, share)
        items = [schema_json(found, schema) for schema in found.schemas]
        return page(items, f"schemas/{found.name}", caller, max_results, page_token)

    @api.get("/shares/{share}/schemas/{schema}/tables")
    def list_tables(
        caller: Who, share: str, schema: str, max_results: MaxResults = None, page_token: PageToken = None
    ) -> Any:
        parent, found = catalog.schema(caller.recipient, share, schema)
        items = [table_json(parent, found, table) for table in found.tables]
        return page(items, f"tables/{parent.name}/{found.name}", caller, max_results, page_token)

    @api.get("/shares/{share}/all-tables")
    def list_all_tables(
        caller: Who, share: str, max_results: MaxResults = None, page_token: PageToken = None
    ) -> Any:
        found = catalog.share(caller.recipient, share)
        items = [table_json(found, schema, table) for schema in found.schemas for table in schema.tables]
        return page(items, f"all-tables/{found.name}", caller, max_results, page_token)

    @api.get(f"{_TABLE}/version")
    @api.head(_TABLE)
    def version(
        caller: Who, share: str, schema: str, table: str,
        starting_timestamp: Annotated[str | None, Query(alias="startingTimestamp")] = None,
    ) -> Response:  # fmt: skip
        found = reader(caller, share, schema, table).version(starting_timestamp)
        return Response(headers={"Delta-Table-Version": str(found)})

    @api.get(f"{_TABLE}/metadata")
    def metadata(
        caller: Who, asked: Headers, share: str, schema: str, table: str,
        version: int | None = None, timestamp: str | None = None,
    ) -> Response:  # fmt: skip
        return _stream(reader(caller, share, schema, table).metadata(version, timestamp, asked.client), asked)

    @api.post(f"{_TABLE}/query")
    def query(caller: Who, asked: Headers, share: str, schema: str, table: str, body: QueryBody) -> Response:
        return _stream(reader(caller, share, schema, table).files(body.query(), asked.client), asked)

    @api.get(f"{_TABLE}/changes")
    def changes(
        caller: Who, asked: Headers, share: str, schema: str, table: str,
        wanted: Annotated[ChangesQuery, Query()],
    ) -> Response:  # fmt: skip
        return _stream(reader(caller, share, schema, table).changes(wanted.changes(), asked.client), asked)

    app.include_router(api)

    @app.get("/healthz", include_in_schema=False)
    def healthz(request: Request) -> Response:
        # For the probe inside the container; the proxy's requests come from elsewhere.
        if request.client is None or request.client.host not in ("127.0.0.1", "::1"):
            raise HTTPException(404)
        healthy()
        return Response("ok\n", media_type="text/plain")

    _errors(app)
    return app


def _stream(answer: Answer, asked: _Asked) -> Response:
    capabilities = f"responseformat={answer.format}"
    if asked.client.end_stream:
        capabilities += ";includeendstreamaction=true"
    headers = {"Delta-Table-Version": str(answer.version), "Delta-Sharing-Capabilities": capabilities}
    if asked.file_ids:
        headers["fileidhash"] = asked.file_ids
    # What is wrong with a request shows before the first file, while a status can still be sent.
    first = [line for _, line in zip(range(3), answer.lines, strict=False)]

    def lines() -> Iterator[bytes]:
        yield from map(encode, first)
        try:
            yield from map(encode, answer.lines)
        except ApiError as error:
            yield encode(end_stream(errorMessage=error.message))
        except Exception:
            _LOG.exception("an answer broke off")
            yield encode(end_stream(errorMessage="the server failed to list the files"))

    return StreamingResponse(lines(), media_type=_NDJSON, headers=headers)


def _errors(app: FastAPI) -> None:
    def answer(status: int, code: str, message: str, **headers: str) -> JSONResponse:
        return JSONResponse({"errorCode": code, "message": message}, status, headers)

    @app.exception_handler(ApiError)
    def known(request: Request, error: ApiError) -> Response:
        headers = {"WWW-Authenticate": "Bearer"} if error.status == 401 else {}
        return answer(error.status, error.code, error.message, **headers)

    @app.exception_handler(RequestValidationError)
    def validation(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:])
        code = "MALFORMED_REQUEST" if first["loc"][0] == "body" else "INVALID_PARAMETER_VALUE"
        return answer(400, code, f"{where}: {first['msg']}" if where else first["msg"])

    @app.exception_handler(HTTPException)
    def http(request: Request, error: HTTPException) -> Response:
        code = "RESOURCE_DOES_NOT_EXIST" if error.status_code == 404 else "MALFORMED_REQUEST"
        return answer(error.status_code, code, str(error.detail), **(error.headers or {}))

    @app.exception_handler(Exception)
    def unknown(request: Request, error: Exception) -> Response:
        # Logged with its traceback by the server; what it says is no business of the client.
        return answer(500, "INTERNAL_ERROR", "")
