import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from darkbloom.billing.v1.ledger_pb2 import HoldResult
from darkbloom.common.v1.error_reason_pb2 import ErrorReason
from darkbloom.common.v1.price_pb2 import PriceRow
from darkbloom.router.v1 import gateway_lane_pb2 as lane_pb
from google.protobuf.duration_pb2 import Duration

from tests.component.gateway.harness import BEARER, Harness, gateway
from tests.component.gateway.neighbours import API_KEY, PRICE
from tests.fakes.router import Script, scripted

CHAT = "/v1/chat/completions"
HI = [{"role": "user", "content": "hi"}]


def error(response: Any) -> tuple[int, str, str, str | None, bool]:
    body = response.json()["error"]
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-request-id"]
    assert "x-provider-id" not in response.headers
    retry = "retry-after" in response.headers
    return response.status_code, body["type"], body["code"], body.get("param"), retry


INVALID = "invalid_request_error"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"{", None),
        (b"", None),
        (b"[]", None),
        (b'"text"', None),
        (b'{"model":"tiny","model":"tiny","messages":[]}', None),
        (b'{"messages":[{"role":"user","content":"hi"}]}', "model"),
        (b'{"model":7,"messages":[{"role":"user","content":"hi"}]}', "model"),
        (b'{"model":"tiny"}', "messages"),
        (b'{"model":"tiny","messages":[]}', "messages"),
        (b'{"model":"tiny","messages":[{"role":"user","content":"hi"}],"n":99}', "n"),
        (b'{"model":"tiny","messages":[{"role":"user","content":"\xff"}]}', None),
    ],
)
async def test_a_malformed_body_is_400(mesh: Harness, body: bytes, param: str | None) -> None:
    response = await mesh.http.post(CHAT, content=body, headers=BEARER)

    assert error(response) == (400, INVALID, INVALID, param, False)
    assert not mesh.billing.holds
    assert not mesh.router.seen.opens


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
@pytest.mark.parametrize("value", [-1, 1.5, "9", True])
async def test_an_absurd_token_limit_names_its_field(
    mesh: Harness, field: str, value: object
) -> None:
    response = await mesh.chat(**{field: value})

    assert error(response) == (400, INVALID, INVALID, field, False)


async def test_an_unknown_model_is_404_before_any_money_is_held(mesh: Harness) -> None:
    response = await mesh.chat(model="nothing/here")

    assert error(response) == (404, "model_not_found", "model_not_found", "model", False)
    assert not mesh.billing.holds


async def test_an_alias_without_a_build_is_503_without_retry(mesh: Harness) -> None:
    status, kind, *_, retry = error(await mesh.chat(model="gone"))

    assert (status, kind, retry) == (503, "model_unavailable", False)


async def test_too_large_a_body_is_413(valkey_url: str) -> None:
    async with gateway(valkey_url, max_body_bytes=1000) as mesh:
        said = await mesh.chat(messages=[{"role": "user", "content": "x" * 2000}])

        async def parts() -> AsyncIterator[bytes]:
            for _ in range(20):
                yield b" " * 100

        unsaid = await mesh.http.post(CHAT, content=parts(), headers=BEARER)

    assert error(said) == error(unsaid) == (413, INVALID, INVALID, None, False)


async def test_a_body_that_stops_coming_is_408(valkey_url: str) -> None:
    async with gateway(valkey_url, body_idle_s=0.1) as mesh:
        reader, writer = await asyncio.open_connection(*mesh.url.removeprefix("http://").split(":"))
        writer.write(
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: "
            + BEARER["authorization"].encode()
            + b"\r\ncontent-length: 100\r\n\r\n{"
        )
        async with asyncio.timeout(30):
            response = await reader.read()
        writer.close()

    assert response.startswith(b"HTTP/1.1 408")
    assert b'"type":"invalid_request_error"' in response


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Basic abc"},
        {"authorization": "Bearer"},
        {"authorization": "Bearer sk-db-wrong"},
        {"authorization": "Bearer eyJhbGciOi"},
        {"authorization": "Bearer eigeninference-pt-" + "a" * 64},
        {"authorization": "Bearer " + "a" * 4000},
        {"x-api-key": API_KEY},
    ],
)
async def test_without_a_usable_key_everything_is_401(
    mesh: Harness, headers: dict[str, str]
) -> None:
    kind = "authentication_error"
    for response in (
        await mesh.http.post(CHAT, json={"model": "tiny", "messages": HI}, headers=headers),
        await mesh.http.get("/v1/models", headers=headers),
        await mesh.http.get("/v1/payments/balance", headers=headers),
    ):
        assert error(response) == (401, kind, kind, None, False)


