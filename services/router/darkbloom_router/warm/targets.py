"""How many machines should hold a build: Little's law over what was asked for (section 14)."""

from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from math import ceil

from darkbloom_router.refusals import Reason

SPILL_WEIGHT = 0.3
DWELL_S = 300.0
TICK_S = 10.0
MOST_LOADS, LEAST_LOADS, SHARE_OF_GAP = 16, 4, 0.5
MOST_PENDING = 16
UNKNOWN_ROWS = 4
SATURATED = 0.8
LEAST_S, MOST_S = 0.5, 120.0
PROMPT_TOKENS, OUTPUT_TOKENS = 512, 256


class Signal(StrEnum):
    """What shows that a build has too few machines; a closed list."""

    CAPACITY_REJECT = "capacity_reject"
    TTFT_MISS = "ttft_miss"
    COLD_DISPATCH = "cold_dispatch"
    HEDGE_START = "hedge_start"
    HEDGE_WIN = "hedge_win"


ENOUGH = {
    Signal.CAPACITY_REJECT: 1,
    Signal.TTFT_MISS: 1,
    Signal.COLD_DISPATCH: 1,
    Signal.HEDGE_START: 2,
    Signal.HEDGE_WIN: 1,
}
"""How many between two ticks are pressure by themselves."""
SIGNALS = {
    Reason.MACHINE_BUSY: Signal.CAPACITY_REJECT,
    Reason.NO_PROVIDER: Signal.CAPACITY_REJECT,
    Reason.QUEUE_FULL: Signal.CAPACITY_REJECT,
    Reason.QUEUE_DEADLINE: Signal.CAPACITY_REJECT,
    Reason.MODEL_NOT_LOADED: Signal.CAPACITY_REJECT,
    Reason.TTFT_TOO_SLOW: Signal.TTFT_MISS,
    Reason.DEADLINE_UNREACHABLE: Signal.TTFT_MISS,
    Reason.FIRST_CHUNK_TIMEOUT: Signal.TTFT_MISS,
}
"""Refusals that lost demand for want of machines, before any dispatch as well."""
_SPILLED = (Signal.CAPACITY_REJECT, Signal.TTFT_MISS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Supply:
    """What holds a build now, and what could."""

    warm: int
    cold: int
    """Machines that could load it."""
    running: int
    waiting: int
    places: int
    """Attempts that the warm ones take together."""
    rows: float
    """Attempts at a fair pace of one machine; 0 is unknown."""
    prefill_tps: float
    decode_tps: float


@dataclass(frozen=True, slots=True)
class Want:
    """The result for one build at one tick."""

    target: int
    pressed: bool
    load: float
    """Attempts at once that the demand comes to."""


def service_s(prefill_tps: float, decode_tps: float) -> float:
    """Return how long a usual request takes, in seconds; the most where nothing is known."""
    if prefill_tps <= 0 or decode_tps <= 0:
        return MOST_S
    seconds = PROMPT_TOKENS / prefill_tps + OUTPUT_TOKENS / decode_tps
    return max(LEAST_S, min(seconds, MOST_S))


def pressed(signals: Counter[Signal], queued: int, saturation: float) -> bool:
    """Return whether more machines are wanted."""
    if queued > 0 or any(signals[signal] >= least for signal, least in ENOUGH.items()):
        return True
    return saturation >= SATURATED and any(signals.values())


def loads_now(gap: int, pending: int) -> int:
    """Return how many loads to start at once: half of a large gap, all of a small one.

    Args:
        gap: Machines that are missing.
        pending: Loads of the whole fleet that are under way.
    """
    wanted = min(gap, MOST_LOADS, max(LEAST_LOADS, ceil(gap * SHARE_OF_GAP)))
    return max(0, min(wanted, MOST_PENDING - pending))


class Targets:
    """Remembers between ticks what one tick cannot know: spilled demand, and earlier targets.

    Args:
        min_warm: Least machines by build.
    """

    def __init__(self, min_warm: dict[str, int] | None = None) -> None:
        self.min_warm = dict(min_warm or {})
        self._spill_per_s: dict[str, float] = {}
        self._held: dict[str, tuple[int, float]] = {}
        """Target, and until when it is not lowered."""

    def of(
        self, build: str, signals: Counter[Signal], queued: int, supply: Supply, now: float
    ) -> Want:
        """Return the target of a build; call once per tick.

        Args:
            build: Which.
            signals: What happened since the last tick.
            queued: Requests in line.
            supply: Who holds it.
            now: Monotonic seconds.
        """
        spilled = sum(signals[signal] for signal in _SPILLED) / TICK_S
        before = self._spill_per_s.get(build, 0.0)
        spill = self._spill_per_s[build] = before + SPILL_WEIGHT * (spilled - before)
        busy_s = service_s(supply.prefill_tps, supply.decode_tps)
        load = supply.running + supply.waiting + queued + spill * busy_s

        most = supply.warm + supply.cold
        saturation = supply.running / supply.places if supply.places else 0.0
        needed = pressed(signals, queued, saturation)
        target = supply.warm
        if needed:
            enough = ceil(load / (supply.rows or UNKNOWN_ROWS)) + 1
            target = max(supply.warm, min(max(enough, supply.warm + 1), most))
        target = max(target, min(self.min_warm.get(build, 0), most))
        return Want(self._dwell(build, target, most, now), needed, load)

    def interesting(self) -> set[str]:
        """Return the builds that a tick must look at although nothing happened to them."""
        return {*self._held, *(name for name, least in self.min_warm.items() if least > 0)}

    def _dwell(self, build: str, target: int, most: int, now: float) -> int:
        """Hold a target for a while before it sinks."""
        held, until = self._held.get(build, (0, 0.0))
        if target >= held:
            self._held[build] = (target, now + DWELL_S)
            return target
        if now < until:
            return min(held, most)
        del self._held[build]
        return target
