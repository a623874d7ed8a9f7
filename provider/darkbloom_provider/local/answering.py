"""Answers a body of any dialect from the engine: streamed or in one piece, one choice or several.

Nothing is written before the first content exists, so that whatever fails until then is a clean
JSON error. After it a stream ends exactly once: with the dialect's end, or with one error chunk.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Final, final

from darkbloom_edge.delta import Delta
from darkbloom_edge.dialects.chat import Chat
from darkbloom_edge.dialects.chat_request import Lowered
from darkbloom_edge.dialects.completions import Completions
from darkbloom_edge.dialects.dialect import AnswerCollector, AnswerStream, Dialect, Setting
from darkbloom_edge.errors import MalformedError, RequestError
from darkbloom_edge.strict_json import json_text
from darkbloom_edge.usage import Usage, usage_of
from darkbloom_mesh.clock import Clock

from darkbloom_provider.engine.errors import EngineError
from darkbloom_provider.engine.interface import Job, OutcomeKind
from darkbloom_provider.local.errors import (
    GoneError,
    LocalError,
    bad_request,
    model_not_found,
    of_engine,
    of_request,
)
from darkbloom_provider.local.pipe import Pipe
from darkbloom_provider.local.wire import Headers, Receive, Send, send_json
from darkbloom_provider.shift import Kitchen

DEFAULT_MAX_TOKENS: Final = 4096
"""Output bound of a request that names none."""
SILENCE_S: Final = 600.0
"""Longest wait for the engine's next word."""
KEEP_ALIVE_S: Final = 15.0
"""A stream that has begun and is silent for so long gets a comment."""
_NO_BOUND = 2**31
_BROKEN_CHOICES: Final = {
    Chat: ("chatcmpl-", b"chat.completion.chunk", b'"delta":{}'),
    Completions: ("cmpl-", b"text_completion", b'"text":"","logprobs":null'),
}
"""Id's prefix, object and empty choice of dialects whose streams are made of choices."""
_EVENT_STREAM = (
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Exchange:
    """One HTTP exchange, as far as an answer needs it."""

    receive: Receive
    send: Send
    headers: Headers
    """Sent with every answer."""


@final
class Answerer:
    """Answers requests of one kitchen.

    Args:
        kitchen: engine, loads and builds.
        clock: dates answers and prompts.
        new_id: draws the id of a job, without prefix.
        scope: of the prefix cache; 32 bytes.
    """

    def __init__(
        self, kitchen: Kitchen, clock: Clock, new_id: Callable[[], str], scope: bytes
    ) -> None:
        self._kitchen = kitchen
        self._clock = clock
        self._new_id = new_id
        self._scope = scope

    async def answer(self, dialect: Dialect, body: bytes, exchange: Exchange) -> None:
        """Answer one body.

        Raises:
            LocalError: nothing was written yet, and this is why.
            GoneError: whoever asked has left.
        """
        try:
            lowered = dialect.lower(body)
        except RequestError as error:
            raise of_request(error) from None
        if lowered.requested_model not in self._kitchen.hosted:
            raise model_not_found()
        if lowered.remote:
            raise bad_request("nothing is fetched here, use a data: url", lowered.remote[0].param)
        bound = lowered.explicit_output_bound or DEFAULT_MAX_TOKENS
        job = self._new_id()
        now = self._clock.now()
        setting = Setting(
            job=job,
            created=int(now.timestamp()),
            model=lowered.requested_model,
            include_usage=lowered.include_usage,
            output_bound=bound,
            echo=lowered.echo,
        )
        ready, gone = asyncio.Event(), asyncio.Event()
        pipes: list[Pipe] = []
        failure: LocalError | GoneError | None = None
        async with asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(_watch(exchange.receive, ready, gone), name="local.watch")
            try:
                await self._submit(lowered, job, bound, now.strftime("%Y-%m-%d"), ready, pipes)
                work = _Answer(dialect, setting, exchange, pipes, ready, gone)
                await (work.stream() if lowered.stream else work.whole())
            except (LocalError, GoneError) as error:
                failure = error
            finally:
                watching.cancel()
                for pipe in pipes:
                    pipe.cancel()
        if failure is not None:
            raise failure

    async def _submit(
        self,
        lowered: Lowered,
        job: str,
        bound: int,
        today: str,
        ready: asyncio.Event,
        pipes: list[Pipe],
    ) -> None:
        kitchen = self._kitchen
        build = lowered.requested_model
        try:
            async with AsyncExitStack() as stack:
                await stack.enter_async_context(kitchen.loads.held(build))
                for number, (prompt, choice) in enumerate(lowered.jobs):
                    job_id = f"local_{job}_{number}"
                    pipe = Pipe(kitchen.engine, job_id, ready)
                    request = prompt.to_request(build, bound, today, choice)
                    await kitchen.engine.submit(
                        Job(
                            job_id=job_id,
                            build_id=build,
                            request=request,
                            prompt_bound=_NO_BOUND,
                            output_bound=bound,
                            cache_scope=self._scope,
                        ),
                        pipe,
                    )
                    pipes.append(pipe)
        except EngineError as error:
            raise of_engine(error) from None


@final
class _Answer:
    """One answer while it is written."""

    def __init__(
        self,
        dialect: Dialect,
        setting: Setting,
        exchange: Exchange,
        pipes: Sequence[Pipe],
        ready: asyncio.Event,
        gone: asyncio.Event,
    ) -> None:
        self._dialect = dialect
        self._setting = setting
        self._exchange = exchange
        self._pipes = pipes
        self._ready = ready
        self._gone = gone
        self._begun = False

    async def whole(self) -> None:
        collectors = [self._dialect.collector(self._setting, n) for n in range(len(self._pipes))]
        try:
            while not all(pipe.ended for pipe in self._pipes):
                await self._news()
                for pipe, collector in zip(self._pipes, collectors, strict=True):
                    _collect(pipe, collector)
            body = collectors[0].whole(self._usage(), {}, collectors[1:])
        except MalformedError:
            raise _broken() from None
        await send_json(self._exchange.send, body, headers=self._exchange.headers)

    async def stream(self) -> None:
        streams = [self._dialect.stream(self._setting, n) for n in range(len(self._pipes))]
        try:
            while not all(pipe.ended for pipe in self._pipes):
                await self._news(streams[0].keep_alive)
                for pipe, stream in zip(self._pipes, streams, strict=True):
                    await self._advance(pipe, stream)
            await self._write(streams[0].closing(self._usage(), {}), more=False)
        except (LocalError, MalformedError) as error:
            failed = error if isinstance(error, LocalError) else _broken()
            if not self._begun:
                raise failed from None
            await self._write(self._error_chunk(failed, streams[0]), more=False)

    async def _advance(self, pipe: Pipe, stream: AnswerStream) -> None:
        if pipe.ended:
            return
        delta = pipe.take()
        events = stream.chunk(delta) if delta is not None else b""
        if self._begun:
            # What came before a failure is delivered; before the first byte the failure is all.
            await self._write(events)
            events = b""
        if pipe.outcome is not None:
            final = _final(pipe)
            events += stream.ending(final, usage_of(final))
            pipe.ended = True
        await self._write(events)

    async def _news(self, keep_alive: bytes = b"") -> None:
        """Wait until the engine says something.

        Raises:
            GoneError: nobody reads any more.
            LocalError: it has been silent for too long.
        """
        waited_s = 0.0
        while not self._ready.is_set():
            step_s = KEEP_ALIVE_S if self._begun else SILENCE_S
            try:
                async with asyncio.timeout(step_s):
                    await self._ready.wait()
            except TimeoutError:
                waited_s += step_s
                if waited_s >= SILENCE_S:
                    raise LocalError(504, "timeout", "the engine stopped answering") from None
                await self._write(keep_alive)
        self._ready.clear()
        if self._gone.is_set():
            raise GoneError

    async def _write(self, events: bytes, *, more: bool = True) -> None:
        if not events and more:
            return
        if not self._begun:
            self._begun = True
            headers = [*_EVENT_STREAM, *self._exchange.headers]
            start = {"type": "http.response.start", "status": 200, "headers": headers}
            await self._exchange.send(start)
        await self._exchange.send({"type": "http.response.body", "body": events, "more_body": more})

    def _usage(self) -> Usage:
        counts = [pipe.outcome.usage for pipe in self._pipes if pipe.outcome is not None]
        return Usage(
            counts[0].prompt_tokens,
            sum(count.completion_tokens for count in counts),
            counts[0].cached_tokens,
            sum(count.reasoning_tokens for count in counts),
        )

    def _error_chunk(self, error: LocalError, stream: AnswerStream) -> bytes:
        """Return the chunk that ends a broken stream; no `[DONE]` follows it."""
        shape = _BROKEN_CHOICES.get(type(self._dialect))
        if shape is None:
            return stream.broken(error.message, error.kind)
        prefix, kind, choice = shape
        return (
            b'data: {"id":%b,"object":"%b","created":%d,"model":%b,"choices":'
            b'[{"index":0,%b,"finish_reason":"error"}],'
            b'"error":{"message":%b,"type":%b,"code":%b}}\n\n'
        ) % (
            json_text(prefix + self._setting.job),
            kind,
            self._setting.created,
            json_text(self._setting.model),
            choice,
            json_text(error.message),
            json_text(error.kind),
            json_text(error.code),
        )


def _collect(pipe: Pipe, collector: AnswerCollector) -> None:
    if pipe.ended:
        return
    delta = pipe.take()
    if delta is not None:
        collector.feed(delta)
    if pipe.outcome is not None:
        collector.feed(_final(pipe))
        pipe.ended = True


def _final(pipe: Pipe) -> Delta:
    """Return the last delta of an answer.

    Raises:
        LocalError: the engine did not finish it.
    """
    outcome = pipe.outcome
    if outcome is None or outcome.kind is OutcomeKind.CANCELLED:
        raise LocalError(503, "cancelled", "the machine stopped answering", code="draining")
    if outcome.kind is OutcomeKind.ERROR:
        raise _broken() if outcome.error is None else of_engine(outcome.error)
    return outcome.last_delta


def _broken() -> LocalError:
    return LocalError(500, "internal_failure", "the engine's answer cannot be rendered")


async def _watch(receive: Receive, ready: asyncio.Event, gone: asyncio.Event) -> None:
    """Notice that whoever asked has left."""
    while (await receive())["type"] != "http.disconnect":
        pass
    gone.set()
    ready.set()
