"""Streams at many clients, each looked at to its last byte, behind what balances gateways.

A client does what a good one does by itself: where nothing has come yet it asks again, elsewhere
first, minding `Retry-After`. An answer that has begun is never asked for twice.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import httpx
from darkbloom_local.mesh import Mesh
from darkbloom_local.models import SCRIPTED
from darkbloom_mesh.clock import Clock, SystemClock

from tests.mesh.harness import PATIENCE_S, Consumer, Reading, Stream, script, until

_ASK_AGAIN = frozenset({429, 502, 503})
_PAUSE_S = 0.25


class End(Enum):
    """How a request ended for whoever asked."""

    WHOLE = "whole"
    REFUSED = "refused"
    """Never an answer, whatever was tried."""
    BROKEN = "broken"
    """Content came, then one typed error in the stream."""
    CUT = "cut"
    """Content came, then the connection was gone."""
    WRONG = "wrong"
    """Something that no page documents."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One request and all that came of it."""

    stream: Stream | None
    """None where no gateway ever answered."""
    wanted: int
    """Tokens of a whole answer."""
    refusals: tuple[str, ...]
    """What earlier tries heard: a status, or the kind of a connection's failure."""
    reasons: tuple[str, ...]
    """The same in the gateway's words."""
    asked_at: float
    sent_at: float
    """When the try was sent that was the last one."""
    first_at: float | None
    """When the first content came."""
    ended_at: float
    said: str = ""
    """The last refusal."""

    @property
    def words(self) -> int:
        """Tokens that came."""
        return 0 if self.stream is None else self.stream.words

    @property
    def job_id(self) -> str:
        """The attempt that answered; empty where none did."""
        return "" if self.stream is None else self.stream.headers.get("x-inference-job-id", "")

    @property
    def end(self) -> End:
        """How it ended."""
        stream = self.stream
        if stream is None or stream.status != httpx.codes.OK:
            return End.REFUSED
        if stream.cut:
            return End.CUT
        if stream.error is not None:
            return End.BROKEN if stream.done == 0 else End.WRONG
        whole = (stream.words, stream.done) == (self.wanted, 1)
        return End.WHOLE if whole else End.WRONG

    def broken_at(self, moment: float) -> bool:
        """Return whether it had begun and broke, and was on its way at that moment.

        A stream that is cut had begun with its status line, words or not. One that says itself that
        it broke could have been answered elsewhere as long as it had none.
        """
        begun = self.end is End.CUT or (self.end is End.BROKEN and self.words > 0)
        return begun and self.sent_at <= moment <= self.ended_at

    def told(self) -> str:
        """Describe the end without a word of the answer."""
        stream = self.stream
        if stream is None:
            return f"no answer, heard {', '.join(self.refusals)}: {self.said}"
        error = stream.error or {}
        return (
            f"{self.end.value}: status {stream.status}, {stream.words} of {self.wanted} tokens,"
            f" {stream.done} done, cut {stream.cut},"
            f" {error.get('type', '')} {error.get('code', '')} {self.said}"
        )


