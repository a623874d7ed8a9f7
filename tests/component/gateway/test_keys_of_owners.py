"""Every rule of API keys (http-api §12) over HTTP, with a real billing behind the gateway."""

import asyncio
import hashlib
import secrets
from typing import Any

import httpx
import pytest
from darkbloom_edge.signatures import P256Signer

from tests.component.billing.world import owner
from tests.component.gateway.harness import gateway
from tests.component.gateway.neighbours import BUILD
from tests.component.gateway.people import ADMIN_KEY, People, people

pytestmark = pytest.mark.asyncio(loop_scope="session")

LATER = "2035-01-01T00:00:00Z"


def error(response: httpx.Response) -> tuple[int, str, str, str | None, bool]:
    body = response.json()["error"]
    assert response.headers["x-request-id"]
    retry = "retry-after" in response.headers
    return response.status_code, body["type"], body["code"], body.get("param"), retry


FORBIDDEN = (403, "forbidden", "forbidden", None, False)
NOT_FOUND = (404, "not_found", "not_found", None, False)
UNKNOWN = (401, "authentication_error", "authentication_error", None, False)


async def test_a_key_is_shown_once_and_only_its_hash_is_kept(town: People) -> None:
    secret, record = await town.key(name="first")

    assert secret.startswith("sk-db-")
    assert len(secret) == 6 + 64
    assert record["label"] == f"sk-db-{secret[6:10]}…{secret[-4:]}"
    listed = (await town.call("GET", "/v1/keys")).json()
    assert listed == {"object": "list", "data": [record]}
    assert secret not in str(listed)
    async with owner(town.world.url) as database:
        digest = hashlib.sha256(secret.encode()).digest()
        row = await database.fetchrow("SELECT * FROM billing.api_key WHERE key_hash = $1", digest)
    assert secret[10:-4] not in str(dict(row))
    assert await town.status(secret) == 200


async def test_a_fresh_key_has_the_fields_of_the_contract_and_no_others(town: People) -> None:
    made = await town.call("POST", "/v1/keys")
    assert made.headers["cache-control"] == "no-store"

    record = made.json()["data"]
    assert record.pop("id").startswith("key_")
    assert record.pop("created_at").endswith("Z")
    assert record.pop("label")
    assert record == {
        "name": "",
        "disabled": False,
        "limit_reset": "none",
        "usage_usd": 0,
        "self_route_only": False,
    }


async def test_every_setting_is_kept_and_null_clears(town: People) -> None:
    settings: dict[str, Any] = {
        "name": "all",
        "limit_usd": 12.345678,
        "limit_reset": "weekly",
        "rpm_limit": 60,
        "itpm_limit": 1000,
        "otpm_limit": 0,
        "allowed_models": ["tiny", "other"],
        "self_route_only": True,
        "expires_at": LATER,
    }
    _, record = await town.key(**settings)
    assert {name: record[name] for name in settings} == settings
    assert record["remaining_usd"] == 12.345678
    path = f"/v1/keys/{record['id']}"

    one = await town.call("PATCH", path, json={"rpm_limit": 5})
    assert one.json() == {**record, "rpm_limit": 5}

    cleared = await town.call(
        "PATCH",
        path,
        json=dict.fromkeys(
            ("limit_usd", "rpm_limit", "itpm_limit", "otpm_limit", "allowed_models", "expires_at")
        ),
    )
    gone = {"limit_usd", "remaining_usd", "rpm_limit", "itpm_limit", "otpm_limit"}
    gone |= {"allowed_models", "expires_at"}
    assert cleared.json() == {name: value for name, value in record.items() if name not in gone}
    assert (await town.call("GET", path)).json() == cleared.json()
    assert (await town.call("PATCH", path, json={})).json() == cleared.json()


