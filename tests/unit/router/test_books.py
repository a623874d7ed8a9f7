"""Places taken and given back in any order: none is lost, none is counted twice."""

from typing import Any

from darkbloom_router.conditions import View
from darkbloom_router.fleet import Fleet
from darkbloom_router.gates import first_gate
from darkbloom_router.health import Health
from darkbloom_router.model import Beat, Blame, Gate, Rules, Selection
from darkbloom_router.placement import audit, choose
from darkbloom_router.provider import Candidate
from darkbloom_router.reservations import Reservation
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from tests.unit.router.fleets import BUILD, CATALOG, DEMAND, FACTS, NOW, capacity, provider, verdict

NAMES = st.sampled_from(["a", "b", "c"])
RULES = Rules(selection=Selection.FIRST_CONTENT, sample=2)


class Books(RuleBasedStateMachine):
    """Reserve, begin, cancel, expire, fail, reconnect and let time pass, in any order."""

    places = Bundle("places")

    def __init__(self) -> None:
        super().__init__()
        self.now = NOW
        self.fleet = Fleet(RULES)
        self.fleet.set_catalog(CATALOG)
        self.fleet.advance(NOW)
        self.health = Health(self.fleet)
        self.live: list[Reservation] = []
        self.sequence = 10

    @rule(name=NAMES, version=st.sampled_from(["1.0.0", "1.0.1"]))
    def connect(self, name: str, version: str) -> None:
        """Connect or reconnect; an older stream of the identity leaves."""
        old = self.fleet.find(f"prov_{name}")
        if old is not None:
            self.fleet.leave(old)
        far = verdict(expires_at=self.now + 5000)
        item = provider(name, version=version, joined_at=self.now, verdict=far, passed_at=self.now)
        self.fleet.join(item, [FACTS])

    @rule(name=NAMES, carried=st.booleans())
    def disconnect(self, name: str, carried: bool) -> None:
        """Lose a stream; what it carried is given back later, by somebody else."""
        item = self.fleet.find(f"prov_{name}")
        if item is not None:
            self.fleet.leave(item)
            self.health.lost(item, [(BUILD, 0)] if carried else [], self.now)

    @rule(target=places, pick=st.integers(0, 7), lease=st.sampled_from([2.0, None]))
    def reserve(self, pick: int, lease: float | None) -> Reservation | None:
        """Choose and debit in one step, as dispatch does."""
        view = View(DEMAND, RULES, self.now, deadline=self.now + 60)
        choice = choose(self.fleet, BUILD, view, lambda count: pick % count)
        if choice.candidate is None:
            return None
        if not choice.sick:
            assert first_gate(choice.candidate, view) is Gate.ELIGIBLE
        taken = self.fleet.debit(choice.candidate, DEMAND.tokens, DEMAND.prompt_tokens)
        taken.expires_at = float("inf") if lease is None else self.now + lease
        self.live.append(taken)
        return taken

    @rule(taken=places)
    def begin(self, taken: Reservation | None) -> None:
        """Deliver the first content, perhaps again, perhaps too late."""
        if taken is not None:
            taken.started = True
            self.fleet.began(taken)

    @rule(taken=consumes(places), again=st.booleans())
    def release(self, taken: Reservation | None, again: bool) -> None:
        """Complete or cancel; a second release does nothing."""
        if taken is None:
            return
        assert self.fleet.credit(taken) is (taken in self.live)
        if again:
            assert not self.fleet.credit(taken)
        if taken in self.live:
            self.live.remove(taken)

    @rule(seconds=st.sampled_from([0.1, 3.0, 61.0, 400.0]))
    def pass_time(self, seconds: float) -> None:
        """Let leases and sentences run out."""
        self.now += seconds
        self.fleet.advance(self.now)
        for taken in [item for item in self.live if item.expires_at <= self.now]:
            if not taken.started:
                assert self.fleet.credit(taken)
                self.live.remove(taken)

    @rule(taken=places, blame=st.sampled_from(list(Blame)))
    def fail(self, taken: Reservation | None, blame: Blame) -> None:
        """Hold something against the machine of an attempt."""
        if taken is not None:
            self.health.failed(taken.candidate, blame, 0, self.now)

    @rule(taken=places)
    def accept(self, taken: Reservation | None) -> None:
        """Hear that a machine admitted an attempt."""
        if taken is not None:
            self.health.accepted(taken.candidate, self.now)
            self.health.succeeded(taken.candidate, self.now)

    @rule(name=NAMES, used=st.integers(0, 10_000), draining=st.booleans())
    def heartbeat(self, name: str, used: int, draining: bool) -> None:
        """Take a report that may contradict our books."""
        item = self.fleet.find(f"prov_{name}")
        if item is not None:
            self.sequence += 1
            report = capacity(self.sequence, budget_used=used)
            self.fleet.beat(item, Beat(draining=draining, capacity=report), self.now)

    @invariant()
    def books_balance(self) -> None:
        """Every provider's books are the sum of the places that are open on it."""
        for item in self.fleet.providers.values():
            mine = [taken for taken in self.live if taken.candidate.provider is item]
            assert item.inflight == len(mine)
            assert item.pending_tokens == sum(taken.tokens for taken in mine)
            assert abs(item.service_ms - sum(taken.service_ms for taken in mine)) < 1e-6
            for row in item.candidates.values():
                assert row.pending_prompt == sum(taken.prompt_tokens for taken in mine)
                assert 0 <= row.inflight <= row.base_cap
                assert row.pending_tokens <= 10_000
        running = sum(row.inflight for row in self.fleet.rows(BUILD))
        assert self.fleet.index(BUILD).active == running

    @invariant()
    def groups_are_sound(self) -> None:
        """Every candidate stands in one group, at the place that it believes in."""
        index = self.fleet.index(BUILD)
        seen: set[Any] = set()
        for key, members in index.groups.items():
            assert members
            for place, row in enumerate(members):
                assert (row.group, row.row) == (key, place)
                seen.add(row)
        assert len(seen) == index.size == len(list(index))
        held = {row for item in self.fleet.providers.values() for row in item.candidates.values()}
        assert seen == held

    @invariant()
    def decisions_agree_with_the_chain(self) -> None:
        """Groups and prepared numbers say what the whole chain says."""
        assert audit(self.fleet, BUILD, View(DEMAND, RULES, self.now, deadline=self.now + 60))


Books.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestBooks = Books.TestCase


def test_a_candidate_that_left_still_takes_its_place_back() -> None:
    machine = Books()
    machine.connect("a", "1.0.0")
    [row] = machine.fleet.rows(BUILD)
    taken = machine.fleet.debit(row, 10)
    machine.fleet.leave(row.provider)
    assert machine.fleet.credit(taken)
    assert not machine.fleet.credit(taken)
    assert isinstance(row, Candidate)
    assert row.inflight == row.provider.inflight == 0
    assert machine.fleet.index(BUILD).active == 0
