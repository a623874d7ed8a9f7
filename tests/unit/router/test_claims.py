"""End-to-end mode at the router: an offer is kept for a moment, and claimed once, by any lane."""

from collections.abc import Callable

import pytest
from darkbloom.common.v1.frame_pb2 import FrameKind as K
from darkbloom.router.v1 import gateway_lane_pb2 as gw
from darkbloom_router.attempts import Attempt, Phase
from darkbloom_router.failures import Code, Detail

from tests.unit.router.desk import Desk, released, settled


def test_a_promised_offer_is_repeated_to_the_lane_that_claims_it() -> None:
    desk = Desk("a")
    offer = desk.promise(offer_context=b"plan")
    other, lane = desk.worker(9)
    stream = desk.claim(offer, gateway=other)
    [(at, again)] = lane.of(K.FRAME_KIND_OFFER)
    assert (at, again.attempt_id, again.context) == (stream, offer.attempt_id, b"plan")
    assert again.verdict == offer.verdict
    assert not offer.context


def test_after_the_claim_all_frames_belong_to_the_new_lane() -> None:
    desk = Desk("a")
    offer = desk.promise()
    other, lane = desk.worker(9)
    desk.claim(offer, gateway=other)

    attempt = desk.seal(offer)
    assert attempt.phase is Phase.OFFERED
    desk.seal(offer, other)
    assert attempt.phase is Phase.SENT
    desk.chunk(attempt)
    assert lane.of(K.FRAME_KIND_CHUNK)
    assert not desk.lane.of(K.FRAME_KIND_CHUNK)
    assert not desk.gateway.requests


def test_an_offer_is_claimed_once() -> None:
    desk = Desk("a")
    offer = desk.promise()
    assert desk.refusal(desk.claim(offer)) is None
    refused = desk.refusal(desk.claim(offer))
    assert refused is not None
    assert (refused.http_status, refused.type) == (410, "offer_expired")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda desk, offer: desk.claim(offer, account_id="somebody else"),
        lambda desk, offer: desk.claim(gw.Offer(attempt_id="att_" + "0" * 32)),
        lambda desk, offer: desk.claim(desk.offers(desk.open())[-1]),
    ],
    ids=["other account", "unknown", "edge mode"],
)
def test_what_may_not_be_claimed_is_not_told_apart(spoil: Callable[[Desk, gw.Offer], int]) -> None:
    desk = Desk("a", "b")
    offer = desk.promise()
    refused = desk.refusal(spoil(desk, offer))
    assert refused is not None
    assert refused.reason == gw.REFUSAL_REASON_OFFER_EXPIRED
    # And the offer itself is still there for its owner.
    assert desk.refusal(desk.claim(offer)) is None


async def test_an_offer_that_nobody_claims_gives_place_and_money_back() -> None:
    desk = Desk("a")
    offer = desk.promise()
    attempt = desk.attempt(offer)
    await desk.pass_time(2.1)
    assert attempt.phase is Phase.DONE
    assert len(released(desk.billing)) == 1
    assert not desk.lane.of(K.FRAME_KIND_REFUSED)
    assert not desk.dispatcher.live


async def test_nobody_reserves_for_more_than_two_seconds() -> None:
    desk = Desk("a")
    desk.promise(seconds=60)
    await desk.pass_time(2.1)
    assert len(released(desk.billing)) == 1


async def test_a_claim_gives_the_body_time() -> None:
    desk = Desk("a")
    offer = desk.promise()
    stream = desk.claim(offer)
    await desk.pass_time(3.0)
    assert desk.refusal(stream) is None
    await desk.pass_time(2.5)
    assert desk.refusal(stream) is not None
    assert len(released(desk.billing)) == 1


def test_a_failure_before_content_is_told_and_not_retried() -> None:
    desk = Desk("a", "b")
    offer = desk.promise()
    stream = desk.claim(offer)
    attempt = desk.seal(offer)
    desk.error(attempt, status=503)
    refused = desk.refusal(stream)
    assert refused is not None
    assert refused.http_status == 503
    assert len(released(desk.billing)) == 1
    assert len(desk.lane.of(K.FRAME_KIND_OFFER)) == 2