@pytest.mark.parametrize(
    ("settings", "param"),
    [
        ({"limit_usd": -1}, "limit_usd"),
        ({"limit_usd": "1"}, "limit_usd"),
        ({"limit_usd": True}, "limit_usd"),
        ({"limit_usd": 0.0000001}, "limit_usd"),
        ({"limit_usd": 1e300}, "limit_usd"),
        ({"limit_reset": 7}, "limit_reset"),
        ({"rpm_limit": -1}, "rpm_limit"),
        ({"rpm_limit": 1.5}, "rpm_limit"),
        ({"rpm_limit": 2**40}, "rpm_limit"),
        ({"itpm_limit": "many"}, "itpm_limit"),
        ({"otpm_limit": False}, "otpm_limit"),
        ({"allowed_models": "tiny"}, "allowed_models"),
        ({"allowed_models": ["ti ny"]}, "allowed_models"),
        ({"allowed_models": [""]}, "allowed_models"),
        ({"self_route_only": "yes"}, "self_route_only"),
        ({"disabled": 1}, "disabled"),
        ({"name": "x" * 101}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"expires_at": "2001-01-01T00:00:00Z"}, "expires_at"),
        ({"expires_at": "2035-01-01T00:00:00"}, "expires_at"),
        ({"expires_at": "soon"}, "expires_at"),
        ({"usage_usd": 0}, "usage_usd"),
    ],
)
async def test_a_setting_outside_its_range_is_400_and_names_its_field(
    town: People, settings: dict[str, Any], param: str
) -> None:
    made = await town.call("POST", "/v1/keys", json=settings)
    assert error(made) == (400, "bad_request", "bad_request", param, False)
    assert (await town.call("GET", "/v1/keys")).json()["data"] == []


@pytest.mark.parametrize("body", [b"{", b"[]", b'"x"', b'{"limit_usd": NaN}', b"\xff"])
async def test_a_body_that_is_no_object_is_400(town: People, body: bytes) -> None:
    made = await town.call("POST", "/v1/keys", content=body)

    assert error(made) == (400, "bad_request", "bad_request", None, False)


async def test_an_unknown_reset_never_starts_anew(town: People) -> None:
    assert (await town.key(limit_usd=1, limit_reset="yearly"))[1]["limit_reset"] == "none"


async def test_keys_cannot_manage_keys(town: People) -> None:
    secret, record = await town.key()
    path = f"/v1/keys/{record['id']}"
    calls = [
        ("GET", "/v1/keys"),
        ("POST", "/v1/keys"),
        ("GET", path),
        ("PATCH", path),
        ("DELETE", path),
        ("POST", f"{path}/rotate"),
        ("POST", "/v1/auth/keys"),
        ("DELETE", "/v1/auth/keys"),
    ]
    for credential in (secret, ADMIN_KEY, "dbp-" + "a" * 64):
        for method, where in calls:
            assert error(await town.call(method, where, bearer=credential)) == FORBIDDEN
    for method, where in calls:
        assert error(await town.mesh.http.request(method, where)) == UNKNOWN
        assert error(await town.call(method, where, bearer="eyJ.e30.x")) == UNKNOWN
    assert await town.status(secret) == 200


async def test_another_accounts_key_does_not_exist(town: People) -> None:
    secret, record = await town.key()
    path = f"/v1/keys/{record['id']}"

    for method, where in (
        ("GET", path),
        ("PATCH", path),
        ("DELETE", path),
        ("POST", f"{path}/rotate"),
        ("GET", "/v1/keys/key_nothing"),
    ):
        assert error(await town.call(method, where, email=town.bob, json={})) == NOT_FOUND
    assert (await town.call("GET", "/v1/keys", email=town.bob)).json()["data"] == []
    assert await town.status(secret) == 200


async def test_the_calling_key_sees_its_own_record(town: People) -> None:
    secret, record = await town.key(name="mine")

    assert (await town.call("GET", "/v1/key", bearer=secret)).json() == record
    assert error(await town.call("GET", "/v1/key")) == NOT_FOUND
    assert error(await town.call("GET", "/v1/key", bearer=ADMIN_KEY)) == NOT_FOUND


async def test_rotation_keeps_everything_and_kills_the_old_secret(town: People) -> None:
    secret, record = await town.key(name="kept", rpm_limit=7)
    assert await town.status(secret) == 200

    rotated = (await town.call("POST", f"/v1/keys/{record['id']}/rotate")).json()

    assert rotated["key"] != secret
    assert rotated["data"] == {**record, "label": rotated["data"]["label"]}
    await dead(town, secret)
    assert await town.status(rotated["key"]) == 200


async def test_a_disabled_key_is_401_until_it_is_enabled(town: People) -> None:
    secret, record = await town.key()
    path = f"/v1/keys/{record['id']}"
    assert await town.status(secret) == 200

    assert (await town.call("PATCH", path, json={"disabled": True})).json()["disabled"]
    await dead(town, secret)
    await town.call("PATCH", path, json={"disabled": False})
    await alive(town, secret)


async def test_a_revoked_key_is_gone_for_good(town: People) -> None:
    secret, record = await town.key()
    path = f"/v1/keys/{record['id']}"

    assert (await town.call("DELETE", path)).json() == {"status": "revoked"}
    await dead(town, secret)
    assert error(await town.call("DELETE", path)) == NOT_FOUND
    assert error(await town.call("PATCH", path, json={"disabled": False})) == NOT_FOUND


