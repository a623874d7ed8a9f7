"""End-to-end mode at the gateway: what is counted from outside, and what two workers share."""

import asyncio
import hashlib
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from darkbloom_edge.documents import rfc3339
from darkbloom_edge.ids import new_id
from darkbloom_edge.offers import MAX_OPEN, OfferRequest
from darkbloom_edge.signatures import P256Signer, to_base64
from darkbloom_edge.terminal import Terminal, sign_terminal
from darkbloom_edge.transcript import Digests
from darkbloom_edge.verdict import Verdict
from darkbloom_gateway.catalog import Build, Catalog
from darkbloom_gateway.end_to_end.planning import (
    plan_offer,
    read_context,
    restore_plan,
    write_context,
)
from darkbloom_gateway.end_to_end.relayed import RelayedAttempt
from darkbloom_gateway.end_to_end.slots import Slots
from darkbloom_gateway.errors import ApiError, ViolationError, ViolationFault
from darkbloom_gateway.model import KeyRecord, Offer, Plan, ProviderFacts, SignedBytes
from darkbloom_gateway.prompt import SealedBody
from darkbloom_gateway.self_route import Route
from darkbloom_gateway.tiers import Tier, Tiers
from darkbloom_gateway.verdicts import Checked
from darkbloom_mesh.errors import StoreUnavailableError
from darkbloom_mesh.testing import FakeClock

NOW = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
MACHINE = P256Signer(bytes(range(1, 33)))
KEY = KeyRecord(key_id="key_1", account_id="acct_1")
TIERS = Tiers(account=Tier(None, None, None), service=Tier(None, None, None))
SIGNED = SignedBytes(b"verdict", b"signature", "key")


def asked(**changes: Any) -> OfferRequest:
    fields = {
        "model": "b",
        "nonce": to_base64(bytes(32)),
        "prompt_tokens": 10,
        "prompt_bound": 40,
        "body_bytes": 1000,
    }
    return OfferRequest(**{**fields, **changes})


def planned(request: OfferRequest, build: Build | None = None) -> Plan:
    build = build or Build(build_id="b", max_output_length=100)
    return plan_offer(
        request,
        KEY,
        Catalog(1, {"b": build}, {}),
        TIERS,
        default_bound=64,
        max_body_bytes=2000,
        now=NOW,
        route=Route.PUBLIC,
        machine="",
    )


def attempt(**changes: Any) -> RelayedAttempt:
    verdict = Verdict(
        verdict_id=new_id("ver", bytes(16)),
        provider_id=new_id("prov", bytes(16)),
        identity_key=MACHINE.public_text,
        encryption_key=to_base64(bytes(32)),
        trust_level="none",
        admission="development",
        evidence=[],
        code_release="r",
        issued_at=rfc3339(NOW),
        expires_at=rfc3339(NOW),
    )
    offer = Offer(
        attempt_id=new_id("att", bytes(16)),
        stream=1,
        verdict=SIGNED,
        price=None,
        build="b",
        provider_id=verdict.provider_id,
        facts=ProviderFacts(),
        hedge=False,
        scripted=False,
    )
    return RelayedAttempt(
        offer,
        Checked(verdict, SIGNED, bytes(32), MACHINE.public, NOW),
        replace(planned(asked()), **changes),
        request_id=new_id("req", bytes(16)),
        sender_key=bytes(32),
        body=SealedBody(b"sealed", hashlib.sha256(b"sealed").digest()),
    )


def terminal(**changes: Any) -> tuple[bytes, bytes]:
    fields = {
        "request_id": new_id("req", bytes(16)),
        "attempt_id": new_id("att", bytes(16)),
        "build": "b",
        "weight_hash": "w",
        "prompt_tokens": 12,
        "completion_tokens": 3,
        "cached_tokens": 4,
        "reasoning_tokens": 0,
        "chunks": 2,
        "finish_reason": "stop",
        "encryption_key": to_base64(bytes(32)),
        "verdict_id": new_id("ver", bytes(16)),
        "sealed_to": 1,
        "digests": Digests(request="0" * 64, content="1" * 64, reasoning="2" * 64),
        "outcome": "completed",
    }
    return sign_terminal(Terminal(**{**fields, **changes}), MACHINE)


def relayed() -> RelayedAttempt:
    found = attempt()
    found.take(bytes(100), 1, final=False)
    found.take(bytes(100), 3, final=True)
    return found


def test_before_anything_was_passed_on_nothing_can_be_charged() -> None:
    assert attempt().opened.prompt_tokens == 0


def test_who_is_let_down_pays_what_he_has_said_himself_for_the_prompt() -> None:
    assert (relayed().opened.prompt_tokens, relayed().opened.completion_tokens) == (10, 3)


