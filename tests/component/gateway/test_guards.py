"""Limits of the control plane: who changes money or keys, and who has no credential."""

from collections.abc import AsyncIterator
from dataclasses import fields
from typing import Any

import httpx
import pytest
from darkbloom_gateway.config import GatewayConfig
from darkbloom_gateway.errors import ApiError
from darkbloom_gateway.guards import network_of
from darkbloom_gateway.model import Caller, KeyRecord
from darkbloom_mesh.config import Secret
from starlette.requests import Request

from tests.component.gateway.harness import Harness, gateway
from tests.component.gateway.neighbours import API_KEY
from tests.component.gateway.test_refusals import error
from tests.fakes.identity import LOGIN_TOKEN

SLOW = 0.001
NO_STORE: dict[str, Any] = {"redis_url": Secret("redis://127.0.0.1:1")}


def stranger(address: str, forwarded: str = "") -> Request:
    headers = [(b"x-forwarded-for", forwarded.encode())] if forwarded else []
    return Request({"type": "http", "client": (address, 1), "headers": headers})


async def refusal(call: Any) -> ApiError:
    with pytest.raises(ApiError) as caught:
        await call
    return caught.value


@pytest.fixture
async def still(valkey_url: str) -> AsyncIterator[Harness]:
    """A gateway whose buckets do not refill while a test runs, however slow it is."""
    async with gateway(valkey_url, financial_rate=SLOW) as mesh:
        yield mesh


def test_money_changes_three_times_and_then_every_five_seconds() -> None:
    settings = {each.name: each.default for each in fields(GatewayConfig)}

    assert settings["financial_burst"] == 3
    assert 1 / settings["financial_rate"] == 5


async def test_an_account_has_a_burst_of_three_changes_of_money(still: Harness) -> None:
    mesh = still
    caller = KeyRecord("key_1", "acct_financial", account_role="service")
    for _ in range(3):
        await mesh.worker.plane.financial(caller)

    error = await refusal(mesh.worker.plane.financial(caller))

    assert (error.http_status, error.kind, error.code) == (
        429,
        "rate_limit_exceeded",
        "rate_limit_exceeded",
    )
    assert error.retry_after_s == 60
    assert dict(error.headers)[b"x-ratelimit-limit-requests"] == b"3"
    assert b"x-ratelimit-reset" in dict(error.headers)
    await mesh.worker.plane.financial(KeyRecord("key_1", "acct_other"))


async def test_the_operators_key_is_not_limited(mesh: Harness) -> None:
    for _ in range(9):
        await mesh.worker.plane.financial(Caller("admin", is_admin=True))


async def test_the_financial_limit_is_one_for_all_gateways(still: Harness, valkey_url: str) -> None:
    caller = KeyRecord("key_1", "acct_two_gateways")
    async with gateway(valkey_url, financial_rate=SLOW) as second:
        for one in (still, second, still):
            await one.worker.plane.financial(caller)

        assert (await refusal(second.worker.plane.financial(caller))).http_status == 429


async def test_without_the_shared_buckets_money_waits_but_a_key_can_be_revoked(
    valkey_url: str,
) -> None:
    caller = KeyRecord("key_1", "acct_closed")
    async with gateway(valkey_url, financial_rate=SLOW, **NO_STORE) as mesh:
        plane = mesh.worker.plane

        error = await refusal(plane.financial(caller))
        assert (error.http_status, error.kind, error.retry_after_s) == (
            503,
            "service_unavailable",
            5,
        )
        for _ in range(3):
            await plane.financial(caller, revokes=True)
        assert (await refusal(plane.financial(caller, revokes=True))).http_status == 429


async def test_strangers_are_counted_by_address(valkey_url: str) -> None:
    async with gateway(valkey_url, address_rate=0.01, address_burst=2) as mesh:
        plane = mesh.worker.plane
        for _ in range(2):
            await plane.stranger(stranger("192.0.2.1", "198.51.100.7"))

        assert (await refusal(plane.stranger(stranger("192.0.2.1")))).retry_after_s == 60
        await plane.stranger(stranger("192.0.2.2"))


