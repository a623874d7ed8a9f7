"""Writes one answer, streamed or whole, in whatever dialect it was asked for.

Nothing is written before the first content exists; then status, headers and the first events
leave together, unless the caller has asked for an early commit. A stream ends with exactly one
terminator: the dialect's own after a verified terminal, or one error event.
"""

import hashlib
from collections.abc import Mapping
from typing import final

import structlog
from darkbloom_edge.delta import Delta
from darkbloom_edge.dialects.dialect import AnswerCollector, AnswerStream, Dialect, Setting
from darkbloom_edge.errors import MalformedError
from darkbloom_edge.usage import usage_of

from darkbloom_gateway.answer import Answer
from darkbloom_gateway.bookkeeping import note_end, note_first
from darkbloom_gateway.errors import ApiError, ClientGoneError, internal, provider_failed
from darkbloom_gateway.facts import metadata_json, provider_headers
from darkbloom_gateway.heartbeat import Heartbeat
from darkbloom_gateway.manner import Manner
from darkbloom_gateway.model import KeyRecord
from darkbloom_gateway.presence import Presence
from darkbloom_gateway.prompt import Prompt
from darkbloom_gateway.stage import Stage
from darkbloom_gateway.wire import Headers, Receive, Send
from darkbloom_gateway.writer import Writer

GONE_STATUS = 499
_IN_BAND = ("provider_error", "timeout")
_log = structlog.get_logger()


@final
class Reply:
    """One answer; for one use."""

    def __init__(
        self, stage: Stage, dialect: Dialect, manner: Manner, prompt: Prompt, key: KeyRecord
    ) -> None:
        self._stage = stage
        self._clock = stage.clock
        self._dialect = dialect
        self._manner = manner
        self._answer = Answer(stage, key, prompt)
        self._started_at = self._clock.monotonic()
        self._first_at = self._started_at

    async def run(self, receive: Receive, send: Send) -> int:
        """Answer, and return the HTTP status for the meters; 0 where they were told already."""
        answer = self._answer
        writer = Writer(send, self._stage.config.send_stall_s)
        try:
            async with Presence(receive, answer.mailbox):
                if self._manner.early:
                    return await self._stream_early(writer)
                await self._begin()
                if self._manner.streams:
                    return await self._stream(writer)
                return await self._whole(writer)
        except ApiError as error:
            error.headers = merged(answer.rate_headers, error.headers)
            raise
        finally:
            answer.abort()

    async def _begin(self) -> None:
        await self._answer.begin()
        self._first_at = self._clock.monotonic()
        seconds = self._first_at - self._started_at
        note_first(self._stage, self._manner.build, self._answer, seconds)

    async def _whole(self, writer: Writer) -> int:
        answer = self._answer
        collector = self._dialect.collector(self._setting())
        while True:
            for delta in answer.take():
                feed(collector, delta)
            answer.passed_on()
            if answer.final:
                break
            await answer.more(float("inf"))

        _, receipt = await answer.conclude()
        try:
            body = collector.whole(usage_of(answer.winner.last), self._extras(receipt))
        except MalformedError:
            raise provider_failed() from None
        await writer.whole(body, [*answer_headers(answer), *proof_headers(answer, receipt)])
        self._note_end()
        return 200

    async def _stream_early(self, writer: Writer) -> int:
        """Stream to a caller who wants the line alive more than a true status."""
        config, answer = self._stage.config, self._answer
        stream = self._dialect.stream(self._setting())
        beat = Heartbeat(
            writer,
            answer.mailbox,
            self._clock,
            comment=stream.keep_alive,
            first_s=config.early_commit_s,
            then_s=config.keepalive_s,
        )
        try:
            async with beat:
                await self._begin()
        except ClientGoneError:
            if not writer.started:
                raise
            self._stage.meters.client_gone(self._manner.build, committed=True)
            return GONE_STATUS
        except ApiError as error:
            if not writer.started:
                raise
            return await self._break(stream, writer, error)
        return await self._stream(writer)

    async def _stream(self, writer: Writer) -> int:
        """Write the events; once the first has left, every end is written here."""
        answer = self._answer
        stream = self._dialect.stream(self._setting())
        try:
            first = render(stream, answer.take())
            if not writer.started:
                await writer.start(answer_headers(answer))
            await writer.write(first)
            await self._pump(stream, writer)
            last = answer.winner.last
            _, receipt = await answer.conclude()
            usage = usage_of(last)
            end = stream.ending(last, usage) + stream.closing(usage, self._extras(receipt))
            await writer.write(end, more=False)
        except ClientGoneError:
            self._stage.meters.client_gone(self._manner.build, committed=True)
            return GONE_STATUS
        except ApiError as error:
            if not writer.started:
                raise
            return await self._break(stream, writer, error)
        except Exception as error:
            if not writer.started:
                raise
            _log.error("stream_failed", attempt_id=answer.job, exc_info=error)
            return await self._break(stream, writer, internal())
        self._note_end()
        return 200

    async def _pump(self, stream: AnswerStream, writer: Writer) -> None:
        """Pass chunks on: one send per drained mailbox."""
        answer, clock = self._answer, self._clock
        keepalive_s = self._stage.config.keepalive_s
        answer.passed_on()
        written_at = clock.monotonic()
        while not answer.final:
            await answer.more(written_at + keepalive_s)
            events = render(stream, answer.take())
            if not events and clock.monotonic() >= written_at + keepalive_s:
                events = stream.keep_alive
            if events:
                await writer.write(events)
                written_at = clock.monotonic()
            answer.passed_on()

    async def _break(self, stream: AnswerStream, writer: Writer, error: ApiError) -> int:
        """End a started stream with what is still unsent, and one error event."""
        try:
            unsent = render(stream, self._answer.take())
            await writer.write(unsent + broken(stream, error), more=False)
        except (ClientGoneError, MalformedError):
            return GONE_STATUS
        self._stage.spans.broke()
        self._stage.meters.outcome(self._manner.build, error.http_status, broken=True)
        return 0

    def _setting(self) -> Setting:
        return self._manner.setting(self._answer.job, int(self._clock.now().timestamp()))

    def _extras(self, receipt: bytes) -> Mapping[str, bytes]:
        extras = {"receipt": receipt}
        if self._manner.metadata:
            extras["metadata"] = metadata_json(self._answer.winner, self._answer.timing)
        return extras

    def _note_end(self) -> None:
        now = self._clock.monotonic()
        note_end(
            self._stage.meters,
            self._manner.build,
            self._answer,
            total_s=now - self._started_at,
            content_s=now - self._first_at,
        )


