"""The real SDK against the local Stripe; with DARKBLOOM_TEST_STRIPE_KEY also against Stripe."""

import json
import os
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import stripe
from darkbloom_billing.payments.sdk import Stripe
from darkbloom_mesh.clock import SystemClock
from darkbloom_mesh.config import Secret

from tests.stripe_local.running import API_KEY, Control, local_stripe
from tests.stripe_local.shapes import KEYS
from tests.stripe_local.world import World

_ENV = os.environ  # noqa: TID251 - where tests learn what they may use
DATA = Path(_ENV.get("DARKBLOOM_TEST_DATA", "../shared/data")) / "stripe" / "fixtures-subset.json"
REAL_KEY = _ENV.get("DARKBLOOM_TEST_STRIPE_KEY", "")
SITES = ["local", pytest.param("stripe", marks=pytest.mark.skipif(not REAL_KEY, reason="no key"))]


@asynccontextmanager
async def sdk(url: str | None, key: str = API_KEY, timeout_s: float = 10) -> AsyncIterator[Stripe]:
    made = Stripe(Secret(key), api_base=url, timeout_s=timeout_s)
    try:
        yield made
    finally:
        await made.close()


@pytest.fixture
async def control() -> AsyncIterator[Control]:
    async with local_stripe() as running:
        yield running


@pytest.fixture(params=SITES)
async def client(request: pytest.FixtureRequest, control: Control) -> AsyncIterator[Stripe]:
    """The SDK at the local Stripe, and at Stripe's test mode where a key is given."""
    real = request.param == "stripe"
    async with sdk(None, REAL_KEY) if real else sdk(control.url) as made:
        yield made


@pytest.fixture
async def local(control: Control) -> AsyncIterator[Stripe]:
    async with sdk(control.url) as made:
        yield made


async def pay(client: Stripe, card: str = "pm_card_visa", **more: Any) -> Any:
    return await client.v1.payment_intents.create_async(
        {
            "amount": 1000,
            "currency": "usd",
            "payment_method": card,
            "payment_method_types": ["card"],
            "confirm": True,
            **more,
        }
    )


async def test_a_charge_costs_stripes_fee(client: Stripe) -> None:
    intent = await pay(client)
    assert intent.status == "succeeded"
    charge = await client.v1.charges.retrieve_async(
        intent.latest_charge, {"expand": ["balance_transaction"]}
    )
    row = charge.balance_transaction
    assert (row.amount, row.net) == (1000, 1000 - row.fee)
    assert row.fee > 0
    assert charge.payment_method_details.card.fingerprint


async def test_a_declined_card_is_a_card_error(client: Stripe) -> None:
    with pytest.raises(stripe.CardError) as caught:
        await pay(client, "pm_card_chargeDeclined")
    assert caught.value.code == "card_declined"


async def test_one_key_answers_the_same_and_refuses_another_body(client: Stripe) -> None:
    options: Any = {"idempotency_key": uuid.uuid4().hex}
    first = await client.v1.customers.create_async({"email": "a@example.com"}, options)
    again = await client.v1.customers.create_async({"email": "a@example.com"}, options)
    assert first.id == again.id
    with pytest.raises(stripe.IdempotencyError):
        await client.v1.customers.create_async({"email": "b@example.com"}, options)


async def test_a_refund_is_bounded_by_the_charge(client: Stripe) -> None:
    intent = await pay(client)
    refund = await client.v1.refunds.create_async({"payment_intent": intent.id, "amount": 400})
    assert (refund.status, refund.amount) == ("succeeded", 400)
    charge = await client.v1.charges.retrieve_async(intent.latest_charge)
    assert (charge.amount_refunded, charge.refunded) == (400, False)
    with pytest.raises(stripe.InvalidRequestError):
        await client.v1.refunds.create_async({"payment_intent": intent.id, "amount": 601})


async def test_a_session_is_open_until_somebody_pays(client: Stripe) -> None:
    session = await client.v1.checkout.sessions.create_async(
        {
            "mode": "payment",
            "success_url": "https://example.com/ok",
            "line_items": [
                {
                    "quantity": 1,
                    "price_data": {
                        "currency": "usd",
                        "unit_amount": 1234,
                        "product_data": {"name": "credit"},
                    },
                }
            ],
            "metadata": {"k": "v"},
        }
    )
    assert (session.amount_total, session.status, session.payment_status) == (
        1234,
        "open",
        "unpaid",
    )
    assert session.url
    expired = await client.v1.checkout.sessions.expire_async(session.id)
    assert expired.status == "expired"


