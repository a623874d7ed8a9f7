"""`/v1/billing/*` over HTTP: the real payments behind the gateway, a local Stripe behind those."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import grpc
import httpx
import pytest
from darkbloom.billing.v1 import payment_service_pb2, programme_service_pb2
from darkbloom.billing.v1.payment_service_pb2_grpc import (
    PaymentServiceServicer,
    add_PaymentServiceServicer_to_server,
)
from darkbloom.billing.v1.programme_service_pb2_grpc import (
    ProgrammeServiceServicer,
    ProgrammeServiceStub,
    add_ProgrammeServiceServicer_to_server,
)
from darkbloom_mesh.channel import channel
from darkbloom_mesh.errors import from_rpc_error

from tests.component.billing.till import Till, till
from tests.component.billing.world import CONSUMER, PROVIDER
from tests.component.gateway.harness import BEARER, Harness, gateway
from tests.fakes.identity import LOGIN_TOKEN
from tests.stores import Postgres

HOOK = "/v1/billing/stripe/webhook"
WITHDRAW = "/v1/billing/withdraw/stripe"
CREATE = "/v1/billing/stripe/create-session"
RECREATE = "stripe_account_recreate_required"
_PAYMENTS = payment_service_pb2.DESCRIPTOR.services_by_name["PaymentService"]
_PROGRAMMES = programme_service_pb2.DESCRIPTOR.services_by_name["ProgrammeService"]


def forwarding(stub: Any, service: Any, base: type) -> Any:
    """Return a servicer that hands every call on: only keys and logins are a fake's."""

    def method(name: str) -> Any:
        async def call(_self: object, request: Any, _context: object) -> Any:
            try:
                return await getattr(stub, name)(request, timeout=20)
            except grpc.aio.AioRpcError as error:
                raise from_rpc_error(error) from None

        return call

    return type("Forward", (base,), {each.name: method(each.name) for each in service.methods})()


@dataclass
class Front:
    """A gateway with the real payments."""

    mesh: Harness
    till: Till

    async def call(self, method: str, path: str, **more: Any) -> httpx.Response:
        """Call as the provider's signed-in person."""
        headers = {"authorization": f"Bearer {LOGIN_TOKEN}", **more.pop("headers", {})}
        return await self.mesh.http.request(method, path, headers=headers, **more)

    async def withdraw(self, amount: object, **more: Any) -> httpx.Response:
        """Withdraw as the provider's signed-in person."""
        return await self.call("POST", WITHDRAW, json={"amount_usd": amount, **more})


@pytest.fixture
def url(cluster: Postgres, template: str) -> Iterator[str]:
    with cluster.database(template) as url:
        yield url


@asynccontextmanager
async def front(url: str, valkey_url: str, **settings: Any) -> AsyncIterator[Front]:
    """Run billing, a local Stripe and a gateway; nobody is limited but where it is asked for."""
    limits = {"financial_rate": 1000.0, "financial_burst": 1000, **settings.pop("limits", {})}
    async with till(url, **settings) as shop:
        target = shop.world.service.listeners["grpc"]
        async with channel(target, mesh_token=None, room="test") as dialled:
            payments = forwarding(shop.world.payments, _PAYMENTS, PaymentServiceServicer)
            programmes = forwarding(
                ProgrammeServiceStub(dialled), _PROGRAMMES, ProgrammeServiceServicer
            )
            async with gateway(
                valkey_url,
                partial(add_PaymentServiceServicer_to_server, payments),
                partial(add_ProgrammeServiceServicer_to_server, programmes),
                **limits,
            ) as mesh:
                key = mesh.billing.add_key("sk-db-consumer")
                mesh.billing.keys[key].account_id = CONSUMER
                mesh.billing.identity.add_login(account_id=PROVIDER)
                yield Front(mesh, shop)


def error(response: httpx.Response) -> tuple[int, str, str]:
    body = response.json()["error"]
    return response.status_code, body["type"], body["code"]


def told(response: httpx.Response, status: int, name: str, param: str | None = None) -> None:
    """Check a refusal whole: status, type, code, parameter, and no advice to repeat it."""
    assert error(response) == (status, name, name)
    assert response.json()["error"].get("param") == param
    assert "retry-after" not in response.headers