@dataclass(kw_only=True)
class Load:
    """Clients that ask one question after the other.

    Args:
        mesh: Whose development account asks.
        urls: Gateways, in turn; a refused one is left for the next.
        tokens: Of each answer.
        interval_s: Between two of them.
        patience_s: How long a client asks again for.
        model: What they ask for.
        text: What they say; None scripts the answer. The engine's default has 16 tokens.
        api_key: Whose account asks; None takes the development account's.
    """

    mesh: Mesh
    urls: Sequence[str]
    tokens: int = 40
    interval_s: float = 0.02
    patience_s: float = PATIENCE_S
    model: str = SCRIPTED
    text: str | None = None
    api_key: str | None = None
    clock: Clock = field(default_factory=SystemClock)
    answers: list[Answer] = field(default_factory=list)
    flowing: int = 0
    """Answers of which something has come, and not all."""
    waiting: int = 0
    """Requests that were sent and of which nothing has come."""
    stopping: bool = False

    def ended(self, *ends: End) -> list[Answer]:
        """Return the answers that ended in one of these ways."""
        return [one for one in self.answers if one.end in ends]

    @property
    def lost(self) -> list[Answer]:
        """Every answer that is not whole."""
        return [one for one in self.answers if one.end is not End.WHOLE]

    def first_since(self, moment: float) -> float | None:
        """Return when the first content came of what was asked after a moment; None: not yet."""
        firsts = [
            one.first_at
            for one in self.answers
            if one.asked_at > moment and one.first_at is not None and one.end is End.WHOLE
        ]
        return min(firsts, default=None)

    def facts(self) -> dict[str, int]:
        """Return the figures of all answers."""
        counted = Counter(one.end.value for one in self.answers)
        return {
            "requests": len(self.answers),
            **self.asked_again(),
            **{end.value: counted[end.value] for end in End if counted[end.value]},
        }

    def asked_again(self) -> dict[str, int]:
        """Return how often a client asked again, by what it had heard."""
        counted = Counter(why for one in self.answers for why in one.refusals)
        return {f"asked_again_{why}": count for why, count in sorted(counted.items())}

    async def client(self, number: int) -> None:
        """Ask until told to stop; the last answer is read to its end."""
        async with Consumer(self.mesh, self.api_key).client() as http:
            while not self.stopping:
                self.answers.append(await self.ask(http, number))

    async def ask(self, http: httpx.AsyncClient, number: int = 0) -> Answer:
        """Ask once, and again where nothing came of it."""
        asked_at = self.clock.monotonic()
        refusals: list[str] = []
        reasons: list[str] = []
        while True:
            url = self.urls[(number + len(refusals)) % len(self.urls)]
            sent_at = self.clock.monotonic()
            stream, first_at, said = await self._once(http, url)
            begun = stream is not None and stream.status not in _ASK_AGAIN
            late = self.clock.monotonic() - asked_at > self.patience_s
            if begun or late:
                break
            refusals.append(said if stream is None else str(stream.status))
            reasons.append(said)
            await self.clock.sleep(self._pause_s(stream, len(refusals)))
        return Answer(
            stream=stream,
            wanted=self.tokens,
            refusals=tuple(refusals),
            reasons=tuple(reasons),
            asked_at=asked_at,
            sent_at=sent_at,
            first_at=first_at,
            ended_at=self.clock.monotonic(),
            said=said,
        )

    def _pause_s(self, stream: Stream | None, tries: int) -> float:
        """Return how long to wait: not at all for a gateway that was not asked yet."""
        if tries < len(self.urls):
            return 0.0
        told: Mapping[str, str] = {} if stream is None else stream.headers
        return max(_PAUSE_S, min(float(told.get("retry-after", 0)), 3.0))

    async def _once(
        self, http: httpx.AsyncClient, url: str
    ) -> tuple[Stream | None, float | None, str]:
        scripted = script(tokens=self.tokens, interval_s=self.interval_s)
        said = [{"role": "user", "content": self.text}]
        body = {
            "model": self.model,
            "messages": scripted if self.text is None else said,
            "stream": True,
        }
        try:
            async with (
                self._waits() as begins,
                http.stream("POST", f"{url}/v1/chat/completions", json=body) as response,
            ):
                if response.status_code != httpx.codes.OK:
                    text = (await response.aread()).decode()
                    return Stream(response.status_code, response.headers), None, text
                reading = Reading(response)
                first_at = self.clock.monotonic() if await reading.begun() else None
                begins()
                return await reading.rest(), first_at, ""
        except httpx.TransportError as error:
            return None, None, type(error).__name__

    @asynccontextmanager
    async def _waits(self) -> AsyncIterator[Callable[[], None]]:
        """Count a request as waiting, and as flowing once what is yielded is called."""
        flows = False

        def begins() -> None:
            nonlocal flows
            flows = True
            self.waiting -= 1
            self.flowing += 1

        self.waiting += 1
        try:
            yield begins
        finally:
            self.flowing -= flows
            self.waiting -= not flows


@asynccontextmanager
async def steady(
    mesh: Mesh, *, clients: int, urls: Sequence[str] = (), limit_s: float = 180.0, **how: Any
) -> AsyncIterator[Load]:
    """Keep a load up for the length of the block; afterwards every answer has ended.

    Args:
        mesh: Who answers.
        clients: Streams at a time.
        urls: Gateways; the mesh's own where none is named.
        limit_s: Bound of the block and of the answers' ends.
        how: `tokens`, `interval_s`, `patience_s`, `model`, `text`, `api_key` of `Load`.
    """
    load = Load(mesh=mesh, urls=urls or (mesh.url,), **how)
    async with asyncio.timeout(limit_s), asyncio.TaskGroup() as tasks:
        for number in range(clients):
            tasks.create_task(load.client(number))
        try:
            yield load
        finally:
            load.stopping = True


async def answered_since(load: Load, moment: float) -> float:
    """Return when something that was asked after a moment began to be answered."""

    async def answered() -> bool:
        return load.first_since(moment) is not None

    await until(answered, "a new request is answered")
    return load.first_since(moment) or moment


def grown(load: Load, by: int) -> Callable[[], Awaitable[bool]]:
    """Return the condition that so many more requests have ended than now."""
    aim = len(load.answers) + by

    async def enough() -> bool:
        return len(load.answers) >= aim

    return enough