async def test_an_unknown_id_is_missing(client: Stripe) -> None:
    with pytest.raises(stripe.InvalidRequestError) as caught:
        await client.v1.payment_intents.retrieve_async("pi_nobody")
    assert caught.value.code == "resource_missing"


async def test_an_effect_without_its_answer_is_found_by_its_key(
    control: Control, local: Stripe
) -> None:
    await control.do("fault", path="/v1/customers", kind="hang", when="after")
    options: Any = {"idempotency_key": "once"}
    async with sdk(control.url, timeout_s=0.3) as client:
        with pytest.raises(stripe.APIConnectionError):
            await client.v1.customers.create_async({"email": "a@example.com"}, options)
    found = await local.v1.customers.create_async({"email": "a@example.com"}, options)
    assert [each["id"] for each in await control.objects("customer")] == [found.id]


async def test_a_failure_before_the_effect_leaves_nothing(control: Control, local: Stripe) -> None:
    await control.do("fault", path="/v1/customers", kind="error")
    with pytest.raises(stripe.APIError):
        await local.v1.customers.create_async({"email": "a@example.com"})
    assert await control.objects("customer") == []


async def test_connected_money_moves_and_comes_back(control: Control, local: Stripe) -> None:
    client = local
    await control.do("fund", amount=10_000)
    account = await client.v1.accounts.create_async({"type": "express", "country": "US"})
    with pytest.raises(stripe.InvalidRequestError):
        await client.v1.transfers.create_async(
            {"amount": 500, "currency": "usd", "destination": account.id}
        )
    await control.do("onboard", account=account.id)
    transfer = await client.v1.transfers.create_async(
        {"amount": 500, "currency": "usd", "destination": account.id}
    )
    payout = await control.do("sweep", account=account.id)
    rows = await client.v1.balance_transactions.list_async(
        {"payout": payout["id"]}, {"stripe_account": account.id}
    )
    assert transfer.destination_payment in [row.source for row in rows.data]
    await control.do("payout", account=account.id, payout=payout["id"], status="failed")
    await control.do("reverse", transfer=transfer.id)
    assert (await client.v1.balance.retrieve_async()).available[0].amount == 10_000


async def test_events_are_signed_and_the_sdk_agrees(control: Control, local: Stripe) -> None:
    await control.do("endpoint", url="http://127.0.0.1:1/hook", secret="whsec_a")
    await pay(local)
    for webhook in await control.take():
        event = stripe.Webhook.construct_event(webhook.body, webhook.signature, "whsec_a")
        assert event.type in {"charge.succeeded", "payment_intent.succeeded"}
        with pytest.raises(stripe.SignatureVerificationError):
            stripe.Webhook.construct_event(webhook.body, webhook.signature, "whsec_b")


async def test_a_restart_keeps_the_state(tmp_path: Path) -> None:
    path = tmp_path / "stripe.json"
    async with local_stripe(world=World(SystemClock(), path=path)) as one, sdk(one.url) as client:
        made = await client.v1.customers.create_async({"email": "a@example.com"})
    world = World(SystemClock(), path=path)
    world.load()
    async with local_stripe(world=world) as two, sdk(two.url) as client:
        found = await client.v1.customers.retrieve_async(made.id)
    assert found.email == "a@example.com"


def test_the_same_seed_makes_the_same_ids() -> None:
    assert [World(SystemClock(), seed=s).id("ch") for s in (1, 1, 2)] == [
        World(SystemClock(), seed=1).id("ch"),
        World(SystemClock(), seed=1).id("ch"),
        World(SystemClock(), seed=2).id("ch"),
    ]


@pytest.mark.skipif(not DATA.exists(), reason="stripe fixtures are not here")
def test_objects_have_the_keys_of_the_published_ones() -> None:
    published = json.loads(DATA.read_text())["resources"]
    for name, example in published.items():
        if name != "external_account":
            assert set(KEYS[name].split()) == set(example), name
