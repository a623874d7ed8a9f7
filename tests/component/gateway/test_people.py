"""Who is let in where: logins, roles, administrators, closed accounts."""

import asyncio
from datetime import timedelta
from typing import Any

import httpx
import jwt
import pytest
from darkbloom_local.issuer import AUDIENCE, ISSUER
from darkbloom_mesh.clock import SystemClock
from fastapi import APIRouter, Request

from tests.component.billing.world import owner
from tests.component.gateway.people import ADMIN, ADMIN_KEY, People

pytestmark = pytest.mark.asyncio(loop_scope="session")
UNKNOWN = (401, "authentication_error")
CLOSING = (403, "account_pending_deletion")
PROVIDER_TOKEN = "dbp-" + "0" * 64


def said(response: httpx.Response) -> tuple[int, str]:
    body = response.json()
    return response.status_code, body["error"]["code"] if "error" in body else ""


async def test_a_first_login_makes_a_user_and_an_account_and_a_second_finds_them(
    town: People,
) -> None:
    first = (await town.call("GET", "/v1/me")).json()
    later = town.issuer.token(town.alice, now=SystemClock().now() - timedelta(seconds=30))
    second = (await town.call("GET", "/v1/me", bearer=later)).json()

    assert first == second
    assert first["user_id"].startswith("user_")
    assert first["account_id"].startswith("acct_")
    assert (first["email"], first["email_verified"]) == (town.alice, True)
    assert first["admin"] is False
    assert (await town.call("GET", "/v1/me", email=town.bob)).json()["account_id"] != (
        first["account_id"]
    )


async def test_many_first_logins_at_once_make_one_account(town: People) -> None:
    now = SystemClock().now()
    # Different tokens of one person: nothing is shared by a cache.
    tokens = [town.issuer.token(town.alice, now=now - timedelta(seconds=s)) for s in range(16)]
    seen = await asyncio.gather(*(town.call("GET", "/v1/me", bearer=token) for token in tokens))

    assert {response.status_code for response in seen} == {200}
    assert len({response.json()["account_id"] for response in seen}) == 1
    async with owner(town.world.url) as database:
        count = await database.fetchval(
            "SELECT count(*) FROM billing.app_user WHERE email = $1", town.alice
        )
    assert count == 1


async def test_a_login_may_do_what_a_key_may(town: People) -> None:
    for path in ("/v1/models", "/v1/payments/balance"):
        assert (await town.call("GET", path)).status_code == 200
    body = {"model": "nothing", "messages": [{"role": "user", "content": "hi"}]}
    asked = await town.call("POST", "/v1/chat/completions", json=body)
    assert said(asked) == (404, "model_not_found")


async def test_the_operators_key_reads_but_has_no_account(town: People) -> None:
    assert (await town.call("GET", "/v1/models", bearer=ADMIN_KEY)).status_code == 200
    balance = await town.call("GET", "/v1/payments/balance", bearer=ADMIN_KEY)
    assert said(balance) == (401, "auth_error")
    body = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}
    asked = await town.call("POST", "/v1/chat/completions", bearer=ADMIN_KEY, json=body)
    assert said(asked) == (401, "auth_error")


async def test_each_label_lets_in_whom_it_names(town: People) -> None:
    key, _ = await town.key()
    credentials = {
        "nobody": None,
        "wrong": "sk-db-" + "0" * 64,
        "forged": "eyJhbGciOiJub25lIn0.e30.x",
        "key": key,
        "login": town.issuer.token(town.alice),
        "admin login": town.issuer.token(ADMIN),
        "admin key": ADMIN_KEY,
        "provider": PROVIDER_TOKEN,
    }

    async def asked(label: str) -> dict[str, int]:
        found = {}
        for name, credential in credentials.items():
            request = _request(credential)
            try:
                await getattr(town.mesh.worker.plane, label)(request)
                found[name] = 200
            except Exception as error:  # noqa: BLE001 - whatever it is, it must have a status
                found[name] = error.http_status  # type: ignore[attr-defined]
        return found

    nobody = {"nobody": 401, "wrong": 401, "forged": 401, "provider": 401}
    people = {"key": 200, "login": 200, "admin login": 200}
    assert await asked("caller") == {**nobody, **people, "admin key": 200}
    assert await asked("account") == {**nobody, **people, "admin key": 401}
    assert await asked("login") == {
        **nobody,
        **people,
        "wrong": 403,
        "key": 403,
        "admin key": 403,
        "provider": 403,
    }
    closed = dict.fromkeys(credentials, 403)
    assert await asked("admin") == {**closed, "admin login": 200, "admin key": 200}
    assert await asked("admin_key") == {**closed, "admin key": 200}
    assert await asked("provider") == {**closed, "nobody": 401, "provider": 401}


async def test_an_administrator_needs_an_issuer_that_vouches_for_the_email(town: People) -> None:
    async def is_admin(**changes: Any) -> bool:
        now = int(SystemClock().now().timestamp())
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": f"{town.alice}-{changes}",
            "email": ADMIN.upper(),
            "email_verified": True,
            "exp": now + 60,
            **changes,
        }
        token = jwt.encode(claims, town.issuer._key, "ES256", headers={"kid": town.issuer.key_id})
        return bool((await town.call("GET", "/v1/me", bearer=token)).json()["admin"])

    assert await is_admin()
    assert not await is_admin(email_verified=False)
    assert not await is_admin(email_verified="true")
    assert not await is_admin(email=f"x{ADMIN}")


async def test_a_login_is_not_believed_beyond_its_end(town: People) -> None:
    now = SystemClock().now()
    # Its hour is over in a second; the minute of skew is ours to give, not the cache's to extend.
    ended = town.issuer.token(town.alice, now=now - timedelta(seconds=3600 + 61))
    assert said(await town.call("GET", "/v1/me", bearer=ended)) == UNKNOWN


async def test_a_huge_token_is_401_and_never_asked_for(town: People) -> None:
    asked = await town.call("GET", "/v1/me", bearer="eyJ" + "a" * 9000)
    assert said(asked) == UNKNOWN


async def test_a_closed_account_ends_every_credential_of_it_at_once(town: People) -> None:
    key, _ = await town.key()
    login = town.issuer.token(town.alice)
    assert await town.status(key) == 200

    closed = await town.call("DELETE", "/v1/me", bearer=login)
    assert (closed.status_code, closed.json()) == (202, {"status": "pending_deletion"})

    async with asyncio.timeout(30):
        while await town.status(key) != 403 or await town.status(login) != 403:
            pass
    assert said(await town.call("GET", "/v1/models", bearer=key)) == CLOSING
    assert said(await town.call("GET", "/v1/me", bearer=login)) == CLOSING
    assert said(await town.call("POST", "/v1/keys")) == CLOSING
    assert (await town.call("GET", "/v1/me", email=town.bob)).status_code == 200


async def test_a_changed_role_reaches_the_gateway_at_once(town: People) -> None:
    key, _ = await town.key()
    me = (await town.call("GET", "/v1/me")).json()
    assert me["role"] == ""

    async with owner(town.world.url) as database:
        await database.execute(
            "UPDATE billing.account SET role = 'service' WHERE account_id = $1", me["account_id"]
        )

    async with asyncio.timeout(30):
        while True:
            caller = await town.mesh.worker.plane.caller(_request(key))
            if caller.role == "service":
                break


def _request(credential: str | None) -> Request:
    header = [] if credential is None else [(b"authorization", f"Bearer {credential}".encode())]
    return Request({"type": "http", "headers": header, "router": APIRouter()})
