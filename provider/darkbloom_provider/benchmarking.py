"""How quick this machine is: the engine that serves, asked by itself, one build at a time.

Prefill is the time to the first token of a prompt of so many tokens; decode is what several
requests get at once. Nothing is kept of the prompts, so that no run profits from the one before.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Final

import msgspec
from darkbloom_edge.delta import Delta
from darkbloom_edge.request import ChatRequest
from darkbloom_edge.usage import Usage
from darkbloom_mesh.clock import Clock

from darkbloom_provider.engine.errors import EngineError
from darkbloom_provider.engine.interface import Engine, Job, Outcome, OutcomeKind
from darkbloom_provider.errors import ProviderError

RUN_S: Final = 600.0
"""Bound of one measurement."""
_BOUND: Final = 1 << 20
_WORDS: Final = ("river", "stone", "paper", "light", "green", "house", "music", "table")
_SAMPLE_WORDS: Final = 64


class Prefill(msgspec.Struct, frozen=True, kw_only=True):
    """One length of prompt; medians."""

    wanted_tokens: int
    prompt_tokens: int
    """What the build's tokenizer made of it."""
    first_token_ms: float
    tokens_per_s: float


class Decode(msgspec.Struct, frozen=True, kw_only=True):
    """So many requests at once; medians."""

    requests: int
    tokens: int
    """Generated in one run, all requests together."""
    tokens_per_s: float
    """All requests together, from the first token of the first to the last of the last."""
    tokens_per_s_each: float
    first_token_ms: float
    """Of the slowest to begin."""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured of a build."""

    model: str
    iterations: int
    max_tokens: int
    prefill: tuple[Prefill, ...]
    decode: tuple[Decode, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What to measure."""

    model: str
    prompt: str
    iterations: int
    max_tokens: int
    lengths: tuple[int, ...]
    """Prompt lengths in tokens, about."""
    batches: tuple[int, ...]
    """Numbers of requests at once."""


@dataclass(slots=True)
class _Watch:
    """A sink that looks at the clock."""

    clock: Clock
    over: asyncio.Event = field(default_factory=asyncio.Event)
    first: float | None = None
    last: float = 0.0
    outcome: Outcome | None = None

    def on_delta(self, delta: Delta) -> None:
        """Note when content came."""
        del delta
        self.last = self.clock.monotonic()
        if self.first is None:
            self.first = self.last

    def on_end(self, outcome: Outcome) -> None:
        """Note the end."""
        self.outcome = outcome
        self.last = self.clock.monotonic()
        if self.first is None:
            self.first = self.last
        self.over.set()


async def measure(
    engine: Engine, plan: Plan, clock: Clock, tell: Callable[[str], None] = lambda _: None
) -> Report:
    """Measure a loaded build; `tell` hears what comes next.

    Raises:
        ProviderError: a request failed or took longer than `RUN_S`.
    """
    bench = _Bench(engine, plan, clock)
    tell("warming up")
    await bench.warm_up()
    prefill = []
    for length in plan.lengths:
        tell(f"prompt of {length} tokens")
        prefill.append(await bench.prefill(length))
    decode = []
    for requests in plan.batches:
        tell(f"{requests} at once")
        decode.append(await bench.decode(requests))
    return Report(
        model=plan.model,
        iterations=plan.iterations,
        max_tokens=plan.max_tokens,
        prefill=tuple(prefill),
        decode=tuple(decode),
    )


class _Bench:
    def __init__(self, engine: Engine, plan: Plan, clock: Clock) -> None:
        self._engine = engine
        self._plan = plan
        self._clock = clock
        self._count = 0
        self._tokens_per_word = 1.0

    async def warm_up(self) -> None:
        """Run once unmeasured, and learn how many tokens this build makes of a word."""
        [one] = await self.together(1, self._text(_SAMPLE_WORDS), min(4, self._plan.max_tokens))
        self._tokens_per_word = max(1.0, one.usage.prompt_tokens / _SAMPLE_WORDS)

    async def prefill(self, length: int) -> Prefill:
        runs = []
        for _ in range(self._plan.iterations):
            started = self._clock.monotonic()
            [one] = await self.together(1, self._text(length), 1)
            runs.append((one.first_s - started, one.usage.prompt_tokens))
        took = median(seconds for seconds, _ in runs)
        tokens = runs[0][1]
        return Prefill(
            wanted_tokens=length,
            prompt_tokens=tokens,
            first_token_ms=round(took * 1000, 2),
            tokens_per_s=_rate(tokens, took),
        )

    async def decode(self, requests: int) -> Decode:
        rates, firsts, tokens = [], [], 0
        for _ in range(self._plan.iterations):
            started = self._clock.monotonic()
            done = await self.together(requests, self._plan.prompt, self._plan.max_tokens)
            tokens = sum(one.usage.completion_tokens for one in done)
            begun = min(one.first_s for one in done)
            # The first token of each came with its prefill.
            rates.append(_rate(tokens - requests, max(one.last_s for one in done) - begun))
            firsts.append(max(one.first_s for one in done) - started)
        together = median(rates)
        return Decode(
            requests=requests,
            tokens=tokens,
            tokens_per_s=together,
            tokens_per_s_each=round(together / requests, 2),
            first_token_ms=round(median(firsts) * 1000, 2),
        )

    async def together(self, requests: int, prompt: str, max_tokens: int) -> "Sequence[_Done]":
        watches = []
        try:
            async with asyncio.timeout(RUN_S):
                for _ in range(requests):
                    watch = _Watch(self._clock)
                    await self._engine.submit(self._job(prompt, max_tokens), watch)
                    watches.append(watch)
                for watch in watches:
                    await watch.over.wait()
        except EngineError as error:
            raise ProviderError(
                f"the engine refuses the benchmark, {error}", "measure shorter prompts, or fewer"
            ) from error
        except TimeoutError:
            raise ProviderError(
                f"a measurement took longer than {RUN_S:.0f} s", "measure shorter prompts"
            ) from None
        return [_done(watch) for watch in watches]

    def _job(self, prompt: str, max_tokens: int) -> Job:
        self._count += 1
        return Job(
            job_id=f"benchmark-{self._count}",
            build_id=self._plan.model,
            request=ChatRequest(
                model=self._plan.model,
                messages=[{"role": "user", "content": prompt}],
                max_tokens=max_tokens,
                temperature=0.0,
            ),
            prompt_bound=_BOUND,
            output_bound=max_tokens,
        )

    def _text(self, tokens: int) -> str:
        """Return about so many tokens of text, which no other run has."""
        self._count += 1
        words = max(1, int(tokens / self._tokens_per_word))
        return " ".join(_WORDS[(at * at + self._count) % len(_WORDS)] for at in range(words))


@dataclass(frozen=True, slots=True)
class _Done:
    first_s: float
    last_s: float
    usage: Usage


def _done(watch: _Watch) -> _Done:
    outcome = watch.outcome
    if outcome is None or watch.first is None or outcome.kind is not OutcomeKind.COMPLETED:
        why = f", {outcome.error}" if outcome is not None and outcome.error is not None else ""
        raise ProviderError(f"a request of the benchmark failed{why}", "see `darkbloom doctor`")
    return _Done(watch.first, watch.last, outcome.usage)


def _rate(tokens: int, seconds: float) -> float:
    return round(tokens / seconds, 2) if seconds > 0 and tokens > 0 else 0.0
