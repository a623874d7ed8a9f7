"""Who goes by which catalog, what machines hold, and what follows from it; pure."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from darkbloom_mesh.confirming import REPEAT_S

from darkbloom_registry.model_states import ModelStage, ModelState

LIVE: Final = timedelta(seconds=3 * REPEAT_S)
"""A replica that was silent for so long may be gone, or cut off and at work with an old catalog."""
LIFETIME: Final = timedelta(seconds=30 * REPEAT_S)
"""Of a confirmation. Who was killed never says that he ends, and must not be waited for for ever;
who was only cut off confirms again once he is back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """Machines and one build."""

    build: str
    wished: int = 0
    """Wanted to hold it."""
    holding: int = 0
    """Hold verified files of it, with an accepted hash."""
    current: int = 0
    """Of those wanted to: hold the active version."""
    warm: int = 0
    """Have the active version in memory."""

    def plus(self, more: "Holding") -> "Holding":
        """Add another router's."""
        return Holding(
            build=self.build,
            wished=self.wished + more.wished,
            holding=self.holding + more.holding,
            current=self.current + more.current,
            warm=self.warm + more.warm,
        )

    @property
    def converged(self) -> float | None:
        """Share of those wanted to that hold the active version; None where nobody is."""
        return min(1.0, self.current / self.wished) if self.wished else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """One replica that follows the catalog."""

    session: str
    """One life of it."""
    room: str
    replica: str
    generation: int
    confirm_time: datetime
    holdings: tuple[Holding, ...] = ()
    silent: bool = False
    """For longer than a live replica is; what its machines hold now is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Propagation:
    """How far a write is."""

    generation: int
    newest: int
    readers: tuple[Reader, ...]

    @property
    def committed(self) -> bool:
        """Whether it was written at all."""
        return self.generation <= self.newest

    @property
    def propagated(self) -> bool:
        """Whether everybody goes by it; nobody is not everybody, and silence is no consent."""
        behind = any(reader.generation < self.generation for reader in self.readers)
        alive = any(not reader.silent for reader in self.readers)
        return self.committed and alive and not behind


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """One build on its way to machines."""

    stages: dict[ModelStage, int]
    bytes_done: int
    bytes_total: int
    """Both of those that are downloading."""
    failures: dict[str, int]
    now: Holding


def newest_lives(readers: Iterable[Reader]) -> tuple[Reader, ...]:
    """Return one life of each replica: the one that spoke last."""
    found: dict[tuple[str, str], Reader] = {}
    for reader in sorted(readers, key=lambda one: one.confirm_time):
        found[reader.room, reader.replica] = reader
    return tuple(found[name] for name in sorted(found))


def held(build: str, readers: Iterable[Reader]) -> Holding:
    """Return the sum of what the machines of all routers hold of a build."""
    total = Holding(build=build)
    for reader in readers:
        for holding in reader.holdings:
            if holding.build == build:
                total = total.plus(holding)
    return total


def progress_of(build: str, states: Sequence[ModelState], readers: Iterable[Reader]) -> Progress:
    """Sum up what machines said last of a build, and what they hold now."""
    loading = [state for state in states if state.stage is ModelStage.DOWNLOADING]
    return Progress(
        stages=dict(Counter(state.stage for state in states)),
        bytes_done=sum(state.bytes_done for state in loading),
        bytes_total=sum(state.bytes_total for state in loading),
        failures=dict(Counter(s.error for s in states if s.stage is ModelStage.FAILED)),
        now=held(build, readers),
    )
