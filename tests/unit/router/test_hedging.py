"""Two providers race for one request: one answers, one is told to stop, one hold ends once."""

import pytest
from darkbloom.router.v1 import gateway_lane_pb2 as gw
from darkbloom.router.v1 import provider_link_pb2 as pl
from darkbloom_router.attempts import Attempt, Phase
from darkbloom_router.failures import Code
from darkbloom_router.governor import Governor, Leave, Ticket
from darkbloom_router.settlement import End
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.unit.router.desk import Desk, K, released, settled
from tests.unit.router.fleets import BUILD


async def race(*names: str) -> tuple[Desk, int, Attempt, Attempt]:
    """Return a request that two providers have."""
    desk = Desk(*(names or ("a", "b", "c", "d")))
    stream, first = desk.dispatched()
    await desk.pass_time(1.1)
    offer = desk.offers(stream)[-1]
    assert offer.hedge
    return desk, stream, first, desk.seal(offer)


def answer(desk: Desk, attempt: Attempt) -> None:
    """Let a provider answer, and the gateway open everything."""
    desk.chunk(attempt)
    desk.chunk(attempt, 1, K.FRAME_KIND_CHUNK_FINAL)
    desk.terminal(attempt)
    desk.close(attempt)


@pytest.mark.parametrize("winner", [0, 1])
async def test_the_first_content_wins_and_the_other_is_stopped_unpaid(winner: int) -> None:
    desk, _, *racers = await race()
    won, lost = racers[winner], racers[1 - winner]
    desk.chunk(won)
    assert [one.reason for one in desk.cancelled(lost)] == [pl.CANCEL_REASON_LOST_RACE]
    assert lost.stream not in desk.attempts.by_stream
    assert lost.provider.inflight == 0

    desk.chunk(lost)
    desk.terminal(lost)
    desk.chunk(won, 1, K.FRAME_KIND_CHUNK_FINAL)
    desk.terminal(won)
    desk.close(won)
    assert [order.attempt_id for order in settled(desk.billing)] == [won.attempt_id]
    assert not released(desk.billing)
    [(_, ack)] = desk.lanes[lost.provider].of(K.FRAME_KIND_TERMINAL_ACK)
    assert ack.disposition == pl.DISPOSITION_RELEASED
    assert desk.hedging.governor.active == 0
    assert not desk.attempts.by_stream
    assert not len(desk.requests)


async def test_acceptance_and_preamble_do_not_win() -> None:
    desk, _, first, second = await race()
    desk.down(second, K.FRAME_KIND_ACCEPTED, b"")
    desk.chunk(second, 0, K.FRAME_KIND_PREAMBLE)
    assert first.phase is Phase.SENT
    desk.chunk(first)
    assert first.phase is Phase.COMMITTED
    assert desk.cancelled(second)


async def test_when_one_racer_fails_the_other_is_awaited() -> None:
    desk, stream, first, second = await race()
    desk.error(first, Code.GENERATION_FAILURE)
    assert len(desk.offers(stream)) == 2
    answer(desk, second)
    assert [order.attempt_id for order in settled(desk.billing)] == [second.attempt_id]


async def test_a_deterministic_word_of_one_racer_is_not_masked_by_the_other() -> None:
    desk, stream, first, second = await race()
    desk.error(second, Code.INVALID_REQUEST, status=400)
    desk.error(first, Code.GENERATION_FAILURE)
    refused = desk.refusal(stream)
    assert refused is not None
    assert refused.http_status == 400
    assert len(desk.offers(stream)) == 2
    assert len(released(desk.billing)) == 1


async def test_both_fail_and_the_request_moves_on_without_another_race() -> None:
    desk, stream, first, second = await race()
    desk.error(first, Code.GENERATION_FAILURE)
    desk.error(second, Code.GENERATION_FAILURE)
    third = desk.offers(stream)[-1]
    assert not third.hedge
    desk.seal(third)
    await desk.pass_time(5)
    assert len(desk.offers(stream)) == 3


