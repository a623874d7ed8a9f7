"""Several answers to one request (`n`): each is a job with its own hold, provider and receipt.

Streamed, they are interleaved as they come, told apart by index, and the first content of any of
them commits, or an early commit where one was asked for. Whole, none is concluded before each has
begun. The usage is the sum, because each of them is paid for.
"""

import asyncio
import math
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from typing import Any, final

import structlog
from darkbloom_edge.dialects.dialect import AnswerCollector, Dialect, Setting
from darkbloom_edge.errors import MalformedError
from darkbloom_edge.usage import Usage, usage_of

from darkbloom_gateway.answer import Answer
from darkbloom_gateway.bookkeeping import note_end, note_first
from darkbloom_gateway.errors import ApiError, ClientGoneError, internal, provider_failed
from darkbloom_gateway.facts import metadata_json
from darkbloom_gateway.heartbeat import STARTED
from darkbloom_gateway.manner import Manner
from darkbloom_gateway.model import KeyRecord
from darkbloom_gateway.presence import Presence
from darkbloom_gateway.prompt import Prompt
from darkbloom_gateway.reply import (
    GONE_STATUS,
    answer_headers,
    broken,
    feed,
    merged,
    proof_headers,
    render,
)
from darkbloom_gateway.stage import Stage
from darkbloom_gateway.wire import Receive, Send
from darkbloom_gateway.writer import Writer

_LEAST_BEAT_S = 0.05
"""Between two looks at a line that may have become silent."""
_log = structlog.get_logger()


