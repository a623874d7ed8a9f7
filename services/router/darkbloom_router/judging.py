"""Keeping candidates ready for decisions: judged, measured, priced and in their group.

What only a provider's state decides is computed here when that state changes, in three steps of
different cost: what lasts (`judge`), what measurements move (`measure`), what every attempt moves
(`prepare`). When time alone changes a judgement is kept as a wake.
"""

import heapq
from collections.abc import Iterator
from itertools import count

from darkbloom_router import admission, cost, forecast, gates
from darkbloom_router.groups import BuildIndex
from darkbloom_router.model import Rules, Selection, Tiering
from darkbloom_router.provider import Candidate, Provider
from darkbloom_router.rates import FleetRates

_NEVER = float("inf")
_WAKES_SLACK = 1024


class Judging:
    """The groups of every build, and what puts a candidate into one.

    Args:
        rules: What is demanded, and how prices are made.
        rates: What machines of a kind measure.
    """

    def __init__(self, rules: Rules, rates: FleetRates) -> None:
        self.indexes: dict[str, BuildIndex] = {}
        self._rules = rules
        self._rates = rates
        self._wakes: list[tuple[float, int, Candidate]] = []
        self._order = count()
        self._listed = 0

    def add(self, candidate: Candidate) -> None:
        """Make room for a candidate; it stands in no group before it is prepared."""
        self._listed += 1
        self.indexes.setdefault(candidate.build.build, BuildIndex())

    def remove(self, candidate: Candidate) -> None:
        """Forget a candidate."""
        name = candidate.build.build
        candidate.wake_at = _NEVER
        self._listed -= 1
        index = self.indexes.get(name)
        if index is None:
            return
        index.active -= candidate.inflight
        index.remove(candidate)
        if not index.size:
            del self.indexes[name]

    def judge(self, candidate: Candidate, now: float) -> None:
        """Store what the gates say that neither attempts nor measurements move, and until when."""
        candidate.lasts = gates.lasting(candidate, self._rules, now)
        wake_at = gates.next_change(candidate, self._rules, now)
        if wake_at != candidate.wake_at:
            candidate.wake_at = wake_at
            if wake_at != _NEVER:
                heapq.heappush(self._wakes, (wake_at, next(self._order), candidate))
                self._compact()

    def measure(self, candidate: Candidate) -> None:
        """Store what the measurements of this machine and of its kind come to."""
        rules = self._rules
        candidate.median_tps, candidate.quality_cap = self._of_its_kind(candidate)
        candidate.state = candidate.slot_state
        candidate.cap = candidate.concurrency_cap
        candidate.machine_cap = candidate.provider.concurrency_cap
        candidate.oversized = admission.too_large(candidate)
        cost.measure(candidate)
        forecast.measure(candidate)
        by_cost = rules.selection is Selection.COST and rules.tiering is Tiering.ENFORCE
        candidate.surplus_ms = cost.surplus_ms(candidate) if by_cost else 0.0

    def measured(self, candidate: Candidate) -> bool:
        """Return whether what machines of its kind measure is still what it was judged by."""
        return (candidate.median_tps, candidate.quality_cap) == self._of_its_kind(candidate)

    def prepare(self, candidate: Candidate, now: float) -> None:
        """Store what decisions read: price, forecast, room and group; call after `measure`."""
        rules = self._rules
        cost.prepare(candidate, now)
        forecast.prepare(candidate)
        if rules.selection is Selection.FIRST_CONTENT:
            forecast.rank(candidate, now)
        candidate.room = admission.room(candidate, now)
        lasts = candidate.lasts or gates.lasting(candidate, rules, now)
        index = self.indexes[candidate.build.build]
        index.place(candidate, gates.standing(candidate, lasts))

    def reads(self, candidate: Candidate, now: float) -> None:
        """Store what a prompt that somebody begins to read moves: forecasts alone."""
        forecast.reads(candidate)
        if self._rules.selection is Selection.FIRST_CONTENT:
            forecast.rank(candidate, now)

    def due(self, now: float) -> Iterator[Provider]:
        """Yield the providers that time alone has changed, each to be judged again at once."""
        wakes = self._wakes
        while wakes and wakes[0][0] <= now:
            when, _, candidate = heapq.heappop(wakes)
            if candidate.group is None or candidate.wake_at != when:
                continue
            candidate.wake_at = _NEVER
            yield candidate.provider

    def _of_its_kind(self, candidate: Candidate) -> tuple[float, int]:
        """Return the median rate of its kind, as far as it needs one, and its quality cap."""
        rules, provider = self._rules, candidate.provider
        name, family = candidate.build.build, provider.hardware.chip_family
        median_tps, cap = candidate.median_tps, candidate.quality_cap
        if not candidate.reported_tps:
            median_tps = self._rates.decode(name, family)
        if not candidate.build.scripted:
            solo = self._rates.solo(name, family)
            if not solo and provider.hardware.memory_bandwidth_gbs > 0:
                solo = cost.static_tps(candidate)
            cap = admission.quality_cap(
                solo, rules.min_decode_tps, rules.quality_overcommit, candidate.base_cap
            )
        return median_tps, cap

    def _compact(self) -> None:
        """Drop wakes that were overtaken, once they are the most."""
        if len(self._wakes) > _WAKES_SLACK + 2 * self._listed:
            live = {
                id(wake[2]): wake
                for wake in self._wakes
                if wake[2].group is not None and wake[2].wake_at == wake[0]
            }
            # In place: somebody may be walking through them.
            self._wakes[:] = live.values()
            heapq.heapify(self._wakes)
