"""What attempts teach about machines: outcomes go into the fault memory, the fleet judges again.

A machine that never failed costs nothing here: no entry is made for a success.
"""

from collections.abc import Callable, Iterable

from darkbloom_router.faults.memory import Faults
from darkbloom_router.faults.node import Outcome
from darkbloom_router.faults.pair import PairFaults
from darkbloom_router.fleet import Fleet
from darkbloom_router.model import Blame, Lesson
from darkbloom_router.provider import Candidate, Provider


def _unheard(_build: str, _kind: str) -> None:
    """Tell nobody."""


def _untold(_candidate: Candidate, _lesson: Lesson, _shape: int) -> None:
    """Nobody else holds machines."""


def _answer(pair: PairFaults, lesson: Lesson, now: float) -> None:
    if lesson is Lesson.ACCEPTED:
        pair.accepted(now)
    else:
        pair.returned()


_BLAMED = {
    Blame.NOBODY: Lesson.NOTHING,
    Blame.MACHINE: Lesson.FAULT,
    Blame.FULL: Lesson.FULL,
    Blame.LOAD: Lesson.LOAD,
    Blame.LATE: Lesson.LATE,
}
_KNOWN_ONLY = frozenset({Lesson.ACCEPTED, Lesson.SUCCESS, Lesson.NOTHING})
"""Lessons that change nothing where nothing is held against a machine."""


class Health:
    """Writes the fault memory of one fleet.

    A machine's memory has one writer, the replica that holds its stream. What is learned here about
    a machine of another replica is told there, and comes back with what others have learned.

    Args:
        fleet: Whose machines.
        tripped: Hears of each sentence that begins, as build and closed word.
    """

    def __init__(self, fleet: Fleet, tripped: Callable[[str, str], None] = _unheard) -> None:
        self.tell: Callable[[Candidate, Lesson, int], None] = _untold
        """Tells the holder of a machine what an attempt has taught, and of which shape it was."""
        self._fleet = fleet
        self._tripped = tripped

    def accepted(self, candidate: Candidate, now: float) -> None:
        """Take an admission: whatever said that it is full is answered."""
        self.learn(candidate, Lesson.ACCEPTED, 0, now)

    def succeeded(self, candidate: Candidate, now: float) -> None:
        """Take a complete answer."""
        self.learn(candidate, Lesson.SUCCESS, 0, now)

    def failed(self, candidate: Candidate, blame: Blame, shape: int, now: float) -> None:
        """Take a failed attempt.

        Args:
            candidate: Whose.
            blame: Which memory it feeds.
            shape: Abilities that the request wanted: a build may fail at one kind only.
            now: Monotonic seconds.
        """
        self.learn(candidate, _BLAMED[blame], shape, now)

    def learn(self, candidate: Candidate, lesson: Lesson, shape: int, now: float) -> None:
        """Take what an attempt has taught, from here or from another replica."""
        provider = candidate.provider
        if lesson in _KNOWN_ONLY and provider.faults is None:
            return
        if provider.remote:
            self.tell(candidate, lesson, shape)
        elif lesson is Lesson.SUCCESS and provider.faults is not None:
            provider.faults.node.note(Outcome.SUCCESS, now)
            self._fleet.refresh(provider)
        elif lesson in _KNOWN_ONLY:
            if (pair := candidate.pair) is not None:
                _answer(pair, lesson, now)
                self._fleet.refresh(provider)
        else:
            self._punish(candidate, lesson, shape, now)

    def _punish(self, candidate: Candidate, lesson: Lesson, shape: int, now: float) -> None:
        provider, build = candidate.provider, candidate.build.build
        found = provider.faults = self._fleet.faults.of(provider.stable_id, now)
        pair = found.pair(build)
        before = _open(found, pair, now)
        if lesson is Lesson.FAULT:
            pair.returned()
            pair.strike(shape, now, hold_s=self._fleet.faults.error_hold_s)
            found.node.note(Outcome.FAULT, now)
        elif lesson is Lesson.FULL:
            pair.full(now)
            found.node.note(Outcome.FULL, now)
        elif lesson is Lesson.LOAD:
            pair.returned()
            pair.failed_load(now)
        else:
            pair.returned()
            pair.refused_at = now
        for kind in _open(found, pair, now) - before:
            self._tripped(build, kind)
        self._refresh_all(provider)

    def lost(self, provider: Provider, carried: Iterable[tuple[str, int]], now: float) -> None:
        """Take a stream that broke while it carried attempts, given as build and shape.

        A machine of another replica is struck there, once, whoever had attempts on it.
        """
        if provider.remote:
            return
        builds: dict[str, set[int]] = {}
        for build, shape in carried:
            builds.setdefault(build, set()).add(shape)
        if builds:
            self._fleet.faults.flushed(provider.stable_id, builds, now)
            provider.faults = self._fleet.faults.find(provider.stable_id)
            self._refresh_all(provider)

    def identified(self, provider: Provider, old: bytes) -> None:
        """Carry faults over to a better name of a machine."""
        self._fleet.faults.move(old, provider.stable_id)
        provider.faults = self._fleet.faults.find(provider.stable_id)
        self._refresh_all(provider)

    def sweep(self, now: float) -> int:
        """Forget idle machines without a stream; returns how many."""
        live = {provider.stable_id for provider in self._fleet.providers.values()}
        return self._fleet.faults.sweep(now, live)

    def _refresh_all(self, provider: Provider) -> None:
        """Judge every stream of the machine again: an old and a new one may overlap."""
        self._fleet.refresh(provider)
        holder = self._fleet.by_identity(provider.identity_key)
        if holder is not None and holder is not provider:
            holder.faults = provider.faults
            self._fleet.refresh(holder)


def _open(found: Faults, pair: PairFaults, now: float) -> set[str]:
    """Return the sentences that run, in closed words."""
    words = {
        "breaker": found.node.breaker.shut(now),
        "ejection": found.node.ejection.shut(now),
        "error_cooldown": bool(pair.error_shapes(now)),
        "capacity_cooldown": pair.cooldown.shut(now),
        "load_cooldown": pair.load_until > now,
        "budget_clamp": pair.clamped(now),
    }
    return {word for word, shut in words.items() if shut}
