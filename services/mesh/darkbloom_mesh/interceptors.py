"""What happens around every call that a room serves, in one interceptor.

In order: the request id and trace context are adopted, the mesh token and, with certificates, the
caller's right to this method are checked (health excepted; once per call or lane), a unary call
must carry a deadline, the call is counted, a unary one is timed, and errors become statuses. A
`MeshError` goes out with its status, message and reason. Anything else is INTERNAL "internal error"
with the request id; its type and frames go to the log, its text goes nowhere.
"""

import asyncio
import hmac
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from time import perf_counter
from typing import Any, cast

import grpc
import structlog

from darkbloom_mesh import telemetry, tracing
from darkbloom_mesh.callers import MATRIX, ROOMS, flat
from darkbloom_mesh.context import REQUEST_ID_KEY, TOKEN_KEY, set_request_id
from darkbloom_mesh.errors import (
    DeadlineError,
    DrainingError,
    ForbiddenError,
    InternalError,
    MeshError,
    UnauthenticatedError,
    UnavailableError,
)
from darkbloom_mesh.tls import TlsFiles

Context = grpc.aio.ServicerContext[Any, Any]
"""The one name by which servicers annotate their context."""

MAX_DEADLINE_S = 120.0
_HEALTH = "/grpc.health.v1.Health/"
_KINDS: dict[tuple[bool, bool], Any] = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}
_log = structlog.get_logger()


class CallGuard(grpc.aio.ServerInterceptor):
    """Wraps each method once and keeps the wrapper, so a call costs no more than its checks.

    Args:
        mesh_token: What callers must bring; None checks nobody.
        metrics: Where served calls are counted.
        tls: Who tells rooms apart by certificate; None does not.
        callers: Rooms by method, with `tls`; None takes the mesh's own table.
    """

    def __init__(
        self,
        *,
        mesh_token: str | None,
        metrics: telemetry.Metrics | None = None,
        tls: TlsFiles | None = None,
        callers: Mapping[str, frozenset[str]] | None = None,
    ) -> None:
        self._tls = tls
        self._callers = flat(MATRIX) if callers is None else callers
        self._draining = False
        self._in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._token = mesh_token.encode() if mesh_token else None
        self._metrics = metrics
        # Quoted here and below: the class takes parameters in its stubs only.
        self._wrapped: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "grpc.RpcMethodHandler[Any, Any] | None":
        """Return the guarded handler of the method, or None where there is no such method."""
        method = handler_call_details.method
        if (known := self._wrapped.get(method)) is not None:
            return known
        handler: grpc.RpcMethodHandler[Any, Any] | None
        handler = await continuation(handler_call_details)
        if handler is None or method.startswith(_HEALTH):
            return handler
        self._wrapped[method] = guarded = self._wrap(method, handler)
        return guarded

    def _wrap(
        self, method: str, handler: "grpc.RpcMethodHandler[Any, Any]"
    ) -> "grpc.RpcMethodHandler[Any, Any]":
        streams = bool(handler.request_streaming), bool(handler.response_streaming)
        behaviour: Any = (
            handler.unary_unary
            or handler.unary_stream
            or handler.stream_unary
            or handler.stream_stream
        )
        unary = not any(streams)

        async def call(request: Any, context: Context) -> Any:
            async with _Guarded(self, method, context, unary=unary):
                return await behaviour(request, context)

        async def generate(request: Any, context: Context) -> AsyncIterator[Any]:
            async with _Guarded(self, method, context, unary=False):
                async for response in behaviour(request, context):
                    yield response

        guarded = generate if inspect.isasyncgenfunction(behaviour) else call
        serializers = handler.request_deserializer, handler.response_serializer
        wrapped: grpc.RpcMethodHandler[Any, Any] = _KINDS[streams](guarded, *serializers)
        return wrapped

    def refuse_new(self) -> None:
        """Answer calls that begin from now on with DRAINING."""
        self._draining = True

    async def idle(self) -> None:
        """Return once no call is in flight."""
        await self._idle.wait()

    def enter(self, method: str) -> None:
        """Count a call in.

        Raises:
            DrainingError: No more calls are taken.
        """
        self._in_flight += 1
        self._idle.clear()
        if self._metrics is not None:
            self._metrics.gauge(telemetry.RPC_IN_FLIGHT).labels(method.lstrip("/")).inc()
        if self._draining:
            raise DrainingError("this replica is draining")

    def leave(self, method: str, status: grpc.StatusCode, seconds: float | None) -> None:
        """Count a call out, and record it; a stream has no `seconds`.

        A watch that ends after a day would be a day of work in the minute of its end.
        """
        self._in_flight -= 1
        if self._in_flight == 0:
            self._idle.set()
        if self._metrics is None:
            return
        name = method.lstrip("/")
        self._metrics.counter(telemetry.RPC_SERVED).labels(name, status.name.lower()).inc()
        self._metrics.gauge(telemetry.RPC_IN_FLIGHT).labels(name).dec()
        if seconds is not None:
            self._metrics.histogram(telemetry.RPC_SECONDS).labels(name).observe(seconds)

    def check(self, metadata: dict[str, Any]) -> None:
        """Compare the mesh token in constant time.

        Raises:
            UnauthenticatedError: It is missing or another one.
        """
        if self._token is None:
            return
        given = metadata.get(TOKEN_KEY, "")
        if not isinstance(given, str) or not hmac.compare_digest(given.encode(), self._token):
            raise UnauthenticatedError("mesh token is missing or wrong")

    def authorise(self, method: str, context: Context) -> None:
        """Compare the caller's certificate with the row of the method.

        Raises:
            ForbiddenError: The caller is another room, or none of ours.
        """
        if self._tls is None:
            return
        caller = self._tls.caller(context.auth_context())
        if caller in self._callers.get(method, frozenset()):
            return
        named = caller if caller in ROOMS else telemetry.UNKNOWN
        _log.warning("caller_refused", method=method, caller=named)
        if self._metrics is not None:
            self._metrics.counter(telemetry.CALLERS_REFUSED).labels(method.lstrip("/"), named).inc()
        raise ForbiddenError("this caller may not call this method")


