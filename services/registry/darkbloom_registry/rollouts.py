"""A public name on its way to another build: what is counted, and what is decided from it.

The spec's rule: after each step the name goes on by itself or comes back by itself
(spec/registry.md §14, "Better"). Everything here is pure.
"""

import dataclasses
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from darkbloom_mesh.errors import InvalidArgumentError

from darkbloom_registry.errors import RolloutEndedError

TTFT_BOUNDS_S = (0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
"""Upper bounds of the buckets of successes; one more bucket holds the rest."""
DEFAULT_STEPS = (1, 10, 50, 100)
MAX_STEPS = 20
_ALL = 100
_MAX_REQUESTS = 1_000_000
_MAX_SOAK = timedelta(days=30)
_P95 = 0.95
_MAX_REASON = 256


class RolloutState(StrEnum):
    """Life of a rollout."""

    RUNNING = "running"
    PAUSED = "paused"
    DONE = "done"
    REVERTED = "reverted"


LIVE = frozenset({RolloutState.RUNNING, RolloutState.PAUSED})
"""States in which the name stands between two builds."""


class Action(StrEnum):
    """What an operator may do."""

    PAUSE = "pause"
    RESUME = "resume"
    REVERT = "revert"


@dataclass(frozen=True, slots=True, kw_only=True)
class Gates:
    """When a step is passed, and when the name goes back."""

    min_requests: int = 50
    soak: timedelta = timedelta(minutes=10)
    min_success_percent: int = 95
    max_load_failures: int = 0
    max_ttft_p95: timedelta | None = None
    max_untrusted: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What routers saw of a build; sums of their reports."""

    successes: int = 0
    failures: int = 0
    load_failures: int = 0
    untrusted: int = 0
    ttft_buckets: tuple[int, ...] = (0,) * (len(TTFT_BOUNDS_S) + 1)

    @property
    def requests(self) -> int:
        """Attempts that ended by their own merit."""
        return self.successes + self.failures

    @property
    def ttft_p95(self) -> timedelta | None:
        """Upper bound of the bucket in which 95 of 100 lie; None without a success."""
        total = sum(self.ttft_buckets)
        if not total:
            return None
        for bound, reached in zip(
            TTFT_BOUNDS_S, itertools.accumulate(self.ttft_buckets), strict=False
        ):
            if reached >= _P95 * total:
                return timedelta(seconds=bound)
        return timedelta.max

    def plus(self, more: "Counts") -> "Counts":
        """Add a report."""
        return Counts(
            successes=self.successes + more.successes,
            failures=self.failures + more.failures,
            load_failures=self.load_failures + more.load_failures,
            untrusted=self.untrusted + more.untrusted,
            ttft_buckets=tuple(
                a + b for a, b in zip(self.ttft_buckets, more.ttft_buckets, strict=True)
            ),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a router saw of a build while it routed by one catalog."""

    build: str
    generation: int
    """Of that catalog; 0 where the router did not say."""
    counts: Counts


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """One rollout as stored."""

    rollout_id: str
    alias: str
    from_build: str
    to_build: str
    steps: tuple[int, ...]
    """Percent, rising, the last one 100."""
    gates: Gates
    actor: str
    create_time: datetime
    step_time: datetime
    update_time: datetime
    step: int = 0
    state: RolloutState = RolloutState.RUNNING
    counts: Counts = Counts()
    reason: str = "started"
    previous_build: str = ""
    """What stood behind `from_build` before, and does so again after a revert."""
    step_generation: int = 0
    """Of the catalog in which this step began."""

    @property
    def percent(self) -> int:
        """Share of accounts and machines at this step."""
        return self.steps[self.step]


def taken(rollout: Rollout, seen: Iterable[Seen]) -> Rollout:
    """Return the rollout with what was seen of its build in this step, and nothing older."""
    counts = rollout.counts
    for row in seen:
        in_step = not row.generation or row.generation >= rollout.step_generation
        if row.build == rollout.to_build and in_step:
            counts = counts.plus(row.counts)
    return rollout if counts is rollout.counts else dataclasses.replace(rollout, counts=counts)


def check_steps(steps: Sequence[int]) -> tuple[int, ...]:
    """Return the steps, or the default ones where there are none.

    Raises:
        InvalidArgumentError: too many, not rising, or the last one is not 100.
    """
    found = tuple(steps) or DEFAULT_STEPS
    rising = all(a < b for a, b in itertools.pairwise(found))
    if not rising or found[0] < 1 or found[-1] != _ALL or len(found) > MAX_STEPS:
        raise InvalidArgumentError("must rise from 1 or more to 100, 20 at most", "steps")
    return found


def check_gates(gates: Gates) -> Gates:
    """Return gates that can be passed.

    Raises:
        InvalidArgumentError: a bound is out of range; `field` names it.
    """
    for name, value, most in (
        ("min_requests", gates.min_requests, _MAX_REQUESTS),
        ("min_success_percent", gates.min_success_percent, _ALL),
        ("max_load_failures", gates.max_load_failures, _MAX_REQUESTS),
        ("max_untrusted", gates.max_untrusted, _MAX_REQUESTS),
    ):
        if not 0 <= value <= most:
            raise InvalidArgumentError(f"must be 0 to {most}", f"gates.{name}")
    if not timedelta() <= gates.soak <= _MAX_SOAK:
        raise InvalidArgumentError("must be 0 to 30 days", "gates.soak")
    if gates.max_ttft_p95 is not None and gates.max_ttft_p95 <= timedelta():
        raise InvalidArgumentError("must be positive", "gates.max_ttft_p95")
    return gates


def breach(gates: Gates, counts: Counts) -> str | None:
    """Return which gate is broken and by what; None where all hold.

    Success is judged before `min_requests` have ended, too: once so many failed that the rest
    could not make up for it, waiting would only cost more consumers their answers.
    """
    if counts.load_failures > gates.max_load_failures:
        return f"load_failures: {counts.load_failures}, at most {gates.max_load_failures}"
    if counts.untrusted > gates.max_untrusted:
        return f"untrusted: {counts.untrusted}, at most {gates.max_untrusted}"
    total = max(counts.requests, gates.min_requests)
    if counts.failures * _ALL > total * (_ALL - gates.min_success_percent):
        return (
            f"success: {counts.failures} of {counts.requests} attempts failed, "
            f"at least {gates.min_success_percent} % must not"
        )
    p95, most = counts.ttft_p95, gates.max_ttft_p95
    enough = counts.requests >= max(1, gates.min_requests)
    if enough and most is not None and p95 is not None and p95 > most:
        return f"ttft_p95: above {most.total_seconds():g} s"
    return None


def judge(rollout: Rollout, now: datetime) -> Rollout:
    """Return the rollout as it shall be: turned back, one step on, done, or unchanged."""
    if rollout.state not in LIVE:
        return rollout
    broken = breach(rollout.gates, rollout.counts)
    if broken is not None:
        reason = f"step {rollout.step + 1} ({rollout.percent} %): {broken}"
        return ended(rollout, RolloutState.REVERTED, reason, now)
    soaked = now - rollout.step_time >= rollout.gates.soak
    enough = rollout.counts.requests >= rollout.gates.min_requests
    if rollout.state is RolloutState.PAUSED or not (soaked and enough):
        return rollout
    if rollout.step == len(rollout.steps) - 1:
        return ended(rollout, RolloutState.DONE, "every step was passed", now)
    return dataclasses.replace(
        rollout,
        step=rollout.step + 1,
        counts=Counts(),
        reason=f"step {rollout.step + 1} ({rollout.percent} %) was passed",
        step_time=now,
        update_time=now,
    )


def overdue(rollout: Rollout, now: datetime) -> timedelta:
    """Return for how long a running step has lasted beyond its soak: nobody asks for its build."""
    if rollout.state is not RolloutState.RUNNING:
        return timedelta()
    return max(timedelta(), now - rollout.step_time - rollout.gates.soak)


def change(rollout: Rollout, action: Action, reason: str, now: datetime) -> Rollout:
    """Do what an operator wants.

    Raises:
        InvalidArgumentError: the reason is too long.
        RolloutEndedError: it has ended, and not in this way.
    """
    if len(reason) > _MAX_REASON or not reason.isprintable():
        raise InvalidArgumentError("too long, or not printable", "reason")
    wanted = {
        Action.PAUSE: RolloutState.PAUSED,
        Action.RESUME: RolloutState.RUNNING,
        Action.REVERT: RolloutState.REVERTED,
    }[action]
    if rollout.state is wanted:
        return rollout
    if rollout.state not in LIVE:
        raise RolloutEndedError(f"this rollout is {rollout.state.value}")
    said = reason or f"{action.value} by an operator"
    if wanted is RolloutState.REVERTED:
        return ended(rollout, wanted, said, now)
    return dataclasses.replace(rollout, state=wanted, reason=said, update_time=now)


def ended(rollout: Rollout, state: RolloutState, reason: str, now: datetime) -> Rollout:
    """End a rollout, and say why."""
    return dataclasses.replace(rollout, state=state, reason=reason, update_time=now)