async def test_a_declined_second_offer_leaves_the_first_alone() -> None:
    desk = Desk("a", "b")
    stream, first = desk.dispatched()
    await desk.pass_time(1.1)
    desk.decline(desk.offers(stream)[-1], gw.DECLINE_REASON_VERDICT)
    answer(desk, first)
    assert len(settled(desk.billing)) == 1
    assert desk.hedging.governor.active == 0


async def test_a_consumer_who_leaves_stops_both() -> None:
    desk, _, first, second = await race()
    desk.hang_up(first)
    desk.hang_up(second)
    assert desk.cancelled(first)
    assert desk.cancelled(second)
    assert len(released(desk.billing)) == 1
    assert desk.hedging.governor.active == 0


async def test_the_deadline_stops_both() -> None:
    desk, stream, first, second = await race()
    desk.down(first, K.FRAME_KIND_ACCEPTED, b"")
    desk.down(second, K.FRAME_KIND_ACCEPTED, b"")
    await desk.pass_time(20)
    assert desk.refusal(stream) is not None
    assert desk.cancelled(first)
    assert desk.cancelled(second)
    assert not desk.attempts.by_stream


async def test_a_lost_gateway_stops_both_and_keeps_one_hold() -> None:
    desk, _, first, second = await race()
    desk.losses.gateway(desk.gateway)
    assert desk.cancelled(first)
    assert desk.cancelled(second)
    assert not desk.billing.orders
    assert len(desk.requests.ids()) == 1


async def test_a_retried_request_is_not_hedged() -> None:
    desk = Desk("a", "b", "c")
    stream, first = desk.dispatched()
    desk.error(first, Code.GENERATION_FAILURE)
    desk.seal(desk.offers(stream)[-1])
    await desk.pass_time(5)
    assert len(desk.offers(stream)) == 2


async def test_nobody_races_where_everybody_is_at_work() -> None:
    desk = Desk("a", "b")
    desk.dispatched()
    stream, _ = desk.dispatched()
    await desk.pass_time(1.1)
    assert len(desk.offers(stream)) == 1
    assert desk.sample("hedge_governor_suppressed_total", verdict="no_idle_capacity") == 2


async def test_a_machine_whose_rates_are_not_believed_does_not_race() -> None:
    desk = Desk("a", "b")
    stream, _ = desk.dispatched()
    await desk.clock.advance(130)
    desk.timers.fire()
    assert not any(offer.hedge for offer in desk.offers(stream))


def ticket(governor: Governor, **changes: int) -> Ticket | Leave:
    return governor.ask(BUILD, **{"queued": 0, "alternative": True, "idle": 4, **changes})


def test_the_governor_looks_in_order() -> None:
    governor = Governor()
    assert ticket(governor, queued=1, alternative=False) is Leave.QUEUED
    assert ticket(governor, alternative=False) is Leave.NO_IDLE_CAPACITY
    assert ticket(governor, idle=0) is Leave.GLOBAL_BUDGET
    assert isinstance(ticket(governor), Ticket)
    assert ticket(governor, idle=7) is Leave.GLOBAL_BUDGET
    assert isinstance(ticket(governor, idle=8), Ticket)


def test_races_that_are_never_won_are_run_once_in_sixteen() -> None:
    governor = Governor()
    for _ in range(8):
        made = ticket(governor)
        assert isinstance(made, Ticket)
        assert made.end(won=False)
        assert not made.end(won=True)
    verdicts = [ticket(governor) for _ in range(16)]
    assert verdicts[:15] == [Leave.WIN_RATE] * 15
    assert isinstance(verdicts[15], Ticket)
    assert governor.active == 1


