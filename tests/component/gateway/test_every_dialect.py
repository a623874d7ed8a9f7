"""What all inference routes have in common: refusals with exact values, and headers at commit."""

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from darkbloom.billing.v1.ledger_pb2 import HoldResult
from darkbloom.common.v1.error_reason_pb2 import ErrorReason
from darkbloom.router.v1 import gateway_lane_pb2 as lane_pb
from darkbloom_edge.verify import verify_receipt
from google.protobuf.duration_pb2 import Duration

from tests.component.gateway.harness import BEARER, Harness
from tests.fakes.router import Script

pytestmark = pytest.mark.asyncio(loop_scope="session")

TURNS = [{"role": "user", "content": "hi"}]
ROUTES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": TURNS},
    "/v1/completions": {"prompt": "hi"},
    "/v1/messages": {"messages": TURNS, "max_tokens": 8},
    "/v1/responses": {"input": "hi"},
}
NARROW = "sk-db-" + "b" * 64


def busy(house: Harness) -> None:
    refused = lane_pb.Refused(
        http_status=429,
        type="rate_limit_exceeded",
        code="queue_full",
        reason=lane_pb.REFUSAL_REASON_QUEUE_FULL,
        message="too many requests wait",
        retry_after=Duration(seconds=7),
    )
    house.router.scripts = [Script(refused=refused)]


def incapable(house: Harness) -> None:
    refused = lane_pb.Refused(
        http_status=503,
        type="model_unavailable",
        code="model_capability_unsupported",
        reason=lane_pb.REFUSAL_REASON_NO_PROVIDER,
        message="no machine supports it",
    )
    house.router.scripts = [Script(refused=refused)]


def nothing(house: Harness) -> None:
    assert house.router.seen.requests == []


CASES: list[tuple[Callable[[Harness], None], dict[str, Any], dict[str, str], tuple[Any, ...]]] = [
    (
        nothing,
        {},
        {"authorization": ""},
        (401, "authentication_error", "authentication_error", None, None),
    ),
    (
        nothing,
        {"model": None},
        {},
        (400, "invalid_request_error", "invalid_request_error", "model", None),
    ),
    (nothing, {"model": "nobody"}, {}, (404, "model_not_found", "model_not_found", "model", None)),
    (
        nothing,
        {"model": "gone"},
        {},
        (503, "model_unavailable", "model_unavailable", "model", None),
    ),
    (
        nothing,
        {},
        {"authorization": f"Bearer {NARROW}"},
        (403, "model_not_allowed", "model_not_allowed", "model", None),
    ),
    (
        nothing,
        {},
        {"x-darkbloom-machine": "m"},
        (400, "invalid_request_error", "invalid_request_error", "X-Darkbloom-Machine", None),
    ),
    (busy, {}, {}, (429, "rate_limit_exceeded", "queue_full", None, "7")),
    (incapable, {}, {}, (503, "model_unavailable", "model_capability_unsupported", None, None)),
]
ANTHROPIC = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    503: "overloaded_error",
}


async def ask(
    house: Harness, path: str, body: dict[str, Any], headers: dict[str, str]
) -> httpx.Response:
    content = {"model": "tiny", **ROUTES[path], **body}
    return await house.http.post(path, json=content, headers={**BEARER, **headers})


@pytest.mark.parametrize("path", sorted(ROUTES))
@pytest.mark.parametrize("number", range(len(CASES)))
async def test_a_refusal_has_the_same_exact_values_on_every_route(
    house: Harness, path: str, number: int
) -> None:
    prepare, body, headers, (status, kind, code, param, retry) = CASES[number]
    house.billing.add_key(NARROW, allowed_models=["other"])
    prepare(house)

    response = await ask(house, path, body, headers)

    error = response.json()["error"]
    shown = ANTHROPIC[status] if path == "/v1/messages" else kind
    assert (response.status_code, error["type"], error["code"]) == (status, shown, code)
    assert (error.get("param"), response.headers.get("retry-after")) == (param, retry)
    assert not [name for name in response.headers if name.startswith("x-provider-")]
    assert response.headers["x-request-id"]
    assert (response.json().get("type") == "error") == (path == "/v1/messages")


@pytest.mark.parametrize("path", sorted(ROUTES))
@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_says_who_gave_it_on_every_route(
    house: Harness, path: str, stream: bool
) -> None:
    response = await ask(house, path, {"stream": stream}, {"x-request-id": "mine-1"})

    headers = response.headers
    assert response.status_code == 200
    kind = "text/event-stream" if stream else "application/json"
    assert headers["content-type"] == kind
    assert headers["x-request-id"] == "mine-1"
    assert headers["x-provider-id"] == house.router.provider_id
    assert headers["x-provider-trust-level"] == "none"
    assert headers["x-provider-attested"] == "false"
    assert headers["x-provider-encrypted"] == "true"
    assert headers["x-provider-secure-enclave"] == "false"
    assert headers["x-inference-job-id"].startswith("att_")
    assert headers["x-hold-micro-usd"] == "1000"
    assert "x-timing" in headers
    assert "x-ratelimit-remaining-requests" in headers
    assert ("x-darkbloom-receipt-job-id" in headers) == (not stream)
    assert (headers.get("cache-control") == "no-cache") == stream


@pytest.mark.parametrize("path", sorted(ROUTES))
async def test_a_confirmed_shortfall_is_402_with_its_amounts_on_every_route(
    house: Harness, path: str
) -> None:
    house.billing.refusal = HoldResult(
        refusal=ErrorReason.ERROR_REASON_INSUFFICIENT_FUNDS,
        required_micros=900,
        available_micros=3,
    )

    response = await ask(house, path, {}, {})

    error = response.json()["error"]
    shown = "billing_error" if path == "/v1/messages" else "insufficient_funds"
    assert (response.status_code, error["type"], error["code"]) == (
        402,
        shown,
        "insufficient_quota",
    )
    assert (error["required_micro_usd"], error["available_micro_usd"]) == (900, 3)


@pytest.mark.parametrize("path", sorted(ROUTES))
@pytest.mark.parametrize("stream", [False, True])
async def test_a_receipt_proves_body_and_answer_of_every_dialect(
    house: Harness, path: str, stream: bool
) -> None:
    body = json.dumps({"model": "tiny", **ROUTES[path], "stream": stream}).encode()
    response = await house.http.post(path, content=body, headers=BEARER)
    found = response.text.partition('"receipt":')[2]
    receipt, _ = json.JSONDecoder().raw_decode(found)

    press = house.worker.press
    report = verify_receipt(
        json.dumps(receipt).encode(),
        verdict_keys={house.attestation.signer.key_id: house.attestation.signer.public},
        gateway_keys={press.key_id: press.public_key},
        request_body=body,
        answer=response.content,
    )

    assert report.ok, report
