"""End-to-end mode at the router: an offer is kept for a moment, and claimed once, by any lane."""

from collections.abc import Callable

import pytest
from darkbloom.common.v1.frame_pb2 import FrameKind as K
from darkbloom.router.v1 import gateway_lane_pb2 as gw
from darkbloom_router.attempts import Phase

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