KEY = {"authorization": "Bearer sk-db-consumer"}


async def test_a_deposit_from_the_session_to_the_webhook(url: str, valkey_url: str) -> None:
    async with front(url, valkey_url) as f:
        http = f.mesh.http
        made = await http.post(CREATE, headers=KEY, json={"amount_usd": "1.15"})
        body = made.json()
        assert made.status_code == 200, body
        assert (body["amount_usd"], body["amount_micro_usd"]) == ("1.15", 1_150_000)
        assert body["url"].startswith("https://checkout.stripe")
        await f.till.stripe.do("pay", session=body["stripe_session"])
        for webhook in await f.till.stripe.take():
            headers = {"stripe-signature": webhook.signature}
            for _ in range(2):
                taken = await http.post(HOOK, headers=headers, content=webhook.body)
                assert taken.status_code == 200
            wrong = await http.post(HOOK, headers=headers, content=webhook.body + b" ")
            assert error(wrong) == (400, "invalid_request_error", "invalid_request_error")
        await f.till.acted()
        path = f"/v1/billing/stripe/session?id={body['session_id']}"
        found = (await http.get(path, headers=KEY)).json()
        assert (found["status"], found["amount_micro_usd"]) == ("completed", 1_150_000)
        assert found["completed_at"]
        assert (await f.till.wallets()).credit_micros == 1_150_000
        other = await f.call("GET", path)
        assert error(other) == (404, "not_found", "not_found")


async def test_an_amount_that_is_no_amount_is_400(front_of: Front) -> None:
    bad = ("0.49", "1.155", "1e3", "-1.00", "", " 1", "NaN", "10000.01", 1.15, None, True)
    for amount in bad:
        answer = await front_of.mesh.http.post(CREATE, headers=KEY, json={"amount_usd": amount})
        told(answer, 400, "invalid_request_error", "amount_usd")
    for amount in ("0.99", "0", "-5.00", "1.005", "100000.01"):
        answer = await front_of.withdraw(amount)
        told(answer, 400, "invalid_request_error", "amount_usd")


async def test_refusals_of_withdrawals_are_told_exactly(front_of: Front) -> None:
    f = front_of
    told(await f.withdraw("5.00"), 403, "not_onboarded")
    told(await f.withdraw("5.00", method="fast"), 400, "invalid_request_error", "method")
    told(await f.withdraw("0.99"), 400, "invalid_request_error", "amount_usd")
    await f.till.earn(20_000_000)
    account = await f.till.onboarded()
    answer = await f.withdraw("20.01")
    told(answer, 400, "insufficient_withdrawable")
    assert answer.json()["error"]["available_micro_usd"] == 20_000_000
    told(await f.withdraw("5.00", method="instant"), 400, "instant_unavailable")
    await f.till.stripe.do("fault", path="/v1/transfers", kind="cut", when="after")
    told(await f.withdraw("5.00"), 502, "stripe_error")
    await f.till.stripe.do("fault", path="/v1/transfers", kind="refuse", code="blocked")
    told(await f.withdraw("5.00"), 502, "stripe_error")
    await f.till.books.freeze("f", PROVIDER, frozen=True)
    told(await f.withdraw("5.00"), 403, "forbidden")
    await f.till.books.freeze("t", PROVIDER, frozen=False)
    await f.till.stripe.do("close_account", account=account)
    told(await f.withdraw("5.00"), 409, "stripe_account_gone")
    assert (await f.call("DELETE", "/v1/billing/stripe/account")).json() == {"status": "unlinked"}
    told(await f.withdraw("5.00"), 403, "not_onboarded")