async def test_the_scheme_is_case_insensitive(mesh: Harness) -> None:
    response = await mesh.http.get("/v1/models", headers={"authorization": f"bEARER {API_KEY}"})

    assert response.status_code == 200


async def test_a_revoked_key_ends_at_once(mesh: Harness) -> None:
    key_hash = mesh.billing.add_key("sk-db-second")
    async with mesh.sdk("sk-db-second") as client:
        await client.models.list()
        before = mesh.billing.lookups
        await client.models.list()
        assert mesh.billing.lookups == before

        mesh.billing.revoke(key_hash)

        async def status() -> int:
            response = await mesh.http.get(
                "/v1/models", headers={"authorization": "Bearer sk-db-second"}
            )
            return response.status_code

        async with asyncio.timeout(30):
            while await status() != 401:
                pass


async def test_an_expired_key_is_401(mesh: Harness) -> None:
    mesh.billing.add_key("sk-db-old", expire_time={"seconds": 1})

    response = await mesh.http.get("/v1/models", headers={"authorization": "Bearer sk-db-old"})

    assert response.status_code == 401


async def test_a_model_outside_the_keys_list_is_403(mesh: Harness) -> None:
    mesh.billing.add_key("sk-db-narrow", allowed_models=["other"])
    headers = {"authorization": "Bearer sk-db-narrow"}

    response = await mesh.http.post(CHAT, json={"model": "tiny", "messages": HI}, headers=headers)

    assert error(response) == (403, "model_not_allowed", "model_not_allowed", "model", False)


async def test_a_shortfall_is_402_with_both_amounts(mesh: Harness) -> None:
    mesh.billing.refusal = HoldResult(
        refusal=ErrorReason.ERROR_REASON_INSUFFICIENT_FUNDS,
        required_micros=900,
        available_micros=3,
    )

    response = await mesh.chat()

    assert error(response) == (402, "insufficient_funds", "insufficient_quota", None, False)
    body = response.json()["error"]
    assert (body["required_micro_usd"], body["available_micro_usd"]) == (900, 3)
    await mesh.router.until(lambda: mesh.router.seen.abandons)
    assert mesh.router.seen.abandons == [lane_pb.ABANDON_REASON_HOLD_REFUSED]
    assert not mesh.router.seen.requests
    assert not mesh.billing.releases


async def test_a_keys_cap_is_402_insufficient_quota(mesh: Harness) -> None:
    mesh.billing.refusal = HoldResult(refusal=ErrorReason.ERROR_REASON_KEY_CAP_REACHED)

    kinds = error(await mesh.chat())

    assert kinds == (402, "insufficient_quota", "insufficient_quota", None, False)


async def test_a_store_that_is_down_is_503_and_never_402(mesh: Harness) -> None:
    await mesh.chat()
    mesh.billing.store_down = True

    kinds = error(await mesh.chat())

    assert kinds == (503, "service_unavailable", "service_unavailable", None, True)
    await mesh.billing.until(lambda: mesh.billing.releases)


async def test_the_routers_refusal_is_rendered_and_the_hold_given_back(mesh: Harness) -> None:
    refused = lane_pb.Refused(
        http_status=429,
        type="rate_limit_exceeded",
        code="rate_limit_exceeded",
        reason=lane_pb.REFUSAL_REASON_QUEUE_FULL,
        message="all machines are busy",
        retry_after=Duration(seconds=7),
    )
    mesh.router.scripts = [Script(refused=refused)]

    response = await mesh.chat()

    assert error(response) == (429, "rate_limit_exceeded", "rate_limit_exceeded", None, True)
    assert response.headers["retry-after"] == "7"
    await mesh.billing.until(lambda: mesh.billing.releases)
    assert mesh.billing.releases == mesh.billing.holds
    assert not mesh.router.seen.abandons