def test_who_has_failed_a_prompt_is_not_offered_for_it_again() -> None:
    desk = Desk("a", "b")
    first = desk.promise()
    second = desk.promise(excluded_providers=[first.provider.provider_id, "prov_nobody"])
    assert first.provider.provider_id != second.provider.provider_id
    names = [first.provider.provider_id, second.provider.provider_id]
    stream = desk.open(excluded_providers=names)
    refused = desk.refusal(stream)
    assert refused is not None
    assert refused.code == "no_provider"


def test_an_offer_outlives_the_worker_that_asked_for_it() -> None:
    desk = Desk("a")
    offer = desk.promise()
    desk.losses.gateway(desk.gateway)
    other, lane = desk.worker(9)
    desk.claim(offer, gateway=other)
    assert lane.of(K.FRAME_KIND_OFFER)


def test_a_claimed_request_is_not_kept_for_a_lost_worker() -> None:
    desk = Desk("a")
    offer = desk.promise()
    desk.claim(offer)
    desk.seal(offer)
    desk.losses.gateway(desk.gateway)
    assert len(released(desk.billing)) == 1


def test_a_claimed_offer_settles_like_any_other() -> None:
    desk = Desk("a")
    offer = desk.promise()
    desk.claim(offer)
    attempt = desk.seal(offer)
    desk.chunk(attempt)
    desk.chunk(attempt, 2, K.FRAME_KIND_CHUNK_FINAL)
    desk.terminal(attempt)
    desk.close(attempt, tokens=2)
    [order] = settled(desk.billing)
    assert order.opened.completion_tokens == 2


def test_a_worker_that_gives_a_claimed_offer_up_frees_it_at_once() -> None:
    desk = Desk("a")
    offer = desk.promise()
    stream = desk.claim(offer)
    desk.abandon(stream)
    assert desk.attempt_is_over(offer)
    assert len(released(desk.billing)) == 1


def test_an_offer_that_is_too_dear_is_replaced_before_anybody_has_seen_it() -> None:
    desk = Desk("a", "b")
    first = desk.promise()
    desk.decline(first)
    [_, (_, second)] = desk.lane.of(K.FRAME_KIND_OFFER)
    assert desk.refusal(desk.claim(second)) is None


PROVOKED = {
    "a box of random bytes": (Code.ENCRYPTION_FAILURE, 0, 400),
    "another header": (Code.ENCRYPTION_FAILURE, Detail.HEADER_MISMATCH, 400),
    "an old header": (Code.ENCRYPTION_FAILURE, Detail.HEADER_EXPIRED, 400),
    "a used key": (Code.ENCRYPTION_FAILURE, Detail.SENDER_KEY_REUSED, 400),
    "a prompt that the model breaks on": (Code.GENERATION_FAILURE, 0, 500),
    "a body that our code breaks on": (Code.INTERNAL_FAILURE, 0, 500),
    "tools that it does not use": (Code.GENERATION_FAILURE, Detail.TOOL_NONCOMPLIANCE, 422),
    "another build": (Code.MODEL_UNAVAILABLE, 0, 404),
    "a longer prompt": (Code.CAPACITY, Detail.TOKEN_BUDGET_EXHAUSTED, 503),
    "a prompt that takes too long": (Code.CAPACITY, Detail.DEADLINE_UNREACHABLE, 503),
}


@pytest.mark.parametrize("story", PROVOKED)
def test_what_a_consumer_seals_shuts_no_machine(story: str) -> None:
    desk = Desk("a")
    for _ in range(6):
        offer = desk.promise()
        stream = desk.claim(offer)
        desk.error(desk.seal(offer), *PROVOKED[story])
        assert desk.refusal(stream) is not None
    assert desk.providers["a"].faults is None
    assert desk.offers(desk.open()), "the next one is served"


def test_a_box_that_does_not_open_may_be_tried_elsewhere_and_a_wrong_header_may_not() -> None:
    desk = Desk("a", "b")
    statuses = []
    for detail in (0, Detail.HEADER_MISMATCH):
        offer = desk.promise()
        stream = desk.claim(offer)
        desk.error(desk.seal(offer), Code.ENCRYPTION_FAILURE, detail, 400)
        refused = desk.refusal(stream)
        assert refused is not None
        statuses.append(refused.http_status)
    assert statuses == [502, 400]