async def test_an_account_of_another_country_or_agreement_must_be_made_anew(
    front_of: Front,
) -> None:
    f = front_of
    onboard = "/v1/billing/stripe/onboard"
    unlink = "/v1/billing/stripe/account"
    await f.till.earn(20_000_000)
    account = await f.till.onboarded()
    told(await f.call("POST", onboard, json={"country": "DE"}), 409, RECREATE)
    same = await f.call("POST", onboard, json={"country": "US"})
    assert (same.status_code, same.json()["stripe_account_id"]) == (200, account)

    await f.till.stripe.do("account", account=account, agreement="recipient")
    told(await f.withdraw("5.00"), 409, RECREATE)
    told(await f.call("POST", onboard, json={}), 409, RECREATE)
    assert (await f.till.wallets(PROVIDER)).earned_micros == 20_000_000

    assert (await f.call("DELETE", unlink)).json() == {"status": "unlinked"}
    made = (await f.call("POST", onboard, json={"country": "DE"})).json()["stripe_account_id"]
    assert made != account
    await f.till.stripe.do("onboard", account=made)
    assert (await f.withdraw("5.00")).json()["status"] == "submitted"
    await f.till.stripe.do("account", account=made, agreement="full")
    told(await f.withdraw("5.00"), 409, RECREATE)


async def test_a_withdrawal_over_http(url: str, valkey_url: str) -> None:
    async with front(url, valkey_url) as f:
        started = await f.call("POST", "/v1/billing/stripe/onboard", json={})
        name = started.json()["stripe_account_id"]
        assert started.json()["status"] == "pending"
        await f.till.stripe.do("onboard", account=name, card={"last4": "5556"})
        await f.till.earn(20_000_000)
        status = (await f.call("GET", "/v1/billing/stripe/status?refresh=1")).json()
        assert (status["status"], status["instant_eligible"]) == ("ready", True)
        assert (status["destination_type"], status["destination_last4"]) == ("card", "5556")
        key = {"idempotency-key": "once"}
        answers = [
            await f.call(
                "POST",
                WITHDRAW,
                headers=key,
                json={"amount_usd": "5.00", "method": "instant"},
            )
            for _ in range(2)
        ]
        body = answers[0].json()
        assert answers[0].status_code == 200, body
        assert body["withdrawal_id"] == answers[1].json()["withdrawal_id"]
        assert (body["status"], body["fee_usd"], body["net_usd"]) == ("submitted", "0.50", "4.50")
        assert body["eta"] == "~30 minutes"
        conflict = await f.call("POST", WITHDRAW, headers=key, json={"amount_usd": "6.00"})
        assert error(conflict) == (409, "conflict", "conflict")
        await f.till.stripe.do("fault", path="/v1/payouts", kind="cut", when="after")
        half = await f.withdraw("2.00", method="instant")
        assert (half.status_code, half.json()["status"]) == (202, "transferred")
        assert half.json()["transfer_id"]
        assert "retry-after" not in half.headers
        rows = (await f.call("GET", "/v1/billing/stripe/withdrawals?limit=1")).json()
        assert len(rows["withdrawals"]) == 1
        token = rows["next_page_token"]
        rest = await f.call("GET", f"/v1/billing/stripe/withdrawals?page_token={token}")
        assert len(rest.json()["withdrawals"]) == 1
        bad = await f.call("GET", "/v1/billing/stripe/withdrawals?page_token=x")
        assert error(bad)[0] == 400
        dashboard = await f.call("POST", "/v1/billing/stripe/dashboard")
        assert dashboard.json()["url"].startswith("https://connect.stripe")


async def test_an_api_key_may_not_move_money(front_of: Front) -> None:
    http = front_of.mesh.http
    for method, path in (
        ("POST", WITHDRAW),
        ("POST", "/v1/billing/stripe/onboard"),
        ("POST", "/v1/billing/stripe/dashboard"),
        ("DELETE", "/v1/billing/stripe/account"),
        ("POST", "/v1/billing/card"),
        ("PUT", "/v1/billing/auto-top-up"),
    ):
        answer = await http.request(method, path, headers=BEARER, json={})
        told(answer, 403, "forbidden")
        told(await http.request(method, path), 401, "authentication_error")


async def test_changes_of_money_are_limited(url: str, valkey_url: str) -> None:
    limits = {"financial_rate": 0.001, "financial_burst": 3}
    async with front(url, valkey_url, limits=limits) as f:
        answers = [await f.withdraw("5.00") for _ in range(4)]
        assert [each.status_code for each in answers] == [403, 403, 403, 429]
        assert error(answers[3]) == (429, "rate_limit_exceeded", "rate_limit_exceeded")
        assert answers[3].headers["retry-after"] == "60"