def test_who_leaves_pays_up_to_the_bound_and_the_terminal_decides() -> None:
    found = relayed()
    found.left()
    assert found.opened.prompt_tokens == 40


def test_a_complete_answer_costs_what_the_terminal_says() -> None:
    found = relayed()
    found.conclude(*terminal(), frozenset({"w"}))
    assert (found.opened.prompt_tokens, found.opened.cached_tokens) == (12, 4)


def test_what_was_passed_on_is_hashed_in_order() -> None:
    found = attempt()
    found.take(b"one", 0, final=False)
    found.take(b"two", 0, final=True)
    assert found.relayed_sha256 == hashlib.sha256(b"onetwo").hexdigest()


@pytest.mark.parametrize(
    ("size", "tokens", "bound"),
    [(2000, 1, 1000), (2000, 101, 100), (64 + 10, 267, 1000)],
    ids=["falling", "above the bound", "more than bytes"],
)
def test_a_count_that_cannot_be_true_ends_the_attempt(size: int, tokens: int, bound: int) -> None:
    found = attempt(output_bound=bound)
    found.take(bytes(64), 2, final=False)
    with pytest.raises(ViolationError) as raised:
        found.take(bytes(size), tokens, final=False)
    assert raised.value.fault is ViolationFault.COUNTS


def test_nothing_follows_the_last_chunk() -> None:
    with pytest.raises(ViolationError):
        relayed().take(bytes(100), 3, final=False)


@pytest.mark.parametrize(
    "changes",
    [
        {"completion_tokens": 4},
        {"prompt_tokens": 41},
        {"chunks": 3},
        {"build": "other"},
        {"attempt_id": new_id("att", b"1" * 16)},
        {"encryption_key": to_base64(b"1" * 32)},
        {"weight_hash": "other"},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_terminal_that_does_not_say_what_passed_is_not_believed(changes: dict[str, Any]) -> None:
    with pytest.raises(ViolationError):
        relayed().conclude(*terminal(**changes), frozenset({"w"}))


def test_a_plan_survives_its_way_through_the_router() -> None:
    plan = planned(asked(output_bound=70))
    data = write_context(plan, asked(output_bound=70), new_id("req", bytes(16)), "slot_1")
    context = read_context(data)
    restored = restore_plan(context, KEY, TIERS, NOW)
    assert restored == plan
    assert (context.slot, context.body_bytes) == ("slot_1", 1000)


def test_an_offer_of_another_key_is_no_offer() -> None:
    data = write_context(planned(asked()), asked(), new_id("req", bytes(16)), "slot_1")
    with pytest.raises(ApiError) as raised:
        restore_plan(read_context(data), replace(KEY, key_id="key_2"), TIERS, NOW)
    assert raised.value.http_status == 410


def test_an_output_bound_is_never_above_the_models() -> None:
    assert planned(asked(output_bound=1000)).output_bound == 100
    assert planned(asked()).output_bound == 100
    assert planned(asked(), Build(build_id="b")).output_bound == 64


@pytest.mark.parametrize(
    ("changes", "status"),
    [({"model": "x"}, 404), ({"body_bytes": 2001}, 413), ({"needs": ("vision",)}, 400)],
    ids=["model", "size", "vision"],
)
def test_what_cannot_be_offered_is_told_before_anybody_is_asked(
    changes: dict[str, Any], status: int
) -> None:
    with pytest.raises(ApiError) as raised:
        planned(asked(**changes))
    assert raised.value.http_status == status


class Away:
    """A store that does not answer."""

    def __init__(self) -> None:
        self.asked = 0

    async def take(self, account_id: str, name: str, seconds: float, most: int) -> bool:
        self.asked += 1
        raise StoreUnavailableError("away")

    async def free(self, account_id: str, name: str) -> None:
        raise StoreUnavailableError("away")


async def test_without_valkey_a_worker_counts_its_own_offers() -> None:
    clock, store = FakeClock(), Away()
    slots = Slots(store, clock)
    for number in range(MAX_OPEN):
        await slots.take("acct_1", f"slot_{number}", 2.0)
    await slots.take("acct_2", "slot_0", 2.0)
    assert store.asked == 1

    ninth = asyncio.create_task(slots.take("acct_1", "slot_9", 2.0))
    await clock.advance(1.2)
    with pytest.raises(ApiError) as raised:
        await ninth
    assert raised.value.code == "too_many_open_offers"

    await slots.free("acct_1", "slot_0")
    await slots.take("acct_1", "slot_9", 2.0)
    await clock.advance(2.1)
    for number in range(MAX_OPEN):
        await slots.take("acct_1", f"late_{number}", 2.0)