def test_a_break_after_content_blames_no_machine_either() -> None:
    desk = Desk("a")
    offer = desk.promise()
    desk.claim(offer)
    attempt = desk.seal(offer)
    desk.chunk(attempt)
    desk.error(attempt, Code.GENERATION_FAILURE)
    assert desk.providers["a"].faults is None


@pytest.mark.parametrize(
    ("code", "detail"),
    [(Code.CAPACITY, Detail.QUEUE_FULL), (Code.MODEL_UNAVAILABLE, Detail.MODEL_LOAD)],
    ids=["full", "load"],
)
def test_what_no_content_brings_about_counts_in_promised_requests_too(
    code: int, detail: int
) -> None:
    desk = Desk("a")
    offer = desk.promise()
    desk.claim(offer)
    desk.error(desk.seal(offer), code, detail, 503)
    assert desk.providers["a"].faults is not None


def answering(desk: Desk) -> Attempt:
    """Let a promised answer have its first content."""
    offer = desk.promise()
    desk.claim(offer)
    attempt = desk.seal(offer)
    desk.chunk(attempt)
    return attempt


async def test_who_withholds_the_terminal_is_paid_the_prompt_that_the_consumer_has_named() -> None:
    desk = Desk("a")
    desk.leave(answering(desk), prompt=200)
    await desk.pass_time(31)
    [order] = settled(desk.billing)
    assert (order.terminal, order.opened.prompt_tokens) == (None, 100)
    assert order.opened.completion_tokens == 5


def test_who_signs_is_paid_what_the_terminal_says_up_to_the_bound() -> None:
    desk = Desk("a")
    attempt = answering(desk)
    desk.leave(attempt, prompt=200)
    desk.terminal(attempt)
    [order] = settled(desk.billing)
    assert (order.terminal is not None, order.opened.prompt_tokens) == (True, 200)


def test_a_terminal_that_billing_rejects_earns_no_longer_prompt() -> None:
    desk = Desk("a")
    attempt = answering(desk)
    desk.billing.rejects = True
    desk.leave(attempt, prompt=200)
    desk.terminal(attempt)
    [order] = settled(desk.billing)
    assert (order.terminal, order.opened.prompt_tokens) == (None, 100)


def test_the_edge_itself_has_read_the_prompt_of_other_requests() -> None:
    desk = Desk("a")
    _, attempt = desk.dispatched()
    desk.chunk(attempt)
    desk.leave(attempt, prompt=200)
    desk.terminal(attempt)
    [order] = settled(desk.billing)
    assert order.opened.prompt_tokens == 200


async def test_content_before_the_first_credit_is_paid_though_the_lane_was_lost() -> None:
    desk = Desk("a")
    attempt = answering(desk)
    desk.losses.gateway(desk.gateway)
    assert desk.cancelled(attempt)
    desk.terminal(attempt)
    assert not desk.billing.moved
    desk.rescue(attempt)
    [order] = settled(desk.billing)
    assert (order.opened.completion_tokens, order.terminal is not None) == (5, True)


async def test_a_last_word_that_overtakes_the_loss_of_its_lane_counts_as_well() -> None:
    desk = Desk("a")
    attempt = answering(desk)
    desk.rescue(attempt)
    assert attempt.live
    desk.losses.gateway(desk.gateway)
    await desk.pass_time(31)
    [order] = settled(desk.billing)
    assert order.opened.completion_tokens == 5


async def test_a_lost_worker_that_says_nothing_gets_the_hold_back_in_the_end() -> None:
    desk = Desk("a")
    attempt = answering(desk)
    desk.losses.gateway(desk.gateway)
    assert attempt.provider.inflight == 0
    desk.terminal(attempt)
    await desk.pass_time(31)
    assert len(released(desk.billing)) == 1
    assert not settled(desk.billing)


def test_a_last_word_changes_nothing_where_more_is_known() -> None:
    desk = Desk("a")
    attempt = answering(desk)
    desk.leave(attempt, prompt=200)
    desk.rescue(attempt)
    desk.terminal(attempt)
    [order] = settled(desk.billing)
    assert order.opened.prompt_tokens == 200