async def test_too_many_requests_are_429_with_the_triple(valkey_url: str) -> None:
    async with gateway(valkey_url, request_rate=0.01, request_burst=2) as mesh:
        mesh.billing.add_key(API_KEY)
        next(iter(mesh.billing.keys.values())).account_id = "acct_slow"
        responses = [await mesh.chat() for _ in range(3)]

        assert [response.status_code for response in responses] == [200, 200, 429]
        last = responses[-1]
        assert error(last) == (429, "rate_limit_exceeded", "rate_limit_exceeded", None, True)
        assert last.headers["x-ratelimit-limit-requests"] == "2"
        assert last.headers["x-ratelimit-remaining-requests"] == "0"
        assert last.headers["retry-after"] == "60"
        assert int(last.headers["x-ratelimit-reset"]) > 1_700_000_000
        await mesh.billing.until(lambda: mesh.billing.releases)
        assert mesh.billing.releases == mesh.billing.holds[2:]
        await mesh.router.until(lambda: mesh.router.seen.abandons)


async def test_a_keys_own_pace_is_checked_first(mesh: Harness) -> None:
    mesh.billing.add_key("sk-db-slow", rpm_limit=1)
    headers = {"authorization": "Bearer sk-db-slow"}
    body = {"model": "tiny", "messages": HI}
    mesh.billing.keys[next(reversed(mesh.billing.keys))].account_id = "acct_rpm"

    first = await mesh.http.post(CHAT, json=body, headers=headers)
    second = await mesh.http.post(CHAT, json=body, headers=headers)

    assert (first.status_code, second.status_code) == (200, 429)
    assert second.headers["x-ratelimit-limit-requests"] == "1"


@pytest.mark.parametrize(
    "script",
    [
        Script(expires_in=timedelta(seconds=-1)),
        Script(forged_verdict=True),
        Script(trust_level="none", admission="public"),
        Script(trust_level="hardware", admission="owner"),
    ],
)
async def test_a_verdict_that_is_not_good_enough_is_never_sealed_to(
    mesh: Harness, script: Script
) -> None:
    mesh.router.default = script

    response = await mesh.chat()

    kinds = error(response)
    assert kinds == (503, "service_unavailable", "service_unavailable", None, True)
    assert not mesh.router.seen.requests
    await mesh.router.until(lambda: mesh.router.seen.abandons)
    assert set(mesh.router.seen.abandons) == {lane_pb.ABANDON_REASON_VERDICT_REFUSED}
    await mesh.billing.until(lambda: len(mesh.billing.releases) == len(mesh.billing.holds))
    assert sorted(mesh.billing.releases) == sorted(mesh.billing.holds)


async def test_after_a_refused_verdict_another_provider_may_answer(mesh: Harness) -> None:
    mesh.router.scripts = [Script(expires_in=timedelta(seconds=-1)), scripted("fine")]

    response = await mesh.chat()

    assert response.json()["choices"][0]["message"]["content"] == "fine"


async def test_a_revoked_identity_is_not_sealed_to(mesh: Harness) -> None:
    from darkbloom_edge.signatures import to_base64

    assert (await mesh.chat()).status_code == 200
    mesh.attestation.revoke(identity_key=to_base64(mesh.router.identity.public))
    await mesh.until(lambda: mesh.worker.stage.verdicts._revoked)

    assert (await mesh.chat()).status_code == 503


async def test_development_admission_counts_in_development_only(
    valkey_url: str, tmp_path: Any
) -> None:
    async with gateway(valkey_url) as mesh:
        desk = mesh.worker.stage.verdicts
        desk._development = False

        assert (await mesh.chat()).status_code == 503


async def test_a_dearer_offer_raises_the_hold_before_it_is_sealed(mesh: Harness) -> None:
    dear = PriceRow()
    dear.CopyFrom(PRICE)
    dear.price_id, dear.output_micros = "p2", 900_000
    mesh.router.scripts = [Script(price=dear), Script(price=PRICE)]

    assert (await mesh.chat()).status_code == 200
    assert mesh.billing.extensions == mesh.billing.holds
    assert (await mesh.chat()).status_code == 200
    assert len(mesh.billing.extensions) == 1


def priced(name: str, output_micros: int) -> PriceRow:
    row = PriceRow()
    row.CopyFrom(PRICE)
    row.price_id, row.output_micros = name, output_micros
    return row


