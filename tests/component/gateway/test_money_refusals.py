"""Every refusal about money and keys that inference can meet: status, type, code, body, headers."""

from typing import Any

import pytest
from darkbloom.billing.v1.ledger_pb2 import HoldResult
from darkbloom.common.v1.error_reason_pb2 import ErrorReason
from darkbloom_gateway.model import Price
from darkbloom_gateway.shortfall import affordable_tokens

from tests.component.gateway.harness import Harness
from tests.component.gateway.test_refusals import CHAT, HI, error

PRICED = Price("p1", "b", 50_000, 200_000, 25_000, 100)


def refused(reason: str, **amounts: int) -> HoldResult:
    return HoldResult(refusal=ErrorReason.Value(f"ERROR_REASON_{reason}"), **amounts)


async def test_a_shortfall_says_what_was_needed_and_what_there_is(mesh: Harness) -> None:
    mesh.billing.refusal = refused("INSUFFICIENT_FUNDS", required_micros=9000, available_micros=120)

    response = await mesh.chat(max_tokens=400)

    assert error(response) == (402, "insufficient_funds", "insufficient_quota", None, False)
    body = response.json()["error"]
    assert {name: value for name, value in body.items() if isinstance(value, int)} == {
        "required_micro_usd": 9000,
        "available_micro_usd": 120,
        "balance_micro_usd": 1_234_567,
        "max_affordable_tokens": 400,
    }
    assert "x-hold-micro-usd" not in response.headers
    assert response.headers["x-ratelimit-limit-requests"] == "10000"


async def test_a_keys_cap_says_the_same_with_the_caps_numbers(mesh: Harness) -> None:
    mesh.billing.refusal = refused("KEY_CAP_REACHED", required_micros=9000, available_micros=0)

    response = await mesh.chat(max_tokens=400)

    assert error(response) == (402, "insufficient_quota", "insufficient_quota", None, False)
    body = response.json()["error"]
    assert (body["required_micro_usd"], body["available_micro_usd"]) == (9000, 0)
    assert body["max_affordable_tokens"] == 0


async def test_a_shortfall_is_402_also_where_nothing_explains_it(mesh: Harness) -> None:
    mesh.billing.refusal = refused("INSUFFICIENT_FUNDS", required_micros=9000, available_micros=1)
    mesh.billing.reads_down = True

    body = (await mesh.chat()).json()["error"]

    assert (body["code"], body["available_micro_usd"]) == ("insufficient_quota", 1)
    assert "balance_micro_usd" not in body


@pytest.mark.parametrize(
    ("debt", "expected"),
    [
        (700, (402, "insufficient_funds", "account_frozen", None, False)),
        (0, (403, "forbidden", "account_frozen", None, False)),
    ],
)
async def test_a_frozen_account_is_402_with_a_debt_and_else_403(
    mesh: Harness, debt: int, expected: tuple[Any, ...]
) -> None:
    mesh.billing.refusal = refused("ACCOUNT_FROZEN")
    mesh.billing.debt_micros = debt

    response = await mesh.chat()

    assert error(response) == expected
    assert response.json()["error"].get("debt_micro_usd") == (debt or None)


@pytest.mark.parametrize("reason", ["KEY_REVOKED", "NOT_FOUND"])
async def test_a_key_that_the_ledger_no_longer_knows_is_401(mesh: Harness, reason: str) -> None:
    mesh.billing.refusal = refused(reason)

    kind = "authentication_error"
    assert error(await mesh.chat()) == (401, kind, kind, None, False)


@pytest.mark.parametrize("reason", ["HOLD_ENDED", "IDEMPOTENCY_CONFLICT", "UNSPECIFIED"])
async def test_any_other_refusal_is_ours_and_never_402(mesh: Harness, reason: str) -> None:
    mesh.billing.refusal = refused(reason)

    kind = "service_unavailable"
    assert error(await mesh.chat()) == (503, kind, kind, None, True)


async def test_what_is_held_is_said(mesh: Harness) -> None:
    whole, streamed = await mesh.chat(), await mesh.chat(stream=True)

    assert whole.headers["x-hold-micro-usd"] == streamed.headers["x-hold-micro-usd"] == "1000"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"expire_time": {"seconds": 1}}, (401, "authentication_error", None)),
        ({"revoked": True}, (401, "authentication_error", None)),
        ({"disabled": True}, (401, "authentication_error", None)),
        ({"allowed_models": ["other"]}, (403, "model_not_allowed", "model")),
    ],
)
async def test_a_key_that_may_not_is_refused_before_any_money_is_held(
    mesh: Harness, changes: dict[str, Any], expected: tuple[int, str, str | None]
) -> None:
    mesh.billing.add_key("sk-db-limited", **changes)
    headers = {"authorization": "Bearer sk-db-limited"}

    response = await mesh.http.post(CHAT, json={"model": "tiny", "messages": HI}, headers=headers)

    status, kind, param = expected
    assert error(response) == (status, kind, kind, param, False)
    assert not mesh.billing.holds


@pytest.mark.parametrize(
    ("available", "prompt", "bound", "tokens"),
    [
        (0, 10, 100, 0),
        (99, 10, 100, 0),
        (100, 10, 1000, 504),
        (100, 10, 100, 100),
        (100, 2_000_000, 100, 0),
        (50_100, 1_000_000, 10_000, 504),
    ],
)
def test_affordable_tokens_are_what_a_hold_would_take(
    available: int, prompt: int, bound: int, tokens: int
) -> None:
    found = affordable_tokens(available, prompt, bound, PRICED)

    def cost(output: int) -> int:
        parts = (prompt * PRICED.input_micros, output * PRICED.output_micros)
        return max(PRICED.minimum_charge_micros, sum(part // 1_000_000 for part in parts))

    assert found == tokens
    assert not found or cost(found) <= available
    assert found == bound or cost(found + 1) > available
