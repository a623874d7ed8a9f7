"""`POST /v1/chat/completions`: the token path, as a raw ASGI endpoint.

Nothing is written before the first content exists; then status, headers and the first events
leave together. A stream ends with exactly one terminator: `[DONE]` after a verified terminal, or
one error event.
"""

import asyncio
import hashlib
from typing import final

import structlog
from darkbloom_edge.delta import Delta
from darkbloom_edge.dialects.chat import (
    DONE,
    ChatCollector,
    ChatStream,
    Lowered,
    error_event,
    lower,
    usage_of,
)
from darkbloom_edge.errors import MalformedError, RequestError

from darkbloom_gateway.answer import Answer
from darkbloom_gateway.auth import Authenticator
from darkbloom_gateway.errors import (
    ApiError,
    ClientGoneError,
    internal,
    provider_failed,
    unavailable,
)
from darkbloom_gateway.facts import metadata_json, provider_headers
from darkbloom_gateway.gate import Gate
from darkbloom_gateway.model import KeyRecord
from darkbloom_gateway.planning import make_plan
from darkbloom_gateway.presence import Presence
from darkbloom_gateway.prompt import THREAD_BYTES, Prompt
from darkbloom_gateway.self_route import read_route
from darkbloom_gateway.stage import Stage
from darkbloom_gateway.wire import (
    Headers,
    Message,
    Receive,
    Scope,
    Send,
    header,
    read_body,
    send_error,
    send_json,
)

KEEP_ALIVE = b": keep-alive\n\n"
GONE_STATUS = 499
_STREAM_HEADERS = (
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
)
_IN_BAND = ("provider_error", "timeout")
_log = structlog.get_logger()


@final
class ChatCompletions:
    """The endpoint.

    Args:
        stage: collaborators of the token path.
        authenticator: who asks.
        gate: counts what is in flight, and says no while draining.
    """

    def __init__(self, stage: Stage, authenticator: Authenticator, gate: Gate) -> None:
        self._stage = stage
        self._authenticator = authenticator
        self._gate = gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        self._stage.meters.received()
        model, status = "unknown", GONE_STATUS
        try:
            with self._gate.entered(), self._stage.spans.request(scope):
                with self._stage.spans.step("gateway.auth"):
                    key = await self._authenticator.authenticate(header(scope, b"authorization"))
                lowered, prompt = await self._read(scope, receive, key)
                model = prompt.plan.build
                reply = _Reply(self._stage, scope, lowered, prompt, key)
                status = await reply.run(receive, send)
        except ClientGoneError:
            self._stage.meters.client_gone(model, committed=False)
        except ApiError as error:
            status = error.http_status
            try:
                async with asyncio.timeout(self._stage.config.send_stall_s):
                    await send_error(send, error)
            except TimeoutError:
                status = GONE_STATUS
        if status:
            self._stage.meters.outcome(model, status)

    async def _read(self, scope: Scope, receive: Receive, key: KeyRecord) -> tuple[Lowered, Prompt]:
        config, clock = self._stage.config, self._stage.clock
        body = await read_body(
            scope, receive, limit=config.max_body_bytes, idle_s=config.body_idle_s
        )
        started_at = clock.monotonic()
        route, machine = read_route(scope["headers"], self_route_only=key.self_route_only)
        catalog = self._stage.shelf.catalog
        if catalog is None:
            raise unavailable("the model catalog is not here yet")
        try:
            if len(body) > THREAD_BYTES:
                lowered = await asyncio.to_thread(lower, body)
            else:
                lowered = lower(body)
            plan = make_plan(
                lowered,
                key,
                catalog,
                self._stage.tiers,
                default_bound=config.default_output_bound,
                now=clock.now(),
                route=route,
                machine=machine,
                hint_secret=self._stage.hint_secret,
            )
        except RequestError as error:
            raise ApiError(
                error.status, error.type, error.message, code=error.code, param=error.param
            ) from None
        self._stage.meters.phase("parse", clock.monotonic() - started_at)
        return lowered, Prompt(lowered, body, plan, catalog.builds)


