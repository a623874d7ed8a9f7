"""Transports that make a stock SDK's requests end-to-end encrypted.

    OpenAI(base_url=…, api_key=…, http_client=sealed_client(httpx2.Client, policy))

What the SDK believes to send to the gateway is lowered, sealed and opened in this process. Requests
without a body pass as they are; any other is refused before it leaves.
"""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from types import TracebackType
from typing import Any, Self, final

import httpx
from darkbloom_edge.dialects.dialect import Dialect

from darkbloom_client.clock import Clock, SystemClock
from darkbloom_client.desk import Desk
from darkbloom_client.exchange import Body, exchange
from darkbloom_client.flavour import Flavour
from darkbloom_client.paths import DIALECTS, dialect_of, require_private_line, sent_headers
from darkbloom_client.policy import Policy
from darkbloom_client.refusal import RefusedError
from darkbloom_client.shapes import refusal
from darkbloom_client.steps import (
    MAX_REPLY_BYTES,
    Begin,
    Call,
    Emit,
    Flow,
    LineBrokenError,
    Open,
    Read,
    Reply,
    Shut,
    Wait,
)

CONNECT_S, READ_S, WRITE_S = 10.0, 660.0, 60.0
"""Where the caller sets no times of his own."""
_TIMES = {"connect": CONNECT_S, "read": READ_S, "write": WRITE_S, "pool": CONNECT_S}
_OK = 200


@final
class Transport(httpx.BaseTransport):
    """Seals what goes through it. Safe to share between threads; works in `httpx2` clients too.

    Args:
        policy: who may read a prompt.
        inner: what carries the sealed requests; the library's own where None.
        clock: tells the age of evidence.
    """

    def __init__(self, policy: Policy, *, inner: Any = None, clock: Clock | None = None) -> None:
        self._desk = Desk(policy, clock or SystemClock())
        self._given = inner
        self._own: dict[str, Any] = {}
        self._lock = threading.Lock()

    def handle_request(self, request: Any) -> Any:
        """Answer one request, in the flavour in which it was asked."""
        inner = self._carrier(request)
        try:
            sealed = _sealed(request)
        except RefusedError as error:
            return _refused(request, error)
        content = request.read()
        if sealed is None:
            return _unless_content(request, content) or inner.handle_request(request)
        run = _SyncRun(request, inner, _flow(request, content, self._desk, sealed[0]), sealed[0])
        return run.response()

    def close(self) -> None:
        """Close the connections."""
        for inner in (self._given, *self._own.values()):
            if inner is not None:
                inner.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None = None,
        value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        self.close()

    def _carrier(self, request: Any) -> Any:
        """Return what carries requests of this library."""
        if self._given is not None:
            return self._given
        name = Flavour.name_of(request)
        with self._lock:
            if name not in self._own:
                self._own[name] = Flavour.inner(request, asynchronous=False)
            return self._own[name]


@final
class AsyncTransport(httpx.AsyncBaseTransport):
    """The same for event loops; see `Transport`."""

    def __init__(self, policy: Policy, *, inner: Any = None, clock: Clock | None = None) -> None:
        self._desk = Desk(policy, clock or SystemClock())
        self._given = inner
        self._own: dict[str, Any] = {}

    async def handle_async_request(self, request: Any) -> Any:
        """Answer one request, in the flavour in which it was asked."""
        inner = self._carrier(request)
        try:
            sealed = _sealed(request)
        except RefusedError as error:
            return _refused(request, error)
        content = await request.aread()
        if sealed is None:
            refused = _unless_content(request, content)
            return refused or await inner.handle_async_request(request)
        flow = _flow(request, content, self._desk, sealed[0])
        return await _AsyncRun(request, inner, flow, sealed[0]).response()

    async def aclose(self) -> None:
        """Close the connections."""
        for inner in (self._given, *self._own.values()):
            if inner is not None:
                await inner.aclose()

    def _carrier(self, request: Any) -> Any:
        """Return what carries requests of this library."""
        if self._given is not None:
            return self._given
        name = Flavour.name_of(request)
        if name not in self._own:
            self._own[name] = Flavour.inner(request, asynchronous=True)
        return self._own[name]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None = None,
        value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        await self.aclose()


def _sealed(request: Any) -> tuple[str, Dialect] | None:
    """Return how a request is sealed, None where it passes; errors as of `paths`."""
    require_private_line(request.url.scheme, request.url.host)

    return dialect_of(request.method, request.url.path)


def _flow(request: Any, content: bytes, desk: Desk, prefix: str) -> Flow[None]:
    path = request.url.path.removeprefix(prefix)
    headers = [(name.lower(), value) for name, value in request.headers.items()]

    return exchange(Body(path, DIALECTS[path], content, sent_headers(headers)), desk)


def _refused(request: Any, error: RefusedError) -> Any:
    status, headers, content = refusal(request.url.path, error)
    return Flavour(request).response(status, headers=headers, content=content)


def _unless_content(request: Any, content: bytes) -> Any:
    """Refuse a body where none belongs."""
    if not content:
        return None
    try:
        dialect_of("POST", "")
    except RefusedError as error:
        return _refused(request, error)
    return None