def render(stream: AnswerStream, deltas: list[Delta]) -> bytes:
    """Render what was opened since the last time."""
    if len(deltas) == 1:
        return stream.chunk(deltas[0])
    return b"".join([stream.chunk(delta) for delta in deltas])


def feed(collector: AnswerCollector, delta: Delta) -> None:
    """Collect one delta.

    Raises:
        ApiError: 502: the provider sent something that is no part of an answer.
    """
    try:
        collector.feed(delta)
    except MalformedError:
        raise provider_failed() from None


def broken(stream: AnswerStream, error: ApiError) -> bytes:
    """Render the error that ends a stream; there are two kinds of it."""
    return stream.broken(error.message, error.kind if error.kind in _IN_BAND else "provider_error")


def answer_headers(answer: Answer) -> Headers:
    """Return what the headers of a response say about an answer that has begun."""
    headers = provider_headers(answer.winner, answer.timing)
    if answer.held_micros is not None:
        headers.append((b"x-hold-micro-usd", b"%d" % answer.held_micros))
    return [*headers, *answer.rate_headers]


def proof_headers(answer: Answer, receipt: bytes) -> Headers:
    """Return what the headers of a whole response say about its receipt."""
    return [
        (b"x-darkbloom-receipt-job-id", answer.winner.offer.attempt_id.encode("ascii")),
        (b"x-darkbloom-receipt-hash", hashlib.sha256(receipt).hexdigest().encode("ascii")),
    ]


def merged(first: Headers, second: Headers) -> tuple[tuple[bytes, bytes], ...]:
    """Return headers of both; those of the second win."""
    return tuple({**dict(first), **dict(second)}.items())
