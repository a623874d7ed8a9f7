"""What attempts teach about machines: outcomes go into the fault memory, the fleet judges again.

A machine that never failed costs nothing here: no entry is made for a success.
"""

from collections.abc import Callable, Iterable

from darkbloom_router.faults.memory import Faults
from darkbloom_router.faults.node import Outcome
from darkbloom_router.faults.pair import PairFaults
from darkbloom_router.fleet import Fleet
from darkbloom_router.model import Blame
from darkbloom_router.provider import Candidate, Provider


def _unheard(_build: str, _kind: str) -> None:
    """Tell nobody."""


class Health:
    """Writes the fault memory of one fleet.

    Args:
        fleet: Whose machines.
        tripped: Hears of each sentence that begins, as build and closed word.
    """

    def __init__(self, fleet: Fleet, tripped: Callable[[str, str], None] = _unheard) -> None:
        self._fleet = fleet
        self._tripped = tripped

    def accepted(self, candidate: Candidate, now: float) -> None:
        """Take an admission: whatever said that it is full is answered."""
        pair = candidate.pair
        if pair is not None:
            pair.accepted(now)
            self._fleet.refresh(candidate.provider)

    def succeeded(self, candidate: Candidate, now: float) -> None:
        """Take a complete answer."""
        provider = candidate.provider
        if provider.faults is not None:
            provider.faults.node.note(Outcome.SUCCESS, now)
            self._fleet.refresh(provider)

    def failed(self, candidate: Candidate, blame: Blame, shape: int, now: float) -> None:
        """Take a failed attempt.

        Args:
            candidate: Whose.
            blame: Which memory it feeds.
            shape: Abilities that the request wanted: a build may fail at one kind only.
            now: Monotonic seconds.
        """
        provider, build = candidate.provider, candidate.build.build
        if blame is Blame.NOBODY:
            if (pair := candidate.pair) is not None:
                pair.returned()
                self._fleet.refresh(provider)
            return
        found = provider.faults = self._fleet.faults.of(provider.stable_id, now)
        pair = found.pair(build)
        before = _open(found, pair, now)
        if blame is Blame.MACHINE:
            pair.returned()
            pair.strike(shape, now, hold_s=self._fleet.faults.error_hold_s)
            found.node.note(Outcome.FAULT, now)
        elif blame is Blame.FULL:
            pair.full(now)
            found.node.note(Outcome.FULL, now)
        elif blame is Blame.LOAD:
            pair.returned()
            pair.failed_load(now)
        else:
            pair.returned()
            pair.refused_at = now
        for kind in _open(found, pair, now) - before:
            self._tripped(build, kind)
        self._refresh_all(provider)

    def lost(self, provider: Provider, carried: Iterable[tuple[str, int]], now: float) -> None:
        """Take a stream that broke while it carried attempts, given as build and shape."""
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