class Races(RuleBasedStateMachine):
    """Any order of frames, failures, departures and time; money and places stay whole."""

    def __init__(self) -> None:
        super().__init__()
        self.desk = Desk("a", "b", "c", "d", hedge_after_s=1.0)
        self.known: list[Attempt] = []
        self.sealed: set[int] = set()
        self.opened = 0

    @rule()
    @precondition(lambda self: self.opened < 6)
    def open(self) -> None:
        self.opened += 1
        self.desk.open(deadline_s=30)

    @rule()
    def seal(self) -> None:
        for _, offer in self.desk.lane.of(K.FRAME_KIND_OFFER):
            stream = offer.attempt_stream
            if stream in self.desk.attempts.by_stream and stream not in self.sealed:
                self.sealed.add(stream)
                self.known.append(self.desk.seal(offer))

    @rule(seconds=st.sampled_from([0.5, 1.1, 4.0, 12.0, 31.0]))
    def wait(self, seconds: float) -> None:
        self.desk.clock.jump(seconds)
        for sequence, made in enumerate(list(self.desk.lanes), start=2):
            self.desk.beat(made, sequence)
        self.desk.timers.fire()

    @rule(data=st.data(), deed=st.sampled_from(["chunk", "final", "terminal", "error", "bad"]))
    @precondition(lambda self: self.known)
    def provider_acts(self, data: st.DataObject, deed: str) -> None:
        attempt, desk = data.draw(st.sampled_from(self.known[-6:])), self.desk
        if deed == "chunk":
            desk.chunk(attempt, attempt.tokens_out + 1)
        elif deed == "final":
            desk.chunk(attempt, attempt.tokens_out, K.FRAME_KIND_CHUNK_FINAL)
        elif deed == "terminal":
            desk.terminal(attempt)
        else:
            code = Code.INVALID_REQUEST if deed == "bad" else Code.GENERATION_FAILURE
            desk.error(attempt, code)

    @rule(data=st.data(), deed=st.sampled_from(["close", "hang_up", "hang_up_paid"]))
    @precondition(lambda self: self.known)
    def gateway_acts(self, data: st.DataObject, deed: str) -> None:
        attempt = data.draw(st.sampled_from(self.known[-6:]))
        if deed == "close":
            self.desk.close(attempt)
        else:
            # Nobody can have opened anything of an answer that has not begun.
            begun = attempt.phase >= Phase.COMMITTED
            self.desk.hang_up(attempt, frames=int(deed == "hang_up_paid" and begun))

    @invariant()
    def each_hold_ends_at_most_once(self) -> None:
        billing = self.desk.billing
        ends = [order.request_id for order in billing.moved]
        assert len(ends) == len(set(ends))
        # Not even a second order is sent that billing would have to refuse.
        orders = [order.request_id for order in billing.orders]
        assert len(orders) == len(set(orders))
        assert all(end is not End.REPLAYED for end in billing.ended.values())

    @invariant()
    def places_are_whole(self) -> None:
        live: dict[str, int] = {}
        for attempt in self.desk.attempts.by_stream.values():
            if not attempt.reservation.ended:
                name = attempt.provider.provider_id
                live[name] = live.get(name, 0) + 1
        for made in self.desk.lanes:
            assert made.inflight == live.get(made.provider_id, 0)
            assert made.pending_tokens >= 0

    @invariant()
    def races_are_counted(self) -> None:
        racing = [
            attempt
            for attempt in self.desk.attempts.by_stream.values()
            if attempt.ticket is not None and not attempt.ticket.over
        ]
        assert self.desk.hedging.governor.active == len(racing)

    @invariant()
    def at_most_two_race_and_one_commits(self) -> None:
        requests: dict[str, list[Attempt]] = {}
        for attempt in self.desk.attempts.by_stream.values():
            if attempt.live:
                requests.setdefault(attempt.request.request_id, []).append(attempt)
        for attempts in requests.values():
            committed = [one for one in attempts if one.phase is Phase.COMMITTED]
            assert len(attempts) <= (1 if committed else 2)


TestRaces = Races.TestCase
TestRaces.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