async def test_an_expired_key_is_401(town: People) -> None:
    secret, record = await town.key(expires_at=LATER)

    assert await town.status(secret) == 200
    async with owner(town.world.url) as database:
        await database.execute(
            "UPDATE billing.api_key SET expires_at = '2026-01-01' WHERE key_id = $1", record["id"]
        )
    await dead(town, secret)


@pytest.mark.parametrize("wanted", [True, False, None])
async def test_whether_a_new_key_is_enabled_is_nobodys_choice(
    town: People, wanted: bool | None
) -> None:
    made = await town.call("POST", "/v1/keys", json={"disabled": wanted})
    assert error(made) == (400, "bad_request", "bad_request", "disabled", False)


async def test_an_account_has_at_most_a_hundred_keys_that_are_not_revoked(town: People) -> None:
    _, record = await town.key()
    async with owner(town.world.url) as database:
        await database.execute(
            """INSERT INTO billing.api_key
                 (key_id, key_hash, account_id, name, label, allowed_models, created_at)
               SELECT k.key_id || n, sha256(convert_to(k.key_id || n, 'UTF8')), k.account_id,
                 '', '', '{}', k.created_at
               FROM billing.api_key k, generate_series(1, 98) n WHERE k.key_id = $1""",
            record["id"],
        )
    # Of several at once, too, only one finds the last place.
    made = await asyncio.gather(*(town.call("POST", "/v1/keys") for _ in range(4)))
    assert sorted(answer.status_code for answer in made) == [200, 400, 400, 400]
    for path in ("/v1/keys", "/v1/auth/keys"):
        full = await town.call("POST", path)
        assert error(full) == (400, "bad_request", "bad_request", None, False)
        assert "100 keys" in full.json()["error"]["message"]
    await town.call("DELETE", f"/v1/keys/{record['id']}")
    assert (await town.call("POST", "/v1/keys")).status_code == 200


async def test_what_a_key_has_spent_stays_with_it_through_a_rotation(town: People) -> None:
    w, machine, seller = town.world, P256Signer.generate(), f"acct_{secrets.token_hex(4)}"
    account = (await town.call("GET", "/v1/me")).json()["account_id"]
    await w.account(account, micros=1_000_000)
    await w.account(seller)
    await w.link(machine, seller)
    await w.price(secrets.token_hex(4), 10_000_000, 20_000_000)
    _, record = await town.key(limit_usd=1)
    order = w.order(account_id=account, key_id=record["id"])
    await w.hold(order)
    settlement = w.settlement(
        order.request_id,
        verdict=w.verdict(machine=machine)[1],
        terminal=w.terminal(order.request_id, machine=machine),
    )
    (paid,) = await w.settle(settlement)
    assert paid.charge_micros == 800

    await town.call("POST", f"/v1/keys/{record['id']}/rotate")
    found = (await town.call("GET", f"/v1/keys/{record['id']}")).json()
    assert (found["usage_usd"], found["remaining_usd"]) == (0.0008, 0.9992)


async def test_a_cap_of_nothing_still_serves_on_ones_own_machines(town: People) -> None:
    secret, _ = await town.key(limit_usd=0)
    account = (await town.call("GET", "/v1/me")).json()["account_id"]
    await town.world.account(account)
    await town.world.link(town.mesh.router.identity, account)
    body = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}
    answer = await town.mesh.http.post(
        "/v1/chat/completions",
        json=body,
        headers={"authorization": f"Bearer {secret}", "x-darkbloom-route": "self"},
    )
    assert answer.status_code == 200, answer.text


async def test_a_revocation_reaches_every_gateway(town: People, valkey_url: str) -> None:
    secret, record = await town.key()
    target = town.world.service.listeners["grpc"]
    async with gateway(valkey_url, billing_target=target) as other:
        bearer = {"authorization": f"Bearer {secret}"}

        async def status() -> int:
            return (await other.http.get("/v1/models", headers=bearer)).status_code

        assert await status() == await town.status(secret) == 200
        await town.call("DELETE", f"/v1/keys/{record['id']}")
        await dead(town, secret)
        async with asyncio.timeout(30):
            while await status() != 401:
                pass


