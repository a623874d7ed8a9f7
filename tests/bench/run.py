"""The order of a run: rounds of every scenario against every system in turn, then the ladder."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from tests.bench import measure as measuring
from tests.bench.measure import Sample
from tests.bench.placement import Memory
from tests.bench.scenarios import (
    CLEAN_SHARE,
    EVERYWHERE,
    clean_streams,
    timed,
)
from tests.bench.systems import System

Progress = Callable[[str], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Extent:
    """How long a run takes."""

    rounds: int
    seconds: float
    """Of each measurement."""
    clean_seconds: float
    """Length of a paced stream."""
    levels: tuple[int, ...]
    """How many paced streams are tried."""
    providers: int
    """Enough for the highest level."""
    billing_seconds: float
    """Of each of billing's phases."""
    fleets: tuple[int, ...]
    """Connected providers, one row each for one replica and for two."""


FULL = Extent(
    rounds=3,
    seconds=5.0,
    clean_seconds=4.0,
    levels=(8, 16, 32, 64, 128, 256),
    providers=12,
    billing_seconds=5.0,
    fleets=(1, 10, 100, 1000),
)
QUICK = Extent(
    rounds=1,
    seconds=2.0,
    clean_seconds=2.0,
    levels=(8, 16, 32),
    providers=2,
    billing_seconds=0.7,
    fleets=(1, 10),
)


@dataclass(kw_only=True, slots=True)
class Findings:
    """What one system showed."""

    samples: dict[str, list[Sample]] = field(default_factory=dict)
    """By scenario, one for each round."""
    clean: dict[int, float] = field(default_factory=dict)
    """Share of clean streams by level."""
    clean_cores: dict[int, Mapping[str, float]] = field(default_factory=dict)
    """Cores that each process kept busy at a level."""
    memory: dict[str, Memory] = field(default_factory=dict)
    """Of each process, after the load."""

    @property
    def clean_streams(self) -> int:
        """The largest level that held; 0 if none did."""
        return max((n for n, share in self.clean.items() if share >= CLEAN_SHARE), default=0)


async def run(systems: Sequence[System], extent: Extent, progress: Progress) -> dict[str, Findings]:
    """Measure everything; systems take turns, so that a busy machine hurts all alike."""
    found = {system.name: Findings() for system in systems}
    for number in range(extent.rounds):
        for scenario in EVERYWHERE:
            progress(f"round {number + 1} of {extent.rounds}: {scenario.name}")
            # Who goes first changes, for what the first one warms up or wears down.
            for system in systems if number % 2 == 0 else reversed(systems):
                if scenario.endpoint.name not in system.endpoints:
                    continue
                sample = await measuring.measure(system, timed(scenario, extent.seconds))
                found[system.name].samples.setdefault(scenario.name, []).append(sample)
    for system in systems:
        if system.processes:
            await _climb(system, found[system.name], extent, progress)
            found[system.name].memory = system.memory()
    return found


async def _climb(system: System, findings: Findings, extent: Extent, progress: Progress) -> None:
    """Double the streams until a level does not hold, not even at a second try."""
    for level in extent.levels:
        progress(f"clean streams: {level} at {system.name}")
        for _ in range(2):
            sample = await measuring.measure(system, clean_streams(level, extent.clean_seconds))
            share = sample.figure("clean_share")
            if share >= findings.clean.get(level, 0.0):
                findings.clean[level] = share
                findings.clean_cores[level] = sample.cores()
            if share >= CLEAN_SHARE:
                break
        else:
            return
