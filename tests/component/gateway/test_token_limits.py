"""Limits of tokens over HTTP: headers, refusals, what is given back, and all gateways together."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from darkbloom_mesh.config import Secret

from tests.component.gateway.harness import Harness, gateway
from tests.component.gateway.test_refusals import CHAT, HI, error
from tests.fakes.router import Script, scripted

LIMITED = "rate_limit_exceeded"
INVALID = "invalid_request_error"
SLOW: dict[str, Any] = {
    "request_rate": 0.01,
    "request_burst": 1000,
    "input_tokens": 1,
    "input_burst": 1000,
    "output_tokens": 1,
    "output_burst": 300,
}


class Asker:
    """Somebody with a key and an account of his own."""

    def __init__(self, mesh: Harness, name: str, **limits: Any) -> None:
        self._mesh = mesh
        self._key = f"sk-db-{name}"
        mesh.billing.add_key(self._key, **limits)
        record = mesh.billing.keys[next(reversed(mesh.billing.keys))]
        record.account_id, record.key_id = f"acct_{name}", f"key_{name}"

    async def ask(self, **changes: Any) -> httpx.Response:
        body = {"model": "tiny", "messages": HI, **changes}
        headers = {"authorization": f"Bearer {self._key}"}
        return await self._mesh.http.post(CHAT, json=body, headers=headers)


@pytest.fixture
async def slow(valkey_url: str) -> AsyncIterator[Harness]:
    """A gateway whose token buckets hardly refill."""
    async with gateway(valkey_url, **SLOW) as mesh:
        yield mesh


async def test_every_answer_carries_three_triples(slow: Harness) -> None:
    asker = Asker(slow, "triples")

    for response in (await asker.ask(max_tokens=100), await asker.ask(max_tokens=50, stream=True)):
        assert response.status_code == 200
        for what, limit in (("requests", 1000), ("input-tokens", 1000), ("output-tokens", 300)):
            assert response.headers[f"x-ratelimit-limit-{what}"] == str(limit)
            assert int(response.headers[f"x-ratelimit-remaining-{what}"]) < limit
            assert response.headers[f"x-ratelimit-reset-{what}"]


async def test_what_was_not_used_comes_back(slow: Harness) -> None:
    asker = Asker(slow, "refund")
    slow.router.default = scripted("one two three")

    first = await asker.ask(max_tokens=250)
    second = await asker.ask(max_tokens=250)
    third = await asker.ask(max_tokens=250)

    assert [one.status_code for one in (first, second, third)] == [200, 200, 200]
    used = first.json()["usage"]["completion_tokens"]
    assert second.headers["x-ratelimit-remaining-output-tokens"] == str(300 - used - 250)
    assert third.headers["x-ratelimit-remaining-output-tokens"] == str(300 - 2 * used - 250)


async def test_a_request_that_nobody_answers_costs_no_tokens(slow: Harness) -> None:
    asker = Asker(slow, "unanswered")
    for _ in range(3):
        slow.router.scripts = [Script(fails=True), Script(refused=_refused())]
        assert (await asker.ask(max_tokens=250)).status_code == 503

    slow.router.scripts = []
    response = await asker.ask(max_tokens=250)
    assert response.headers["x-ratelimit-remaining-output-tokens"] == "50"


async def test_too_many_output_tokens_are_429_with_the_triples(slow: Harness) -> None:
    asker = Asker(slow, "output")
    slow.router.default = Script(pause=asyncio.Event())
    running = asyncio.create_task(asker.ask(max_tokens=200))
    await slow.router.until(lambda: slow.router.seen.requests)

    response = await asker.ask(max_tokens=200)

    assert error(response) == (429, LIMITED, LIMITED, None, True)
    assert response.headers["retry-after"] == "60"
    assert response.headers["x-ratelimit-limit-output-tokens"] == "300"
    assert response.headers["x-ratelimit-remaining-output-tokens"] == "100"
    assert response.headers["x-ratelimit-remaining-requests"] == "999"
    assert "x-ratelimit-reset" not in response.headers
    await slow.router.until(lambda: slow.router.seen.abandons)
    await slow.billing.until(lambda: slow.billing.releases)
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


async def test_too_many_input_tokens_are_429(slow: Harness) -> None:
    asker = Asker(slow, "input", input_tpm_limit=900)
    slow.router.default = scripted("x")
    big = [{"role": "user", "content": "x" * 2400}]
    first = await asker.ask(messages=big, max_tokens=1)
    assert first.status_code == 200
    assert first.headers["x-ratelimit-limit-input-tokens"] == "900"

    response = await asker.ask(messages=big, max_tokens=1)

    assert error(response) == (429, LIMITED, LIMITED, None, True)
    # 604 tokens were taken of 900, 15 come back each second, also while the test is slow.
    assert 1 <= int(response.headers["retry-after"]) <= 21


@pytest.mark.parametrize(
    ("limits", "body", "expected", "words"),
    [
        (
            {},
            {"max_tokens": 301},
            (400, INVALID, "above_rate_limit", None, False),
            "301 output tokens, the limit of this account is 300",
        ),
        (
            {"output_tpm_limit": 20},
            {"max_tokens": 21},
            (400, INVALID, "above_rate_limit", None, False),
            "the limit of this key is 20",
        ),
        (
            {},
            {"messages": [{"role": "user", "content": "x" * 5000}], "max_tokens": 1},
            (413, INVALID, "payload_too_large", None, False),
            "input tokens, the limit of this account is 1000",
        ),
        (
            {"rpm_limit": 0},
            {"max_tokens": 1},
            (400, INVALID, "above_rate_limit", None, False),
            "1 requests, the limit of this key is 0",
        ),
    ],
)
async def test_what_no_wait_lets_pass_names_the_limit_and_holds_nothing(
    slow: Harness,
    limits: dict[str, Any],
    body: dict[str, Any],
    expected: tuple[Any, ...],
    words: str,
) -> None:
    response = await Asker(slow, "never", **limits).ask(**body)

    assert error(response) == expected
    assert words in response.json()["error"]["message"]
    assert response.json()["error"]["requested"] > response.json()["error"]["limit"]
    assert not slow.billing.holds
    assert not slow.router.seen.opens


async def test_without_a_bound_a_small_limit_still_serves(slow: Harness) -> None:
    asker = Asker(slow, "unbounded", output_tpm_limit=20)

    response = await asker.ask()

    assert response.status_code == 200
    assert response.headers["x-ratelimit-remaining-output-tokens"] == "0"


async def test_the_buckets_are_one_for_all_gateways(slow: Harness, valkey_url: str) -> None:
    async with gateway(valkey_url, **SLOW) as other:
        slow.router.default = other.router.default = scripted("x")
        here, there = (Asker(mesh, "shared", rpm_limit=3) for mesh in (slow, other))
        turns = [await one.ask(max_tokens=1) for one in (here, there, here, there)]

    assert [one.status_code for one in turns] == [200, 200, 200, 429]
    assert [one.headers["x-ratelimit-limit-requests"] for one in turns] == ["3"] * 4
    assert [one.headers["x-ratelimit-remaining-requests"] for one in turns] == ["2", "1", "0", "0"]


async def test_a_service_account_has_limits_of_its_own(valkey_url: str) -> None:
    changes = {**SLOW, "service_rate": 0, "service_output_tokens": 1, "service_output_burst": 900}
    async with gateway(valkey_url, **changes) as mesh:
        response = await Asker(mesh, "service", account_role="service").ask(max_tokens=500)

    assert response.status_code == 200
    assert response.headers["x-ratelimit-limit-output-tokens"] == "900"
    assert "x-ratelimit-limit-requests" not in response.headers


async def test_a_service_account_may_claim_a_part_and_pay_the_rest_later(valkey_url: str) -> None:
    changes = {
        **SLOW,
        "service_output_tokens": 1,
        "service_output_burst": 512,
        "service_output_estimate": True,
    }
    async with gateway(valkey_url, **changes) as mesh:
        asker = Asker(mesh, "estimate", account_role="service")
        mesh.router.default = Script(texts=tuple("x" for _ in range(20)))
        first = await asker.ask(max_tokens=512)
        second = await asker.ask(max_tokens=400)

    used = first.json()["usage"]["completion_tokens"]
    assert first.headers["x-ratelimit-remaining-output-tokens"] == "0"
    assert second.status_code == 200
    assert second.headers["x-ratelimit-remaining-output-tokens"] == str(512 - used - 400)


async def test_without_the_shared_buckets_inference_goes_on_under_local_ones(
    valkey_url: str,
) -> None:
    changes = {**SLOW, "redis_url": Secret("redis://127.0.0.1:1")}
    async with gateway(valkey_url, **changes) as mesh:
        asker = Asker(mesh, "local", output_tpm_limit=10)
        first = await asker.ask(max_tokens=10)
        mesh.router.default = Script(pause=asyncio.Event())

        assert first.status_code == 200
        assert first.headers["x-ratelimit-limit-output-tokens"] == "10"
        running = asyncio.create_task(asker.ask(max_tokens=8))
        await mesh.router.until(lambda: len(mesh.router.seen.requests) == 2)
        assert error(await asker.ask(max_tokens=8))[:2] == (429, LIMITED)
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        assert error(await asker.ask(max_tokens=11))[:2] == (400, INVALID)


def _refused() -> Any:
    from darkbloom.router.v1 import gateway_lane_pb2 as lane_pb

    return lane_pb.Refused(http_status=503, type="model_unavailable", message="nobody")