@final
class Choices:
    """All answers to one request; for one use.

    Args:
        stage: collaborators of the token path.
        dialect: in which they are written.
        manner: how they are wanted.
        prompts: one per choice.
        key: who asks.
    """

    def __init__(
        self,
        stage: Stage,
        dialect: Dialect,
        manner: Manner,
        prompts: Sequence[Prompt],
        key: KeyRecord,
    ) -> None:
        self._stage = stage
        self._clock = stage.clock
        self._dialect = dialect
        self._manner = manner
        self._answers = [Answer(stage, key, prompt) for prompt in prompts]
        self._receipts = [b"null"] * len(self._answers)
        self._lead: Answer | None = None
        """The one that had content first."""
        self._kept: Setting | None = None
        self._turn = asyncio.Lock()
        self._started_at = self._clock.monotonic()
        self._written_at = self._started_at

    async def run(self, receive: Receive, send: Send) -> int:
        """Answer, and return the HTTP status for the meters; 0 where they were told already."""
        writer = Writer(send, self._stage.config.send_stall_s)
        try:
            async with Presence(receive, self):
                if self._manner.streams:
                    return await self._stream(writer)
                return await self._whole(writer)
        except ApiError as error:
            headers = [pair for answer in self._answers for pair in answer.rate_headers]
            error.headers = merged(headers, error.headers)
            raise
        finally:
            for answer in self._answers:
                answer.abort()

    def leave(self) -> None:
        """Note that the consumer left."""
        for answer in self._answers:
            answer.mailbox.leave()

    async def _whole(self, writer: Writer) -> int:
        begun = await self._all_begun()
        collectors: dict[int, AnswerCollector] = {}
        await self._together(lambda index: self._collect(index, begun[index], collectors))
        first, *others = (collectors[index] for index in sorted(collectors))
        try:
            body = first.whole(self._usage(), self._extras(), others)
        except MalformedError:
            raise provider_failed() from None
        lead = self._lead or self._answers[0]
        proof = proof_headers(lead, self._receipts[self._answers.index(lead)])
        await writer.whole(body, [*answer_headers(lead), *proof])
        return 200

    async def _stream(self, writer: Writer) -> int:
        try:
            await self._together(lambda index: self._pass_on(index, writer), self._beat(writer))
            stream = self._dialect.stream(self._setting())
            await writer.write(stream.closing(self._usage(), self._extras()), more=False)
        except ClientGoneError:
            self._stage.meters.client_gone(self._manner.build, committed=writer.started)
            return GONE_STATUS
        except ApiError as error:
            if not writer.started:
                raise
            return await self._break(writer, error)
        except Exception as error:
            if not writer.started:
                raise
            _log.error("stream_failed", attempt_id=self._setting().job, exc_info=error)
            return await self._break(writer, internal())
        return 200

    async def _together(
        self,
        serve: Callable[[int], Coroutine[Any, Any, None]],
        beside: Coroutine[Any, Any, None] | None = None,
    ) -> None:
        """Serve all choices at once; what ends one of them ends all, and what runs beside them."""
        try:
            async with asyncio.TaskGroup() as others:
                beating = others.create_task(beside, name="beat") if beside is not None else None
                async with asyncio.TaskGroup() as tasks:
                    for index in range(len(self._answers)):
                        tasks.create_task(serve(index), name=f"choice {index}")
                if beating is not None:
                    beating.cancel()
        except ExceptionGroup as group:
            raise _cause(group) from None

    async def _beat(self, writer: Writer) -> None:
        """Keep the line alive while every choice is silent, until cancelled.

        A stream begins here where the caller has asked for that before there is any answer.
        """
        config, clock = self._stage.config, self._clock
        comment = self._dialect.stream(self._manner.setting("", 0)).keep_alive
        if self._manner.early:
            await clock.sleep(config.early_commit_s)
            async with self._turn:
                if not writer.started:
                    await writer.start(STARTED)
                    await self._write(writer, comment)
        while True:
            silent_s = clock.monotonic() - self._written_at
            if not writer.started or silent_s < config.keepalive_s:
                await clock.sleep(max(config.keepalive_s - silent_s, _LEAST_BEAT_S))
                continue
            async with self._turn:
                await self._write(writer, comment)

    async def _write(self, writer: Writer, events: bytes) -> None:
        """Write while it is one's turn."""
        await writer.write(events)
        self._written_at = self._clock.monotonic()

    async def _all_begun(self) -> dict[int, float]:
        """Wait for the first content of every choice, and return when each came.

        Where one of them is refused, nothing of the others is delivered, so that nothing of them
        is paid for.
        """
        begun: dict[int, float] = {}

        async def begin(index: int) -> None:
            begun[index] = await self._begin(self._answers[index])

        try:
            await self._together(begin)
        except ClientGoneError:
            raise
        except Exception:
            for answer in self._answers:
                answer.disown()
            raise
        return begun

    async def _collect(
        self, index: int, first_at: float, collectors: dict[int, AnswerCollector]
    ) -> None:
        answer = self._answers[index]
        answer.resume()
        collector = collectors[index] = self._dialect.collector(self._setting(), index)
        while True:
            for delta in answer.take():
                feed(collector, delta)
            answer.passed_on()
            if answer.final:
                break
            await answer.more(math.inf)
        await self._conclude(index, first_at)

    async def _pass_on(self, index: int, writer: Writer) -> None:
        answer = self._answers[index]
        first_at = await self._begin(answer)
        stream = self._dialect.stream(self._setting(), index)
        events = render(stream, answer.take())
        async with self._turn:
            if not writer.started:
                await writer.start(answer_headers(answer))
            await self._write(writer, events)
        answer.passed_on()
        while not answer.final:
            await answer.more(math.inf)
            events = render(stream, answer.take())
            if events:
                async with self._turn:
                    await self._write(writer, events)
            answer.passed_on()
        await self._conclude(index, first_at)
        last = answer.winner.last
        async with self._turn:
            await self._write(writer, stream.ending(last, usage_of(last)))

    async def _begin(self, answer: Answer) -> float:
        """Wait for the first content of one choice, and return when it came."""
        await answer.begin()
        self._lead = self._lead or answer
        now = self._clock.monotonic()
        note_first(self._stage, self._manner.build, answer, now - self._started_at)
        return now

    async def _conclude(self, index: int, first_at: float) -> None:
        answer = self._answers[index]
        _, self._receipts[index] = await answer.conclude()
        now = self._clock.monotonic()
        note_end(
            self._stage.meters,
            self._manner.build,
            answer,
            total_s=now - self._started_at,
            content_s=now - first_at,
        )

    async def _break(self, writer: Writer, error: ApiError) -> int:
        """End a started stream with one error event, whichever choice is at fault."""
        try:
            stream = self._dialect.stream(self._setting())
            await writer.write(broken(stream, error), more=False)
        except ClientGoneError:
            return GONE_STATUS
        self._stage.spans.broke()
        self._stage.meters.outcome(self._manner.build, error.http_status, broken=True)
        return 0

    def _setting(self) -> Setting:
        """Return what all choices say about themselves: they go by the one that came first."""
        if self._kept is None:
            job = self._lead.job if self._lead is not None else ""
            self._kept = self._manner.setting(job, int(self._clock.now().timestamp()))
        return self._kept

    def _usage(self) -> Usage:
        counts = [usage_of(answer.winner.last) for answer in self._answers]
        return Usage(*map(sum, zip(*counts, strict=True)))

    def _extras(self) -> Mapping[str, bytes]:
        extras = {"receipts": b"[%b]" % b",".join(self._receipts)}
        if self._manner.metadata:
            told = [metadata_json(answer.winner, answer.timing) for answer in self._answers]
            extras["metadata"] = b"[%b]" % b",".join(told)
        return extras


def _cause(group: ExceptionGroup[Exception]) -> Exception:
    """Return what ended all choices: the consumer's leaving, else the first fault."""
    flat = list(_flat(group))
    gone = next((error for error in flat if isinstance(error, ClientGoneError)), None)
    told = next((error for error in flat if isinstance(error, ApiError)), None)
    return gone or told or flat[0]


def _flat(group: ExceptionGroup[Exception]) -> Iterator[Exception]:
    for error in group.exceptions:
        if isinstance(error, ExceptionGroup):
            yield from _flat(error)
        else:
            yield error
