"""Every row of the retry ladder: what a failure before the first content leads to."""

import pytest
from darkbloom.router.v1 import gateway_lane_pb2 as gw
from darkbloom_router import failures, refusals
from darkbloom_router.entry import DispatchLimits
from darkbloom_router.failures import Code, Detail, Ladder, judge
from darkbloom_router.model import Rules

from tests.unit.router.desk import Desk, K, released

FIVE = ("a", "b", "c", "d", "e")


def fail_all(desk: Desk, stream: int, code: int, reason: int = 0, status: int = 500) -> int:
    """Let everybody who is offered fail alike; returns how many were tried."""
    tried = 0
    while desk.refusal(stream) is None:
        desk.error(desk.seal(desk.offers(stream)[-1]), code, reason, status)
        tried += 1
    return tried


@pytest.mark.parametrize(
    ("code", "detail", "status", "tried", "answer"),
    [
        (Code.INVALID_REQUEST, 0, 400, 1, (400, "invalid_request_error")),
        (0, Detail.JINJA_CHANNEL_TAGS, 422, 1, (422, "model_capability")),
        (0, Detail.JINJA_NULL_BRIDGE, 422, 1, (422, "model_capability")),
        (0, Detail.JINJA_TEMPLATE, 422, 1, (422, "model_capability")),
        (0, Detail.REQUEST_EXCEEDS_CONTEXT, 400, 1, (429, "oversized_request")),
        (Code.CAPACITY, Detail.TOKEN_BUDGET_EXHAUSTED, 503, 3, (429, "oversized_request")),
        (Code.CAPACITY, Detail.QUEUE_FULL, 503, 3, (429, "oversized_request")),
        (Code.CAPACITY, Detail.CAPACITY_TIMEOUT, 503, 3, (429, "oversized_request")),
        (Code.CAPACITY, Detail.DRAINING, 503, 5, (503, "provider_error")),
        (Code.INTERNAL_FAILURE, 0, 504, 5, (504, "provider_error")),
        (Code.GENERATION_FAILURE, 0, 500, 5, (502, "provider_error")),
        (Code.MODEL_UNAVAILABLE, 0, 503, 5, (503, "provider_error")),
        (0, 0, 413, 5, (413, "payload_too_large")),
    ],
)
def test_each_class_of_failure_stops_where_the_ladder_says(
    code: int, detail: int, status: int, tried: int, answer: tuple[int, str]
) -> None:
    desk = Desk(*FIVE)
    stream = desk.open()
    assert fail_all(desk, stream, code, detail, status) == tried
    refused = desk.refusal(stream)
    assert refused is not None
    assert (refused.http_status, refused.code) == answer
    assert len(released(desk.billing)) == 1
    assert all(one.inflight == 0 for one in desk.providers.values())


def test_no_provider_is_offered_twice() -> None:
    desk = Desk(*FIVE)
    stream = desk.open()
    fail_all(desk, stream, Code.GENERATION_FAILURE)
    offered = [offer.provider.provider_id for offer in desk.offers(stream)]
    assert len(set(offered)) == len(offered) == len(FIVE)


def test_the_ceiling_of_attempts_holds() -> None:
    desk = Desk(*FIVE, limits=DispatchLimits(max_attempts=2))
    stream = desk.open()
    assert fail_all(desk, stream, Code.GENERATION_FAILURE) == 2


def test_a_retry_asks_the_runners_up_before_the_fleet() -> None:
    desk = Desk(*FIVE)
    stream, attempt = desk.dispatched()
    desk.error(attempt, Code.GENERATION_FAILURE)
    assert len(desk.offers(stream)) == 2
    assert desk.sample("routing_decisions_total", model="org/small", outcome="selected") == 1


def test_a_runner_up_is_looked_at_again_before_he_is_offered() -> None:
    desk = Desk("a", "b", "c")
    stream, attempt = desk.dispatched()
    others = [one for one in desk.providers.values() if one is not attempt.provider]
    desk.fleet.set_verdict(others[0], None)
    desk.error(attempt, Code.GENERATION_FAILURE)
    assert desk.offers(stream)[-1].provider.provider_id == others[1].provider_id


def test_a_fault_steers_away_from_the_version_that_failed() -> None:
    desk = Desk("a", "b", "c")
    old = desk.providers["a"].version
    stream, attempt = desk.dispatched()
    others = [one for one in desk.providers.values() if one is not attempt.provider]
    others[1].version = "2.0.0"
    desk.error(attempt, Code.GENERATION_FAILURE)
    again = desk.seal(desk.offers(stream)[-1])
    assert again.provider is others[1]
    desk.error(again, Code.GENERATION_FAILURE)
    assert desk.attempt(desk.offers(stream)[-1]).provider.version == old


