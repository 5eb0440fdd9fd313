"""The provider's gRPC server: Pulumi's protocol on one side, :class:`Resource` on the other."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable
from concurrent import futures
from functools import wraps
from typing import Any, TypeVar

import grpc
from docker.errors import DockerException
from google.protobuf import empty_pb2
from google.protobuf.struct_pb2 import Struct
from pulumi.runtime import rpc
from pulumi.runtime.proto import (
    engine_pb2,
    engine_pb2_grpc,
    plugin_pb2,
    provider_pb2,
    provider_pb2_grpc,
)
from requests.exceptions import RequestException
from typing_extensions import override
from urllib3.exceptions import HTTPError

from millrace import VERSION
from millrace.engine import Engine, EngineError, HostSettings, reason
from millrace.former import Former
from millrace.host import HostReady
from millrace.image import Image
from millrace.job import Job
from millrace.kept import Kept
from millrace.network import Network
from millrace.ready import Ready
from millrace.resources import Call, Resource, ResourceError
from millrace.volume_owner import VolumeOwner

# Each call may wait for a container; the engine sends as many at once as its --parallel allows.
_WORKERS = 64
_PARENT_S = 2.0
# A line that breaks more often in the course of one resource will not do.
_BREAKS = 4
# Job files and log tails exceed gRPC's 4 MiB only in theory, but a refused message is a poor error.
_OPTIONS = [("grpc.max_receive_message_length", 64 * 1024 * 1024)]

RESOURCES: dict[str, Resource] = {
    r.type_token: r
    for r in (Image(), Ready(), Job(), Network(), VolumeOwner(), Former(), Kept(), HostReady())
}

_Result = TypeVar("_Result")


def _plain(struct: Struct) -> dict[str, Any]:
    """A message's properties as plain Python values. The engine sends no secrets: they are not accepted."""
    return {k: rpc.unwrap_rpc_secret(v) for k, v in rpc.deserialize_properties(struct).items()}


def _struct(values: dict[str, Any]) -> Struct:
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(rpc.serialize_properties(values, {}))
    finally:
        loop.close()


def _readable(method: Callable[..., _Result]) -> Callable[..., _Result]:
    """Ends a call with the error's own message; an unforeseen one also says where it came from."""

    @wraps(method)
    def wrapper(self: Any, request: Any, context: grpc.ServicerContext) -> _Result:
        try:
            return method(self, request, context)
        except (ResourceError, EngineError) as error:
            context.abort(grpc.StatusCode.UNKNOWN, str(error))
        except (DockerException, RequestException, HTTPError) as error:
            name = getattr(request, "urn", "").rpartition("::")[2] or "millrace"
            context.abort(grpc.StatusCode.UNKNOWN, f"{name}: {self.engine_error(error)}")
        except Exception as error:
            frame = error.__traceback__
            while frame is not None and frame.tb_next is not None:
                frame = frame.tb_next
            where = f"{frame.tb_frame.f_code.co_filename}:{frame.tb_lineno}" if frame else "unknown place"
            context.abort(grpc.StatusCode.UNKNOWN, f"{type(error).__name__}: {error} (at {where})")
        raise AssertionError("context.abort returned")

    return wrapper