class _Run:
    """What both ways of doing a flow's I/O have in common."""

    def __init__(self, request: Any, inner: Any, flow: Flow[None], prefix: str) -> None:
        self._flavour = Flavour(request)
        self._asked = request
        self._inner = inner
        self._flow = flow
        self._prefix = prefix
        self._opened: Any = None
        times = {**_TIMES, **{k: v for k, v in self._given_times().items() if v is not None}}
        self._extensions = {"timeout": times}

    def _given_times(self) -> dict[str, float | None]:
        return dict(self._asked.extensions.get("timeout") or {})

    def _request(self, call: Call | Open) -> Any:
        path, _, query = call.path.partition("?")
        url = self._asked.url.copy_with(
            path=self._prefix + path, query=query.encode() or None, fragment=None
        )
        return self._flavour.request(
            call.method,
            url,
            headers=[*call.headers, ("user-agent", "darkbloom-client")],
            content=call.content or None,
            extensions=self._extensions,
        )

    def _reply(self, response: Any, content: bytes) -> Reply:
        headers = {name.lower(): value for name, value in response.headers.items()}
        return Reply(response.status_code, headers, content)

    def _made(self, begin: Begin, stream: Any) -> Any:
        return self._flavour.response(
            begin.status, headers=begin.headers, stream=stream, request=self._asked
        )


@final
class _SyncRun(_Run):
    """Does the I/O of one flow."""

    def response(self) -> Any:
        """Run to the beginning of the response; the rest runs while it is read."""
        try:
            step: Any = next(self._flow)
            while not isinstance(step, Begin):
                step = self._next(step)
        except BaseException:
            self._close()
            raise
        return self._made(step, self._flavour.sync_stream(self._rest(), self._close))

    def _rest(self) -> Iterator[bytes]:
        try:
            step: Any = self._flow.send(None)
            while True:
                if isinstance(step, Emit):
                    yield step.data
                    step = self._flow.send(None)
                else:
                    step = self._next(step)
        except StopIteration:
            return
        finally:
            self._close()

    def _next(self, step: Any) -> Any:
        """Do a step and return the one that follows."""
        match step:
            case Call() | Open():
                return self._flow.send(self._call(step))
            case Read():
                try:
                    data = next(self._pieces, b"")
                except self._flavour.transport_error as error:
                    return self._flow.throw(LineBrokenError(type(error).__name__))
                return self._flow.send(data)
            case Wait():
                time.sleep(step.seconds)
            case Shut():
                self._shut()
        return self._flow.send(None)

    def _call(self, step: Call | Open) -> Reply:
        response = self._inner.handle_request(self._request(step))
        if isinstance(step, Open) and response.status_code == _OK:
            self._shut()
            self._opened = response
            self._pieces = filter(None, response.stream)
            return self._reply(response, b"")
        try:
            content = b"".join(_bounded(response.stream))
        finally:
            response.close()
        return self._reply(response, content)

    def _shut(self) -> None:
        opened, self._opened = self._opened, None
        if opened is not None:
            opened.close()

    def _close(self) -> None:
        self._flow.close()
        self._shut()


@final
class _AsyncRun(_Run):
    """Does the I/O of one flow on an event loop."""

    async def response(self) -> Any:
        """Run to the beginning of the response; the rest runs while it is read."""
        try:
            step: Any = next(self._flow)
            while not isinstance(step, Begin):
                step = await self._next(step)
        except BaseException:
            await self._close()
            raise
        return self._made(step, self._flavour.async_stream(self._rest(), self._close))

    async def _rest(self) -> AsyncIterator[bytes]:
        try:
            step: Any = self._send(None)
            while step is not None:
                if isinstance(step, Emit):
                    yield step.data
                    step = self._send(None)
                else:
                    step = await self._next(step)
        finally:
            await self._close()

    async def _next(self, step: Any) -> Any:
        """Do a step and return the one that follows; None at the end."""
        match step:
            case Call() | Open():
                return self._send(await self._call(step))
            case Read():
                try:
                    data = await anext(self._pieces, b"")
                except self._flavour.transport_error as error:
                    return self._after(self._flow.throw, LineBrokenError(type(error).__name__))
                return self._send(data)
            case Wait():
                await asyncio.sleep(step.seconds)  # noqa: TID251 - a client has no clock of the mesh
            case Shut():
                await self._shut()
        return self._send(None)

    def _send(self, value: Any) -> Any:
        return self._after(self._flow.send, value)

    @staticmethod
    def _after(go_on: Callable[[Any], Any], value: Any) -> Any:
        try:
            return go_on(value)
        except StopIteration:
            return None

    async def _call(self, step: Call | Open) -> Reply:
        response = await self._inner.handle_async_request(self._request(step))
        if isinstance(step, Open) and response.status_code == _OK:
            await self._shut()
            self._opened = response
            self._pieces = _filled(response.stream)
            return self._reply(response, b"")
        size, parts = 0, []
        try:
            async for part in response.stream:
                size += len(part)
                if size > MAX_REPLY_BYTES:
                    break
                parts.append(part)
        finally:
            await response.aclose()
        return self._reply(response, b"".join(parts))

    async def _shut(self) -> None:
        opened, self._opened = self._opened, None
        if opened is not None:
            await opened.aclose()

    async def _close(self) -> None:
        self._flow.close()
        await self._shut()


def _bounded(stream: Any) -> Iterator[bytes]:
    """Read no more than any reply may have; what is cut is then not what it must be."""
    size = 0
    for part in stream:
        size += len(part)
        if size > MAX_REPLY_BYTES:
            return
        yield part


async def _filled(stream: Any) -> AsyncIterator[bytes]:
    async for part in stream:
        if part:
            yield part