def test_after_two_that_would_be_late_a_third_needs_evidence() -> None:
    desk = Desk("a", "b", "c", "d")
    stream, attempt = desk.dispatched()
    for _ in range(2):
        desk.error(attempt, Code.CAPACITY, Detail.DEADLINE_UNREACHABLE, 503)
        if attempt.request.ladder.unreachable < 2:
            attempt = desk.seal(desk.offers(stream)[-1])
    # The rates of the others are known and fresh, so that they are believed.
    assert len(desk.offers(stream)) == 3

    doubted = Desk("a", "b", "c", "d")
    stream, attempt = doubted.dispatched()
    for one in doubted.providers.values():
        one.capacity_at = doubted.timers.now() - 60
    for _ in range(2):
        doubted.error(attempt, Code.CAPACITY, Detail.DEADLINE_UNREACHABLE, 503)
        if doubted.refusal(stream) is None:
            attempt = doubted.seal(doubted.offers(stream)[-1])
    refused = doubted.refusal(stream)
    assert refused is not None
    assert (refused.http_status, refused.code) == (429, "deadline_unreachable")
    assert len(doubted.offers(stream)) == 2


async def test_three_that_do_not_begin_are_enough() -> None:
    desk = Desk(*FIVE, hedge_after_s=0)
    stream = desk.open(deadline_s=150)
    tried = 0
    while desk.refusal(stream) is None:
        desk.seal(desk.offers(stream)[-1])
        tried += 1
        await desk.pass_time(11)
    refused = desk.refusal(stream)
    assert refused is not None
    assert (tried, refused.http_status, refused.code) == (3, 429, "first_chunk_timeout")


async def test_a_hard_ceiling_stops_at_the_first_miss() -> None:
    desk = Desk(*FIVE, rules=Rules(ttft_ceiling=True), hedge_after_s=0)
    stream, _ = desk.dispatched(deadline_s=150)
    await desk.pass_time(11)
    refused = desk.refusal(stream)
    assert refused is not None
    assert (refused.http_status, refused.code) == (429, "ttft_too_slow")


async def test_a_preamble_does_not_buy_more_than_its_time() -> None:
    desk = Desk("a", "b", hedge_after_s=0)
    stream, attempt = desk.dispatched(deadline_s=150)
    desk.down(attempt, K.FRAME_KIND_ACCEPTED, b"")
    desk.chunk(attempt, 0, K.FRAME_KIND_PREAMBLE)
    await desk.pass_time(80)
    assert len(desk.offers(stream)) == 1
    await desk.pass_time(11)
    assert len(desk.offers(stream)) == 2


async def test_nobody_waits_without_end_whatever_he_names() -> None:
    desk = Desk("a", limits=DispatchLimits(default_deadline_s=20.0, deadline_token_ms=10.0))
    stream, attempt = desk.dispatched(deadline_s=500)
    assert attempt.request.deadline == desk.timers.now() + 20 + 100 * 0.01
    desk.down(attempt, K.FRAME_KIND_ACCEPTED, b"")
    await desk.pass_time(21.1)
    refused = desk.refusal(stream)
    assert refused is not None
    assert refused.http_status == 429
    assert refused.HasField("retry_after")


def test_a_new_attempt_does_not_reset_the_clock() -> None:
    desk = Desk("a", "b")
    stream, attempt = desk.dispatched()
    deadline = attempt.request.deadline
    desk.error(attempt, Code.GENERATION_FAILURE)
    assert desk.attempt(desk.offers(stream)[-1]).request.deadline == deadline


def test_a_retry_never_waits_in_line() -> None:
    desk = Desk("a", capacity=None)
    stream, attempt = desk.dispatched()
    desk.error(attempt, Code.CAPACITY, Detail.DRAINING, 503)
    assert desk.refusal(stream) is not None
    assert desk.line.depth("org/small") == 0


def test_who_charges_too_much_everywhere_is_answered_with_402() -> None:
    desk = Desk("a", "b")
    stream = desk.open()
    for _ in range(2):
        desk.decline(desk.offers(stream)[-1])
    refused = desk.refusal(stream)
    assert refused is not None
    assert (refused.http_status, refused.reason) == (402, gw.REFUSAL_REASON_PRICE)


@pytest.mark.parametrize(
    ("weaker", "stronger"),
    [
        (failures.TOO_DEAR, failures.STALLED),
        (failures.STALLED, judge(Code.CAPACITY, Detail.QUEUE_FULL, 503)),
        (judge(Code.CAPACITY, 0, 503), judge(0, 0, 413)),
        (judge(0, 0, 413), failures.LOST),
        (failures.LOST, judge(Code.INVALID_REQUEST, 0, 400)),
    ],
)
def test_the_stronger_word_is_the_answer_in_either_order(
    weaker: failures.Failure, stronger: failures.Failure
) -> None:
    for order in ((weaker, stronger), (stronger, weaker)):
        ladder = Ladder(max_attempts=64)
        for failure in order:
            ladder.note(failure)
        assert ladder.verdict is stronger.refusal


def test_a_timeout_that_a_machine_admits_stays_the_answer() -> None:
    ladder = Ladder(max_attempts=64)
    ladder.note(judge(Code.INTERNAL_FAILURE, 0, 504))
    ladder.note(judge(Code.INTERNAL_FAILURE, 0, 500))
    assert ladder.verdict is refusals.PROVIDER_TIMEOUT
