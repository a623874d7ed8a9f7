"""What to load where: the warm pool's tick, and plans for those who wait (routing section 14)."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from darkbloom_router.fleet import Fleet
from darkbloom_router.model import SlotState
from darkbloom_router.provider import Candidate
from darkbloom_router.warm.cold import Lacking, best, find
from darkbloom_router.warm.pending import LoadEnd, PendingLoads
from darkbloom_router.warm.targets import Signal, Supply, Targets, loads_now

SWAP_EVERY_S = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmRules:
    """How the pool is run."""

    observe_only: bool = False
    """It plans and tells, and loads nothing."""
    min_warm: tuple[tuple[str, int], ...] = ()
    """Least machines by build."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """What one tick found about one build, and whom it would ask."""

    build: str
    warm: int
    cold: int
    target: int
    pressed: bool
    load: float
    queued: int
    pending: int
    lacking: Counter[Lacking]
    chosen: tuple[Candidate, ...]


class WarmPool:
    """Keeps as many machines warm as are asked for. Sends nothing: `keeper` does.

    Args:
        fleet: Who is there.
        queued: Returns how many wait for a build.
        rules: How it is run.
    """

    def __init__(
        self, fleet: Fleet, queued: Callable[[str], int], rules: WarmRules | None = None
    ) -> None:
        self.rules = rules or WarmRules()
        self.pending = PendingLoads()
        self._fleet = fleet
        self._queued = queued
        self._targets = Targets(dict(self.rules.min_warm))
        self._signals: dict[str, Counter[Signal]] = {}
        self._swapped_at = float("-inf")

    def note(self, build: str, signal: Signal) -> None:
        """Take one sign of demand; refusals before any dispatch count as well."""
        self._signals.setdefault(build, Counter())[signal] += 1

    def due(self, waiting: set[str]) -> list[str]:
        """Return the builds that a tick must look at.

        Args:
            waiting: Builds that somebody waits for.
        """
        found = {*self._signals, *self._targets.interesting(), *waiting}
        return sorted(found & set(self._fleet.catalog.builds))

    def tick(self, build: str, now: float) -> Tick:
        """Judge one build, and forget what happened to it since its last tick."""
        self._fleet.advance(now)
        self._look_after(now)
        signals = self._signals.pop(build, Counter[Signal]())
        index, queued = self._fleet.index(build), self._queued(build)
        warm = [row for row in index if row.slot_state.warm]
        able, reasons = find(index, self._fleet.rules, self.pending, now)
        pending = self._coming(build, now)
        supply = _supply(warm, len(able) + pending, index.active)
        want = self._targets.of(build, signals, queued, supply, now)
        gap = max(0, want.target - supply.warm - pending)
        chosen = best(able, self._fleet.rules, loads_now(gap, self.pending.count(now)))
        return Tick(
            build=build,
            warm=supply.warm,
            cold=len(able),
            target=want.target,
            pressed=want.pressed,
            load=want.load,
            queued=queued,
            pending=pending,
            lacking=reasons,
            chosen=tuple(chosen),
        )

    def swap(self, waiting: list[str], now: float) -> Candidate | None:
        """Return one idle machine to load a build that is waited for and that nobody holds.

        At most one plan per quarter of a second, fleet-wide.
        """
        if now - self._swapped_at < SWAP_EVERY_S:
            return None
        self._fleet.advance(now)
        for build in waiting:
            index = self._fleet.index(build)
            if self.pending.count(now, build) or any(row.slot_state.warm for row in index):
                continue
            able, _ = find(index, self._fleet.rules, self.pending, now)
            if able:
                self._swapped_at = now
                return best(able, self._fleet.rules, 1)[0]
        return None

    def _coming(self, build: str, now: float) -> int:
        """Return how many machines are loading a build, by command or because a request came."""
        asked = self.pending.running(now, build)
        found = sum(
            row.slot_state is SlotState.RELOADING and row.provider.provider_id not in asked
            for row in self._fleet.index(build)
        )
        return len(asked) + found

    def _look_after(self, now: float) -> None:
        """Forget commands that are over: by time, by what the machine shows, by its absence."""
        self.pending.expire(now)
        for provider_id, build in self.pending.standing():
            provider = self._fleet.providers.get(provider_id)
            row = provider.candidates.get(build) if provider else None
            if row is None:
                self.pending.left(provider_id)
            elif row.slot_state.warm:
                self.pending.ended(provider_id, build, LoadEnd.LOADED, now)

    def asked(self, candidate: Candidate, now: float) -> None:
        """Note that a machine has been told to load."""
        self.pending.sent(candidate.provider.provider_id, candidate.build.build, now)


def _supply(warm: list[Candidate], cold: int, active: int) -> Supply:
    """Sum up who holds a build.

    Args:
        warm: They.
        cold: How many could.
        active: Attempts of this build, those that wait for weights included: they are demand too.
    """
    count = len(warm)
    slots = [slot for row in warm if (slot := row.slot) is not None]
    caps = [row.quality_cap for row in warm if row.quality_cap]
    return Supply(
        warm=count,
        cold=cold,
        running=max(active, sum(row.occupancy for row in warm)),
        waiting=sum(slot.waiting for slot in slots),
        places=sum(row.concurrency_cap for row in warm),
        rows=sum(caps) / len(caps) if caps else 0.0,
        prefill_tps=sum(1000 / row.prompt_ms for row in warm if row.prompt_ms) / max(1, count),
        decode_tps=sum(row.projected_tps for row in warm) / max(1, count),
    )