class Servicer(provider_pb2_grpc.ResourceProviderServicer):
    """Serves the resources of :data:`RESOURCES` against one Docker engine, set by the provider's config."""

    def __init__(self, engine_address: str | None) -> None:
        self._log = (
            engine_pb2_grpc.EngineStub(grpc.insecure_channel(engine_address)) if engine_address else None
        )
        self._docker: Engine | None = None
        self._cancelled = threading.Event()

    def close(self) -> None:
        """Remove what the connection to the Docker engine left in the file system."""
        if self._docker is not None:
            self._docker.close()

    def engine_error(self, error: Exception) -> str:
        """An error of the engine's client as the user should read it."""
        why = self._docker.reason(error) if self._docker else reason(error)
        return f"Docker engine: {why}"

    # -- configuration

    @override
    def CheckConfig(self, request: Any, context: Any) -> Any:
        return provider_pb2.CheckResponse(inputs=request.news)

    @override
    def DiffConfig(self, request: Any, context: Any) -> Any:
        return _diff(request.old_inputs, request.news)

    @override
    @_readable
    def Configure(self, request: Any, context: Any) -> Any:
        args = _plain(request.args)
        self._docker = Engine(HostSettings.from_props(args))
        # The Docker provider logs in with it as well, maybe before any resource of this one is asked for.
        self._docker.place_key()
        return provider_pb2.ConfigureResponse(acceptSecrets=False, supportsPreview=False)

    @override
    def GetPluginInfo(self, request: Any, context: Any) -> Any:
        return plugin_pb2.PluginInfo(version=VERSION)

    @override
    def GetSchema(self, request: Any, context: Any) -> Any:
        return provider_pb2.GetSchemaResponse(schema=f'{{"name":"millrace","version":"{VERSION}"}}')

    @override
    def Cancel(self, request: Any, context: Any) -> Any:
        self._cancelled.set()
        return empty_pb2.Empty()

    # -- resources

    @override
    def Check(self, request: Any, context: Any) -> Any:
        return provider_pb2.CheckResponse(inputs=request.news)

    @override
    @_readable
    def Diff(self, request: Any, context: Any) -> Any:
        resource = _resource(request.urn)
        return _diff(request.old_inputs, request.news, resource.replace_on, resource.ignore)

    @override
    @_readable
    def Create(self, request: Any, context: Any) -> Any:
        call, props = self._call(request.urn), _plain(request.properties)
        id_, outs = _persist(call, lambda: _resource(request.urn).create(call, props))
        return provider_pb2.CreateResponse(id=id_, properties=_struct(outs))

    @override
    @_readable
    def Update(self, request: Any, context: Any) -> Any:
        call, news, olds = self._call(request.urn), _plain(request.news), _plain(request.olds)
        outs = _persist(call, lambda: _resource(request.urn).update(call, request.id, news, olds))
        return provider_pb2.UpdateResponse(properties=_struct(outs))

    @override
    @_readable
    def Read(self, request: Any, context: Any) -> Any:
        props = _plain(request.properties)
        outs = _resource(request.urn).read(self._call(request.urn), request.id, props)
        if outs is None:
            return provider_pb2.ReadResponse()
        return provider_pb2.ReadResponse(id=request.id, properties=_struct(outs), inputs=request.inputs)

    @override
    @_readable
    def Delete(self, request: Any, context: Any) -> Any:
        call, props = self._call(request.urn), _plain(request.properties)
        _persist(call, lambda: _resource(request.urn).delete(call, request.id, props))
        return empty_pb2.Empty()

    def _call(self, urn: str) -> Call:
        if self._docker is None:
            raise ResourceError("the millrace provider was called before it was configured")
        return Call(
            engine=self._docker,
            progress=lambda text: self._say(urn, text),
            cancelled=self._cancelled,
            warn=lambda text: self._say(urn, text, warning=True),
        )

    def _say(self, urn: str, text: str, *, warning: bool = False) -> None:
        if self._log is None:
            return
        severity = engine_pb2.WARNING if warning else engine_pb2.INFO
        # Progress is for the reader only: an engine that is already leaving must not fail the call.
        with contextlib.suppress(grpc.RpcError):
            message = engine_pb2.LogRequest(severity=severity, message=text, urn=urn, ephemeral=not warning)
            self._log.Log(message, timeout=5)


def _persist(call: Call, work: Callable[[], _Result]) -> _Result:
    """Do it, again when the connection broke meanwhile: what a resource does may be done twice.

    The next update would do the same with what this one left behind.
    """
    for _ in range(_BREAKS):
        try:
            return work()
        except (DockerException, RequestException, HTTPError) as error:
            if not call.engine.may_come_back(error):
                raise
        call.warn("the SSH connection broke: started anew")
        call.engine.await_back()
    return work()


def _resource(urn: str) -> Resource:
    type_ = urn.split("::")[2].split("$")[-1]
    try:
        return RESOURCES[type_]
    except KeyError:
        raise ResourceError(f"unknown resource type {type_!r}") from None


def _diff(
    olds: Struct, news: Struct, replace_on: frozenset[str] = frozenset(), ignore: frozenset[str] = frozenset()
) -> Any:
    keys = sorted(
        key
        for key in set(olds.fields) | set(news.fields)
        if not key.startswith("__") and key not in ignore and olds.fields.get(key) != news.fields.get(key)
    )
    if not keys:
        return provider_pb2.DiffResponse(changes=provider_pb2.DiffResponse.DIFF_NONE)
    return provider_pb2.DiffResponse(
        changes=provider_pb2.DiffResponse.DIFF_SOME,
        diffs=keys,
        replaces=[key for key in keys if key in replace_on],
        deleteBeforeReplace=True,
    )


def serve(engine_address: str | None) -> None:
    """Listen on a free port of the loopback address, print it, and serve until the engine says stop.

    The engine runs each plugin in a process group of its own, so that Ctrl-C at the terminal does not reach
    it, and says stop with SIGINT; one that lingers holds up the end of every update for ten seconds.
    """
    stop = threading.Event()
    # Handlers, not a blocked mask: programs that are started here (ssh) would inherit that.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    parent = os.getppid()
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=_WORKERS), options=_OPTIONS)
    servicer = Servicer(engine_address)
    provider_pb2_grpc.add_ResourceProviderServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    # An engine that was killed says nothing: its plugins become somebody else's children.
    while not stop.wait(_PARENT_S) and os.getppid() == parent:
        pass
    server.stop(grace=None)
    servicer.close()
    # Calls still waiting for a container must not keep the process: the engine has given up on them.
    os._exit(0)
