"""Attempts that a holder carries for other replicas: places, streams, and nothing of their content.

The asker numbers the stream on the peer lane, the holder the one on the provider's lane; frames are
renumbered and passed on as they are. A place is given back exactly once: when the asker says so,
when the provider has said its last word, or when either lane is lost.
"""

from collections.abc import Callable
from dataclasses import dataclass

from darkbloom_mesh.lane import Lane

from darkbloom_router.attempts import Attempts
from darkbloom_router.conditions import wants
from darkbloom_router.fleet import Fleet
from darkbloom_router.model import Demand
from darkbloom_router.provider import Candidate, Provider
from darkbloom_router.replicas.lane import ProviderLane
from darkbloom_router.reservations import Reservation
from darkbloom_router.timers import Timer


@dataclass(slots=True, eq=False)
class Carried:
    """One attempt of another replica on a provider of ours."""

    asker: Lane
    asker_stream: int
    stream: int
    """On the provider's lane."""
    provider: Provider
    candidate: Candidate
    lane: ProviderLane
    reservation: Reservation
    shape: int
    """Abilities that the request wants."""
    sent: bool = False
    """The request went to the provider."""
    timer: Timer | None = None
    cut: bool = False
    """Its provider lost its trust: no more of the body goes through."""


class Carriage:
    """Everything that this replica carries for others.

    Args:
        fleet: Where places are taken and given back.
        attempts: Numbers streams on providers' lanes.
    """

    def __init__(self, fleet: Fleet, attempts: Attempts) -> None:
        self.by_stream: dict[int, Carried] = {}
        """By the stream on the provider's lane."""
        self._by_asker: dict[Lane, dict[int, Carried]] = {}
        self._fleet = fleet
        self._attempts = attempts
        self._freed: Callable[[Provider], None] = _unwired

    def __len__(self) -> int:
        return len(self.by_stream)

    def wire(self, freed: Callable[[Provider], None]) -> None:
        """Connect who is served when a place is free again."""
        self._freed = freed

    def take(
        self, asker: Lane, stream: int, candidate: Candidate, lane: ProviderLane, demand: Demand
    ) -> Carried:
        """Debit one place; the caller has just seen every gate open."""
        carried = Carried(
            asker=asker,
            asker_stream=stream,
            stream=self._attempts.next_stream(),
            provider=candidate.provider,
            candidate=candidate,
            lane=lane,
            reservation=self._fleet.debit(candidate, demand.tokens, demand.prompt_tokens),
            shape=wants(demand),
        )
        self.by_stream[carried.stream] = carried
        self._by_asker.setdefault(asker, {})[stream] = carried
        return carried

    def of(self, asker: Lane, stream: int) -> Carried | None:
        """Return what an asker carries under a stream."""
        return self._by_asker.get(asker, {}).get(stream)

    def of_asker(self, asker: Lane) -> list[Carried]:
        """Return everything that one asker carries."""
        return list(self._by_asker.get(asker, {}).values())

    def of_provider(self, provider: Provider) -> list[Carried]:
        """Return everything carried on one provider; walks all, for rare events."""
        return [item for item in self.by_stream.values() if item.provider is provider]

    def loads(self, asker: Lane, provider: Provider) -> dict[str, tuple[int, int]]:
        """Return attempts and tokens by build that an asker has debited on one provider."""
        found: dict[str, tuple[int, int]] = {}
        for item in self._by_asker.get(asker, {}).values():
            if item.provider is provider and not item.reservation.ended:
                count, tokens = found.get(item.candidate.build.build, (0, 0))
                found[item.candidate.build.build] = (count + 1, tokens + item.reservation.tokens)
        return found

    def release(self, carried: Carried) -> None:
        """Give the place back; only the first call does."""
        if self._fleet.credit(carried.reservation):
            self._freed(carried.provider)

    def drop(self, carried: Carried) -> None:
        """Forget an attempt, and give its place back."""
        if carried.timer is not None:
            carried.timer.cancel()
        self.by_stream.pop(carried.stream, None)
        of_asker = self._by_asker.get(carried.asker, {})
        of_asker.pop(carried.asker_stream, None)
        if not of_asker:
            self._by_asker.pop(carried.asker, None)
        self.release(carried)


def _unwired(_provider: Provider) -> None:
    raise RuntimeError("carriage is not wired")