async def test_older_clients_mint_and_revoke(town: People) -> None:
    minted = (await town.call("POST", "/v1/auth/keys")).json()
    me = (await town.call("GET", "/v1/me")).json()
    assert minted["account_id"] == me["account_id"]
    assert await town.status(minted["api_key"]) == 200

    body = {"key": minted["api_key"]}
    assert error(await town.call("DELETE", "/v1/auth/keys", email=town.bob, json=body)) == FORBIDDEN
    revoked = await town.call("DELETE", "/v1/auth/keys", json=body)
    assert revoked.json() == {"status": "revoked"}
    await dead(town, minted["api_key"])
    assert error(await town.call("DELETE", "/v1/auth/keys", json=body)) == NOT_FOUND
    for wrong in ({}, {"key": 7}, {"key": ""}):
        said = error(await town.call("DELETE", "/v1/auth/keys", json=wrong))
        assert said == (400, "bad_request", "bad_request", "key", False)


async def test_a_minted_key_is_as_narrow_as_all_the_others(town: People) -> None:
    await town.key(self_route_only=True)
    _, wide = await town.key()
    await town.call("PATCH", f"/v1/keys/{wide['id']}", json={"disabled": True})

    minted = (await town.call("POST", "/v1/auth/keys")).json()["api_key"]
    own = (await town.call("GET", "/v1/key", bearer=minted)).json()
    assert own["self_route_only"]


async def test_a_keys_cap_refuses_before_any_money_is_held_and_a_higher_one_lets_through(
    town: People,
) -> None:
    account = (await town.call("GET", "/v1/me")).json()["account_id"]
    await town.world.account(account, micros=5_000_000)
    await town.world.price(BUILD, 1_000_000, 2_000_000)
    secret, record = await town.key(limit_usd=0, limit_reset="daily")
    body = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 100}

    capped = await town.call("POST", "/v1/chat/completions", bearer=secret, json=body)
    assert error(capped) == (402, "insufficient_quota", "insufficient_quota", None, False)
    facts = capped.json()["error"]
    assert facts["available_micro_usd"] == 0
    assert facts["required_micro_usd"] > 0

    await town.call("PATCH", f"/v1/keys/{record['id']}", json={"limit_usd": 2.5})
    asked = await town.call("POST", "/v1/chat/completions", bearer=secret, json=body)
    assert asked.status_code == 200
    seen = (await town.call("GET", "/v1/key", bearer=secret)).json()
    assert (seen["limit_usd"], seen["limit_reset"]) == (2.5, "daily")
    assert 0 < seen["remaining_usd"] <= 2.5


async def test_a_model_outside_the_keys_list_is_403_before_it_is_looked_up(town: People) -> None:
    secret, _ = await town.key(allowed_models=["tiny"])
    body = {"model": "other", "messages": [{"role": "user", "content": "hi"}]}
    asked = await town.call("POST", "/v1/chat/completions", bearer=secret, json=body)
    assert error(asked) == (403, "model_not_allowed", "model_not_allowed", "model", False)
    listed = (await town.call("GET", "/v1/models", bearer=secret)).json()["data"]
    assert [row["id"] for row in listed] == ["tiny"]


async def test_the_last_use_is_seen_a_little_later(town: People) -> None:
    secret, record = await town.key()
    body = {"model": "nothing", "messages": [{"role": "user", "content": "hi"}]}
    assert (
        await town.call("POST", "/v1/chat/completions", bearer=secret, json=body)
    ).status_code == 404

    await town.mesh.worker.key_uses.flush()

    seen = (await town.call("GET", f"/v1/keys/{record['id']}")).json()
    assert seen["last_used_at"] >= record["created_at"]


async def test_changes_of_keys_are_limited_per_account(
    tmp_path: Any, cluster: Any, template: str, valkey_url: str
) -> None:
    with cluster.database(template) as url:
        async with people(
            tmp_path, url, valkey_url, financial_rate=0.001, financial_burst=2
        ) as town:
            _, record = await town.key()
            await town.key()
            limited = await town.call("POST", "/v1/keys")
            assert error(limited) == (429, "rate_limit_exceeded", "rate_limit_exceeded", None, True)
            assert (await town.call("POST", "/v1/keys", email=town.bob)).status_code == 200
            assert (await town.call("GET", f"/v1/keys/{record['id']}")).status_code == 200


async def dead(town: People, secret: str) -> None:
    async with asyncio.timeout(30):
        while await town.status(secret) != 401:
            pass
    assert error(await town.call("GET", "/v1/models", bearer=secret)) == UNKNOWN


async def alive(town: People, secret: str) -> None:
    async with asyncio.timeout(30):
        while await town.status(secret) != 200:
            pass