async def test_what_a_dear_provider_that_failed_would_have_cost_is_given_back(
    mesh: Harness,
) -> None:
    dear, middle = priced("dear", 900_000), priced("middle", 500_000)
    mesh.router.scripts = [
        Script(price=dear, fails=True),
        Script(price=middle, fails=True),
        Script(price=priced("cheap", 1), fails=True),
        Script(price=None, fails=True),
        Script(price=dear),
    ]

    assert (await mesh.chat()).status_code == 200
    assert mesh.billing.raises == [
        (1, "dear", False),
        (2, "middle", True),
        (3, PRICE.price_id, True),
        (4, "dear", True),
    ]


async def test_a_hedge_gives_nothing_back_while_the_dearer_one_still_runs(mesh: Harness) -> None:
    mesh.router.scripts = [
        Script(price=priced("dear", 900_000), silent=True, hedge=Script(price=PRICE))
    ]

    assert (await mesh.chat()).status_code == 200
    assert mesh.billing.raises == [(1, "dear", False)]


async def test_giving_back_keeps_no_request_waiting_for_a_ledger_that_is_away(
    mesh: Harness,
) -> None:
    mesh.billing.unheard = {2}
    mesh.router.scripts = [
        Script(price=priced("dear", 900_000), fails=True),
        Script(price=PRICE, fails=True),
        Script(price=priced("dearest", 990_000)),
    ]

    assert (await mesh.chat()).status_code == 200
    assert mesh.billing.raises == [
        (1, "dear", False),
        (2, PRICE.price_id, True),
        (3, "dearest", True),
    ]


async def test_a_refused_top_up_is_402_and_nothing_is_sealed(mesh: Harness) -> None:
    dear = PriceRow()
    dear.CopyFrom(PRICE)
    dear.price_id, dear.output_micros = "p2", 900_000
    mesh.router.scripts = [Script(price=dear), Script(price=dear)]
    mesh.billing.extension_refused = True

    assert error(await mesh.chat()) == (402, "provider_error", "provider_error", None, False)
    assert not mesh.router.seen.requests
    await mesh.router.until(lambda: len(mesh.router.seen.declines) == 2)
    assert mesh.router.seen.declines == [lane_pb.DECLINE_REASON_PRICE] * 2
    await mesh.billing.until(lambda: mesh.billing.releases)


async def test_a_provider_that_is_too_dear_makes_room_for_the_next(mesh: Harness) -> None:
    dear = PriceRow()
    dear.CopyFrom(PRICE)
    dear.price_id, dear.output_micros = "p2", 900_000
    mesh.router.scripts = [Script(price=dear), Script(price=PRICE)]
    mesh.billing.extension_refused = True

    assert (await mesh.chat()).status_code == 200
    await mesh.router.until(lambda: mesh.router.seen.declines)
    assert mesh.router.seen.declines == [lane_pb.DECLINE_REASON_PRICE]
    assert len(mesh.router.seen.requests) == 1


async def test_an_unknown_endpoint_is_404_and_a_wrong_method_405_in_json(mesh: Harness) -> None:
    unknown = await mesh.http.get("/v1/embeddings")
    wrong = await mesh.http.get(CHAT)
    posted = await mesh.http.post("/v1/models")

    assert error(unknown) == (404, INVALID, INVALID, None, False)
    assert error(wrong) == error(posted) == (405, INVALID, INVALID, None, False)
    assert wrong.headers["allow"] == "POST"
    assert "GET" in posted.headers["allow"]


async def test_the_sdk_sees_typed_errors(mesh: Harness) -> None:
    import openai

    async with mesh.sdk("sk-db-wrong") as client:
        with pytest.raises(openai.AuthenticationError):
            await client.models.list()
    async with mesh.sdk() as client:
        with pytest.raises(openai.NotFoundError) as caught:
            await client.chat.completions.create(model="nope", messages=HI)  # type: ignore[arg-type]
    assert caught.value.code == "model_not_found"
    assert caught.value.param == "model"


async def test_errors_never_repeat_what_was_asked(mesh: Harness) -> None:
    canary = "canary-7f3a"
    bad = [
        json.dumps({"model": "tiny", "messages": [{"role": canary, "content": canary}]}),
        json.dumps({"model": "tiny", "messages": [canary]}),
        "{" + canary,
    ]
    for body in bad:
        response = await mesh.http.post(CHAT, content=body.encode(), headers=BEARER)
        assert response.status_code == 400
        assert canary not in response.text
