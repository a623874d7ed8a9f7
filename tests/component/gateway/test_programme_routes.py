"""Invites, referrals and operators' writes over HTTP, with a real billing behind the gateway."""

import json
import secrets
from typing import Any

import httpx
import pytest

from tests.component.billing.operating import staff
from tests.component.billing.world import owner
from tests.component.gateway.people import ADMIN, ADMIN_KEY, People

pytestmark = pytest.mark.asyncio(loop_scope="session")
BAD = "invalid_request_error"
CREDITS = [("/v1/admin/credit", "credited_usd"), ("/v1/admin/reward", "rewarded_usd")]


def said(response: httpx.Response) -> tuple[int, str, str, str | None]:
    error = response.json()["error"]
    return response.status_code, error["type"], error["code"], error.get("param")


def told(
    response: httpx.Response, status: int, kind: str, code: str = "", param: str | None = None
) -> None:
    """Check a refusal whole: status, type, code, parameter, and no advice to repeat it."""
    assert said(response) == (status, kind, code or kind, param), response.text
    assert "retry-after" not in response.headers
    assert response.headers["x-request-id"]


def code() -> str:
    return f"C{secrets.token_hex(4).upper()}"


def once() -> dict[str, str]:
    return {"idempotency-key": secrets.token_hex(8)}


async def as_admin(
    town: People, method: str, path: str, *, key: str | None = None, **body: Any
) -> httpx.Response:
    """An administrator's request; the idempotency key goes beside the login."""
    headers = town.bearer(ADMIN)
    if key is not None:
        headers["idempotency-key"] = key
    return await town.mesh.http.request(method, path, headers=headers, json=body)


async def funded(town: People, *budgets: str) -> None:
    s = await staff(town.world)
    for budget in budgets:
        await s.fund(budget, 100_000_000)


async def signed_in(town: People, email: str = "") -> str:
    me = await town.call("GET", "/v1/me", email=email)
    return str(me.json()["account_id"])


async def test_an_invite_goes_from_an_administrator_to_an_account_once(town: People) -> None:
    await funded(town, "invite")
    made = await as_admin(town, "POST", "/v1/admin/invite-codes", amount_usd="5.00")
    assert made.status_code == 201
    invite = made.json()
    assert invite["code"].startswith("INV-")
    assert (invite["amount_usd"], invite["max_uses"], invite["expires_at"]) == ("5.00", 1, None)

    body = {"code": invite["code"].lower()}
    paid = await town.call("POST", "/v1/invite/redeem", json=body)
    assert paid.json() == {"credited_usd": "5.00", "balance_usd": "5.000000"}
    again = await town.call("POST", "/v1/invite/redeem", json=body)
    told(again, 400, "invalid_request_error", "invite_redeemed")
    late = await town.call("POST", "/v1/invite/redeem", email=town.bob, json=body)
    told(late, 400, "invalid_request_error", "invite_exhausted")
    unknown = await town.call("POST", "/v1/invite/redeem", json={"code": "INV-00"})
    told(unknown, 404, "not_found")
    bad = await town.call("POST", "/v1/invite/redeem", json={"code": "?"})
    told(bad, 400, "invalid_request_error", param="code")


async def test_a_deactivated_or_taken_code_says_so(town: People) -> None:
    wanted = code()
    made = await as_admin(
        town, "POST", "/v1/admin/invite-codes", code=wanted, amount_usd="1.00", max_uses=3
    )
    assert made.status_code == 201
    taken = await as_admin(town, "POST", "/v1/admin/invite-codes", code=wanted, amount_usd="1.00")
    told(taken, 409, "conflict")
    stopped = await as_admin(town, "DELETE", "/v1/admin/invite-codes", code=wanted)
    assert stopped.json() == {"status": "deactivated", "code": wanted}
    refused = await town.call("POST", "/v1/invite/redeem", json={"code": wanted})
    told(refused, 400, BAD, "invite_inactive")
    listed = (await as_admin(town, "GET", "/v1/admin/invite-codes")).json()["invite_codes"]
    assert [found["active"] for found in listed if found["code"] == wanted] == [False]
    gone = await as_admin(town, "DELETE", "/v1/admin/invite-codes", code="NOT-THERE")
    told(gone, 404, "not_found")


@pytest.mark.parametrize(("path", "field"), CREDITS)
async def test_a_double_click_pays_once_and_leaves_one_row(
    town: People, path: str, field: str
) -> None:
    await funded(town, "promo")
    account = await signed_in(town)
    key = secrets.token_hex(8)
    body = {"email": town.alice, "amount_usd": "1.15", "note": "thanks"}
    for _ in range(2):
        paid = await as_admin(town, "POST", path, key=key, **body)
        assert paid.status_code == 200, paid.text
        answer = paid.json()
        assert (answer["ok"], answer["account_id"], answer["email"]) == (True, account, town.alice)
        assert (answer[field], answer["balance_after"]) == ("1.15", "1.150000")
        assert answer["withdrawable"] is (field == "rewarded_usd")
    other = await as_admin(town, "POST", path, key=key, **{**body, "amount_usd": "1.16"})
    told(other, 409, "conflict")
    async with owner(town.world.url) as db:
        rows = await db.fetch(
            "SELECT operator, source, after FROM billing.operator_action WHERE subject = $1",
            account,
        )
    assert [(row["operator"], row["source"]) for row in rows] == [(ADMIN, "http")]
    assert json.loads(rows[0]["after"]) == {"amount_micros": 1_150_000}