class _Guarded:
    """One call from its first check to its status."""

    def __init__(self, guard: CallGuard, method: str, context: Context, *, unary: bool) -> None:
        self._guard = guard
        self._method = method
        self._context = context
        self._unary = unary
        self._request_id = ""
        self._started_at = perf_counter()

    async def __aenter__(self) -> None:
        metadata = dict(self._context.invocation_metadata() or ())
        given = metadata.get(REQUEST_ID_KEY)
        self._request_id = set_request_id(given if isinstance(given, str) else None)
        tracing.adopt(metadata)
        try:
            self._guard.enter(self._method)
            self._guard.check(metadata)
            self._guard.authorise(self._method, self._context)
            self._check_deadline()
        except MeshError as error:
            await self._abort(error)

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None:
            # Unset until a handler sets it, whatever the stubs say.
            status = cast("grpc.StatusCode | None", self._context.code())
            self._leave(status or grpc.StatusCode.OK)
            return
        if isinstance(error, grpc.aio.AbortError):
            self._leave(grpc.StatusCode.UNKNOWN)
            return
        if isinstance(error, asyncio.CancelledError | GeneratorExit):
            # Mostly a caller that left or whose deadline passed: nothing here is unavailable.
            self._leave(grpc.StatusCode.CANCELLED)
            if isinstance(error, GeneratorExit):
                return
            # A handler that ends cancelled sends no status at all: its caller would wait for ever.
            stopped = UnavailableError("call was stopped")
            await self._context.abort(stopped.status, stopped.message, stopped.trailing_metadata())
        if isinstance(error, MeshError):
            await self._abort(error)
        _log.error("rpc_failed", method=self._method, exc_info=error)
        await self._abort(InternalError(metadata={"darkbloom-request-id": self._request_id}))

    def _check_deadline(self) -> None:
        if not self._unary:
            return
        remaining = self._context.time_remaining()
        if remaining is None:
            raise DeadlineError("call carries no deadline")
        if remaining > MAX_DEADLINE_S:
            raise DeadlineError("deadline is further away than a unary call may take")

    async def _abort(self, error: MeshError) -> None:
        self._leave(error.status)
        await self._context.abort(error.status, error.message, error.trailing_metadata())

    def _leave(self, status: grpc.StatusCode) -> None:
        seconds = perf_counter() - self._started_at if self._unary else None
        self._guard.leave(self._method, status, seconds)