@final
class _Reply:
    """Writes one answer, streamed or whole."""

    def __init__(
        self, stage: Stage, scope: Scope, lowered: Lowered, prompt: Prompt, key: KeyRecord
    ) -> None:
        self._stage = stage
        self._clock = stage.clock
        self._prompt = prompt
        self._build = prompt.plan.build
        self._streams = lowered.stream
        self._include_usage = lowered.include_usage
        self._metadata = lowered.metadata_details or _wants_metadata(scope)
        self._answer = Answer(stage, key, prompt)
        self._started_at = self._clock.monotonic()
        self._first_at = self._started_at

    async def run(self, receive: Receive, send: Send) -> int:
        """Answer, and return the HTTP status for the meters; 0 where they were told already."""
        answer = self._answer
        try:
            async with Presence(receive, answer.mailbox):
                await answer.begin()
                self._first_at = self._clock.monotonic()
                self._time_phases()
                if self._streams:
                    return await self._stream(send)
                return await self._whole(send)
        except ApiError as error:
            error.headers = _merged(answer.rate_headers, error.headers)
            raise
        finally:
            answer.abort()

    async def _whole(self, send: Send) -> int:
        answer, plan = self._answer, self._prompt.plan
        collector = ChatCollector(
            self._id(), self._created(), plan.requested_model, output_bound=plan.output_bound
        )
        while True:
            for delta in answer.take():
                _feed(collector, delta)
            answer.passed_on()
            if answer.final:
                break
            await answer.more(float("inf"))

        _, receipt = await answer.conclude()
        body = collector.body(usage_of(answer.winner.last), self._extras(receipt))
        proof = [
            (b"x-darkbloom-receipt-job-id", answer.winner.offer.attempt_id.encode("ascii")),
            (b"x-darkbloom-receipt-hash", hashlib.sha256(receipt).hexdigest().encode("ascii")),
        ]
        await self._send_whole(send, body, [*self._headers(), *proof])
        self._count()
        return 200

    async def _send_whole(self, send: Send, body: bytes, headers: Headers) -> None:
        try:
            async with asyncio.timeout(self._stage.config.send_stall_s):
                await send_json(send, 200, body, headers)
        except TimeoutError:
            raise ClientGoneError from None

    async def _stream(self, send: Send) -> int:
        """Write the events; once the first has left, every end is written here."""
        plan = self._prompt.plan
        stream = ChatStream(
            self._id(),
            self._created(),
            plan.requested_model,
            self._include_usage,
            output_bound=plan.output_bound,
        )
        started = False
        try:
            first = self._render(stream)
            await self._start(send)
            started = True
            await self._write(send, first)
            await self._pump(stream, send)
            last = self._answer.winner.last
            _, receipt = await self._answer.conclude()
            usage = usage_of(last)
            end = stream.finish(_without_content(last), usage, self._extras(receipt))
            await self._write(send, end + DONE, more=False)
        except ClientGoneError:
            self._stage.meters.client_gone(self._build, committed=True)
            return GONE_STATUS
        except ApiError as error:
            if not started:
                raise
            return await self._break(stream, send, error)
        except Exception as error:
            if not started:
                raise
            _log.error("stream_failed", attempt_id=self._id(), exc_info=error)
            return await self._break(stream, send, internal())
        self._count()
        return 200

    async def _pump(self, stream: ChatStream, send: Send) -> None:
        """Pass chunks on: one send per drained mailbox."""
        answer, clock = self._answer, self._clock
        keepalive_s = self._stage.config.keepalive_s
        answer.passed_on()
        written_at = clock.monotonic()
        while not answer.final:
            await answer.more(written_at + keepalive_s)
            events = self._render(stream)
            if not events and clock.monotonic() >= written_at + keepalive_s:
                events = KEEP_ALIVE
            if events:
                await self._write(send, events)
                written_at = clock.monotonic()
            answer.passed_on()

    async def _break(self, stream: ChatStream, send: Send, error: ApiError) -> int:
        """End a started stream with what is still unsent, and one error event."""
        kind = error.kind if error.kind in _IN_BAND else "provider_error"
        try:
            events = self._render(stream) + error_event(error.message, kind)
            await self._write(send, events, more=False)
        except (ClientGoneError, MalformedError):
            return GONE_STATUS
        self._stage.meters.outcome(self._build, error.http_status, broken=True)
        return 0

    def _render(self, stream: ChatStream) -> bytes:
        deltas = self._answer.take()
        if len(deltas) == 1:
            return stream.chunk(deltas[0])
        return b"".join([stream.chunk(delta) for delta in deltas])

    async def _start(self, send: Send) -> None:
        headers = [*_STREAM_HEADERS, *self._headers()]
        start = {"type": "http.response.start", "status": 200, "headers": headers}
        await self._within_patience(send, start)

    async def _write(self, send: Send, events: bytes, *, more: bool = True) -> None:
        body = {"type": "http.response.body", "body": events, "more_body": more}
        await self._within_patience(send, body)

    async def _within_patience(self, send: Send, message: Message) -> None:
        """Send; a consumer that does not read for too long counts as gone."""
        try:
            async with asyncio.timeout(self._stage.config.send_stall_s):
                await send(message)
        except TimeoutError:
            raise ClientGoneError from None

    def _headers(self) -> Headers:
        answer = self._answer
        headers = provider_headers(answer.winner, answer.timing)
        if answer.held_micros is not None:
            headers.append((b"x-hold-micro-usd", b"%d" % answer.held_micros))
        return [*headers, *answer.rate_headers]

    def _extras(self, receipt: bytes) -> dict[str, bytes]:
        extras = {"receipt": receipt}
        if self._metadata:
            extras["metadata"] = metadata_json(self._answer.winner, self._answer.timing)
        return extras

    def _id(self) -> str:
        return "chatcmpl-" + self._answer.winner.offer.attempt_id.partition("_")[2]

    def _created(self) -> int:
        return int(self._clock.now().timestamp())

    def _time_phases(self) -> None:
        meters, timing = self._stage.meters, self._answer.timing
        meters.first_content(self._build, self._first_at - self._started_at)
        meters.phase("reserve", timing.reserve_us / 1e6)
        meters.phase("route", timing.route_us / 1e6)
        meters.phase("encrypt", timing.encrypt_us / 1e6)
        meters.phase("queue_wait", timing.queue_us / 1e6)
        meters.phase("dispatch", timing.dispatch_us / 1e6)

    def _count(self) -> None:
        meters, last = self._stage.meters, self._answer.winner.last
        now = self._clock.monotonic()
        meters.phase("total", now - self._started_at)
        meters.tokens(
            self._build,
            prompt=last.prompt_tokens,
            cached=last.cached_tokens,
            completion=last.completion_tokens,
            reasoning=last.reasoning_tokens,
        )
        if last.completion_tokens > 1 and now > self._first_at:
            meters.decode_rate(self._build, (last.completion_tokens - 1) / (now - self._first_at))


def _feed(collector: ChatCollector, delta: Delta) -> None:
    try:
        collector.feed(delta)
    except MalformedError:
        raise provider_failed() from None


def _without_content(delta: Delta) -> Delta:
    """Return the final delta without what was written already."""
    return Delta(finish_reason=delta.finish_reason)


def _wants_metadata(scope: Scope) -> bool:
    asked = header(scope, b"x-darkbloom-metadata-details")
    return (asked or b"").lower() == b"true" or b"metadata=details" in scope["query_string"]


def _merged(first: Headers, second: Headers) -> tuple[tuple[bytes, bytes], ...]:
    return tuple({**dict(first), **dict(second)}.items())