async def test_credit_needs_a_key_an_amount_and_somebody(town: People) -> None:
    path = "/v1/admin/credit"
    body = {"email": town.alice, "amount_usd": "1.00"}
    missing = await as_admin(town, "POST", path, **body)
    told(missing, 400, BAD, param="Idempotency-Key")
    for amount in ("1.155", "-1", "0", 1, None):
        bad = await as_admin(town, "POST", path, key="k", email=town.alice, amount_usd=amount)
        told(bad, 400, BAD, param="amount_usd")
    nobody = await as_admin(
        town, "POST", path, key="k", email="nobody@darkbloom.invalid", amount_usd="1.00"
    )
    told(nobody, 404, "not_found")


async def test_nobody_but_an_administrator_writes(town: People) -> None:
    key, _ = await town.key()
    writes = [
        ("POST", "/v1/admin/credit"),
        ("POST", "/v1/admin/reward"),
        ("PUT", "/v1/admin/users/role"),
        ("PUT", "/v1/admin/users/platform-fee"),
        ("POST", "/v1/admin/invite-codes"),
        ("GET", "/v1/admin/invite-codes"),
        ("DELETE", "/v1/admin/invite-codes"),
        ("PUT", "/v1/admin/pricing"),
        ("GET", "/v1/admin/drain"),
        ("POST", "/v1/admin/drain"),
    ]
    for method, path in writes:
        for bearer in (key, None):
            refused = await town.call(method, path, bearer=bearer, json={})
            told(refused, 403, "forbidden")


async def test_role_and_fee_are_changed_and_recorded(town: People) -> None:
    account = await signed_in(town)
    role = await as_admin(town, "PUT", "/v1/admin/users/role", email=town.alice, role="service")
    assert role.json() == {
        "status": "updated",
        "account_id": account,
        "email": town.alice,
        "role": "service",
    }
    bad = await as_admin(town, "PUT", "/v1/admin/users/role", email=town.alice, role="king")
    told(bad, 400, BAD, param="role")
    path = "/v1/admin/users/platform-fee"
    fee = await as_admin(town, "PUT", path, email=town.alice, fee_percent=7)
    assert fee.json()["fee_percent"] == 7
    cleared = await as_admin(town, "PUT", path, email=town.alice, fee_percent=None)
    assert cleared.json()["fee_percent"] is None
    for wrong in (101, -1, "7", 7.5):
        bad = await as_admin(town, "PUT", path, email=town.alice, fee_percent=wrong)
        told(bad, 400, BAD, param="fee_percent")
    async with owner(town.world.url) as db:
        count = await db.fetchval(
            "SELECT count(*) FROM billing.operator_action WHERE subject = $1", account
        )
    assert count == 3


async def test_a_platform_price_leaves_a_row_in_the_name_of_the_key(town: People) -> None:
    build = f"build/{secrets.token_hex(4)}"
    body = {"model": build, "input_price": 30_000, "output_price": 90_000}
    done = await town.call("PUT", "/v1/admin/pricing", bearer=ADMIN_KEY, json=body)
    assert done.json()["status"] == "platform_default_updated"
    assert done.json()["input_usd"] == "$0.0300 per 1M tokens"
    async with owner(town.world.url) as db:
        row = await db.fetchrow("SELECT * FROM billing.operator_action WHERE subject = $1", build)
    assert (row["operator"], row["action"]) == ("admin-key", "price.set")


async def test_referrals_from_code_to_stats(town: People) -> None:
    wanted = code()
    empty = (await town.call("GET", "/v1/referral/info")).json()
    assert empty == {"code": "", "share_percent": 5, "referred_by": ""}
    none = await town.call("GET", "/v1/referral/stats")
    told(none, 404, "referral_error")

    made = await town.call("POST", "/v1/referral/register", json={"code": wanted.lower()})
    assert (made.json()["code"], made.json()["share_percent"]) == (wanted, 5)
    own = await town.call("POST", "/v1/referral/apply", json={"code": wanted})
    told(own, 400, "referral_error")
    for _ in range(2):
        applied = await town.call(
            "POST", "/v1/referral/apply", email=town.bob, json={"code": wanted}
        )
        assert applied.json() == {"status": "applied", "code": wanted}
    stats = (await town.call("GET", "/v1/referral/stats")).json()
    assert stats["total_referred"] == 1
    assert stats["total_rewards_usd"] == "0.000000"

    for bad in ("ab", "-abc", "a b c", "é" * 4, "x" * 21):
        refused = await town.call("POST", "/v1/referral/register", json={"code": bad})
        told(refused, 400, "referral_error", param="code")
    taken = await town.call("POST", "/v1/referral/register", email=town.bob, json={"code": wanted})
    told(taken, 400, "referral_error")
    unknown = await town.call("POST", "/v1/referral/apply", json={"code": "NOBODYS"})
    told(unknown, 404, "referral_error")
