"""What is measured, on either side alike: one figure a call, from fresh prompts each time."""

import asyncio
import random  # noqa: TID251 - seeded: the words of prompts
import statistics
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeAlias

from darkbloom_mesh.clock import SystemClock

from tests.bench.engine.client import ask
from tests.bench.engine.model import LETTERS
from tests.bench.engine.servers import Side

NEWCOMERS = 5
PREFIX_TOKENS = 1024
BUSY_ROWS = 8
_BUSY_TOKENS = 3000


class Words:
    """Random prompts, one token a letter, never the same twice."""

    def __init__(self, seed: str) -> None:
        self._draw = random.Random(seed)

    def prompt(self, letters: int) -> str:
        """Return a prompt of so many letters."""
        return "".join(self._draw.choices(LETTERS, k=letters))

    def wait_s(self, most: float) -> float:
        """Return a moment to wait, so that no side's rhythm is met by chance."""
        return self._draw.uniform(0.0, most)


Measure: TypeAlias = Callable[[Side, Words], Awaitable[float]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One line of the table."""

    name: str
    unit: str
    measure: Measure
    bar: float | None = None
    """Ours ÷ theirs must be at least this (rates) or at most this (seconds)."""

    @property
    def is_rate(self) -> bool:
        """Whether more is better."""
        return self.unit == "tokens/s"

    def met(self, ratio: float) -> bool | None:
        """Tell whether a ratio meets the bar; None without one."""
        if self.bar is None:
            return None
        return ratio >= self.bar if self.is_rate else ratio <= self.bar


def throughput(rows: int, prompt: int, tokens: int, *, shared: int = 0) -> Measure:
    """Measure generated tokens per second of wall time, all requests sent at once.

    Args:
        rows: How many.
        prompt: Letters of each prompt's own.
        tokens: To generate for each.
        shared: Letters that all begin with, asked for once before.
    """

    async def measure(side: Side, words: Words) -> float:
        prefix = words.prompt(shared)
        if shared:
            await ask(side, prefix, 2)
        began = time.monotonic()
        answers = await asyncio.gather(
            *(ask(side, prefix + words.prompt(prompt), tokens) for _ in range(rows))
        )
        span = max(answer.ended for answer in answers) - began
        return sum(answer.tokens for answer in answers) / span

    return measure


def newcomer(prompt: int) -> Measure:
    """Measure seconds to the first text of a newcomer while others decode; median of several."""

    async def measure(side: Side, words: Words) -> float:
        async with asyncio.TaskGroup() as tasks:
            begun = [asyncio.Event() for _ in range(BUSY_ROWS)]
            running = [
                tasks.create_task(ask(side, words.prompt(30), _BUSY_TOKENS, event.set))
                for event in begun
            ]
            for event in begun:
                await event.wait()
            seen = []
            for _ in range(NEWCOMERS):
                await SystemClock().sleep(words.wait_s(0.3))
                seen.append((await ask(side, words.prompt(prompt), 2)).first_s)
                if any(task.done() for task in running):
                    raise RuntimeError("the others have ended, there was no company")
            for task in running:
                task.cancel()
        return statistics.median(seen)

    return measure


async def cold_first(side: Side, words: Words) -> float:
    """Measure seconds to the first text of a prompt that was never seen."""
    return (await ask(side, words.prompt(PREFIX_TOKENS), 2)).first_s


async def repeated_first(side: Side, words: Words) -> float:
    """Measure seconds to the first text of a prompt whose beginning was asked before."""
    prefix = words.prompt(PREFIX_TOKENS)
    await ask(side, prefix, 2)
    await ask(side, prefix + words.prompt(20), 2)
    return (await ask(side, prefix + words.prompt(20), 2)).first_s


def table_rows() -> list[Row]:
    """Return what is measured on the random model."""
    rows = []
    for count in (1, 4, 8, 16):
        bar = 0.95 if count == 1 else 1.0
        rows += [
            Row(
                name=f"{name}, {count} at once",
                unit="tokens/s",
                measure=throughput(count, letters, tokens, shared=shared),
                bar=bar,
            )
            for name, letters, tokens, shared in (
                ("short prompts", 40, 64, 0),
                ("long prompts", 400, 32, 0),
                ("shared prefixes", 40, 32, 384),
            )
        ]
    return [
        *rows,
        Row(
            name=f"newcomer's first text beside {BUSY_ROWS} rows",
            unit="s",
            measure=newcomer(40),
            bar=1 / 3,
        ),
        Row(name="first text, cold prompt", unit="s", measure=cold_first),
        Row(name="first text, repeated prefix", unit="s", measure=repeated_first),
    ]


def small_row() -> Row:
    """Return the one row that is measured on SmolLM2."""
    return Row(name="SmolLM2, 4 at once", unit="tokens/s", measure=throughput(4, 30, 24))