async def test_questions_to_stripe_are_limited_and_what_is_known_is_not(
    url: str, valkey_url: str
) -> None:
    limits = {"financial_rate": 0.001, "financial_burst": 2}
    path = "/v1/billing/stripe/status"
    async with front(url, valkey_url, limits=limits) as f:
        asked = [await f.call("GET", f"{path}?refresh=1") for _ in range(3)]
        assert [each.status_code for each in asked] == [200, 200, 429]
        assert (await f.call("GET", path)).status_code == 200


async def test_a_webhook_over_a_mebibyte_is_413_and_a_large_one_is_read(front_of: Front) -> None:
    http = front_of.mesh.http
    large = await http.post(HOOK, content=b"x" * (1024 * 1024 + 1))
    assert error(large)[:2] == (413, "invalid_request_error")
    fits = await http.post(HOOK, content=b"x" * (1024 * 1024))
    assert error(fits)[:2] == (400, "invalid_request_error")


async def test_payments_that_are_not_configured_are_503(url: str, valkey_url: str) -> None:
    nothing = {"stripe_secret_key": None, "stripe_webhook_secret": None}
    async with front(url, valkey_url, **nothing) as f:
        answer = await f.mesh.http.post(CREATE, headers=KEY, json={"amount_usd": "5.00"})
        told(answer, 503, "billing_error")
        told(await f.withdraw("5.00"), 503, "billing_error")
        for path in ("onboard", "dashboard"):
            made = await f.call("POST", f"/v1/billing/stripe/{path}", json={})
            told(made, 503, "billing_error")
        assert error(await f.mesh.http.post(HOOK, content=b"{}"))[:2] == (503, "billing_error")
        assert (await f.mesh.http.get("/v1/billing/methods")).json()["methods"] == []
        status = (await f.call("GET", "/v1/billing/stripe/status")).json()
        assert (status["configured"], status["has_account"]) == (False, False)


async def test_a_referral_code_of_nobody_is_400_and_a_known_one_counts(front_of: Front) -> None:
    f = front_of
    wanted = {"amount_usd": "5.00", "referral_code": "NOBODY"}
    answer = await f.mesh.http.post(CREATE, headers=KEY, json=wanted)
    assert error(answer)[:2] == (400, "invalid_request_error")
    assert answer.json()["error"]["param"] == "referral_code"
    code = {"code": "FRIEND"}
    assert (await f.call("POST", "/v1/referral/register", json=code)).status_code == 200
    for _ in range(2):
        known = {"amount_usd": "5.00", "referral_code": "FRIEND"}
        assert (await f.mesh.http.post(CREATE, headers=KEY, json=known)).status_code == 200
    info = (await f.mesh.http.get("/v1/referral/info", headers=KEY)).json()
    assert info["referred_by"]


async def test_automatic_top_up_over_http(front_of: Front) -> None:
    f = front_of
    wanted = {
        "enabled": True,
        "threshold_usd": "5.00",
        "amount_usd": "10.00",
        "monthly_cap_usd": "50.00",
    }
    path = "/v1/billing/auto-top-up"
    assert error(await f.call("PUT", path, json=wanted))[:2] == (400, "invalid_request_error")
    url = (await f.call("POST", "/v1/billing/card")).json()["url"]
    await f.till.stripe.do("pay", session=url.rsplit("/", 1)[1])
    await f.till.deliver()
    body = (await f.call("PUT", path, json=wanted)).json()
    assert (body["enabled"], body["card"]) == (True, {"brand": "visa", "last4": "4242"})
    low = await f.call("PUT", path, json={**wanted, "monthly_cap_usd": "9.99"})
    assert low.json()["error"]["param"] == "monthly_cap_usd"
    assert (await f.call("DELETE", "/v1/billing/card")).status_code == 200
    assert (await f.call("GET", path)).json()["disabled_reason"] == "no_card"


@pytest.fixture
async def front_of(url: str, valkey_url: str) -> AsyncIterator[Front]:
    async with front(url, valkey_url) as running:
        yield running