async def test_without_the_shared_buckets_strangers_are_counted_here(valkey_url: str) -> None:
    async with gateway(valkey_url, address_rate=0.01, address_burst=1, **NO_STORE) as mesh:
        await mesh.worker.plane.stranger(stranger("192.0.2.3"))

        assert (await refusal(mesh.worker.plane.stranger(stranger("192.0.2.3")))).http_status == 429


async def post(mesh: Harness, path: str, body: Any, token: str = "") -> httpx.Response:
    headers = {"authorization": f"Bearer {token}"} if token else {}
    return await mesh.http.post(path, json=body, headers=headers)


async def test_the_fourth_change_of_keys_over_http_is_429(still: Harness) -> None:
    mesh = still
    mesh.billing.identity.add_login(LOGIN_TOKEN, account_id="acct_http")
    for _ in range(3):
        assert (await post(mesh, "/v1/keys", {"name": "k"}, LOGIN_TOKEN)).status_code != 429

    response = await post(mesh, "/v1/keys", {"name": "k"}, LOGIN_TOKEN)

    kind = "rate_limit_exceeded"
    assert error(response) == (429, kind, kind, None, True)
    assert response.headers["retry-after"] == "60"
    assert response.headers["x-ratelimit-limit-requests"] == "3"
    assert response.headers["x-ratelimit-remaining-requests"] == "0"
    assert int(response.headers["x-ratelimit-reset"]) > 1_700_000_000


async def test_without_the_shared_buckets_no_key_is_made_but_one_can_be_revoked(
    valkey_url: str,
) -> None:
    async with gateway(valkey_url, **NO_STORE) as mesh:
        mesh.billing.identity.add_login(LOGIN_TOKEN, account_id="acct_http_closed")
        made = await post(mesh, "/v1/keys", {"name": "k"}, LOGIN_TOKEN)
        headers = {"authorization": f"Bearer {LOGIN_TOKEN}"}
        gone = await mesh.http.delete("/v1/keys/key_1", headers=headers)

        kind = "service_unavailable"
        assert error(made) == (503, kind, kind, None, True)
        assert made.headers["retry-after"] == "5"
        assert gone.status_code == 200
        assert mesh.billing.identity.deleted == ["key_1"]


async def test_device_codes_are_limited_by_address_over_http(valkey_url: str) -> None:
    async with gateway(valkey_url, address_rate=0.01, address_burst=1, proxies=1) as mesh:

        async def code(address: str) -> httpx.Response:
            headers = {"x-forwarded-for": address}
            return await mesh.http.post("/v1/device/code", json={}, headers=headers)

        assert (await code("203.0.113.1")).status_code != 429
        response = await code("203.0.113.1")
        assert (await code("203.0.113.2")).status_code != 429

    kind = "rate_limit_exceeded"
    assert error(response) == (429, kind, kind, None, True)
    assert response.headers["retry-after"] == "60"


async def test_reads_are_not_limited(valkey_url: str) -> None:
    async with gateway(valkey_url, request_rate=0.01, request_burst=1) as mesh:
        headers = {"authorization": f"Bearer {API_KEY}"}
        for _ in range(5):
            assert (await mesh.http.get("/v1/models", headers=headers)).status_code == 200


@pytest.mark.parametrize(
    ("peer", "forwarded", "proxies", "network"),
    [
        ("192.0.2.1", None, 0, "192.0.2.1"),
        ("192.0.2.1", "203.0.113.9", 0, "192.0.2.1"),
        ("192.0.2.1", "203.0.113.9", 1, "203.0.113.9"),
        ("192.0.2.1", "6.6.6.6, 203.0.113.9", 1, "203.0.113.9"),
        ("192.0.2.1", "6.6.6.6, 203.0.113.9, 192.0.2.8", 2, "203.0.113.9"),
        ("192.0.2.1", "203.0.113.9", 2, "192.0.2.1"),
        ("192.0.2.1", "nonsense", 1, "192.0.2.1"),
        ("192.0.2.1", None, 1, "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", None, 0, "2001:db8:1:2::"),
        ("::ffff:192.0.2.1", None, 0, "192.0.2.1"),
        ("", None, 0, ""),
    ],
)
def test_an_address_is_what_the_outermost_proxy_of_ours_saw(
    peer: str, forwarded: str | None, proxies: int, network: str
) -> None:
    assert network_of(peer, forwarded, proxies) == network
