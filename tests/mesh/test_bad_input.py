"""What is refused, and with exactly which status, type and code."""

import json
from typing import Any

import pytest
from darkbloom.billing.v1.account_service_pb2 import RevokeKeyRequest
from darkbloom_local.mesh import Mesh
from darkbloom_local.models import SCRIPTED

from tests.mesh.harness import CALL_S, Books, Consumer, script, until

pytestmark = [pytest.mark.mesh, pytest.mark.asyncio(loop_scope="session")]

INVALID = "invalid_request_error"
UNAUTHENTICATED = "authentication_error"


def chat(**fields: Any) -> dict[str, Any]:
    return {"model": SCRIPTED, "messages": script(tokens=3), **fields}


def error_of(answer: Any) -> tuple[int, str, str]:
    assert answer.headers["content-type"].startswith("application/json"), answer.text
    error = answer.json()["error"]
    return answer.status_code, error["type"], error["code"]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(b"", (400, INVALID, INVALID), id="empty"),
        pytest.param(b"{", (400, INVALID, INVALID), id="malformed"),
        pytest.param(b"[1]", (400, INVALID, INVALID), id="not_an_object"),
        pytest.param(b"\xff\xfe", (400, INVALID, INVALID), id="not_utf8"),
        pytest.param(b"[" * 100_000, (400, INVALID, INVALID), id="too_deep"),
        pytest.param(b'{"model": NaN}', (400, INVALID, INVALID), id="nan"),
        pytest.param({}, (400, INVALID, INVALID), id="no_model"),
        pytest.param({"model": SCRIPTED}, (400, INVALID, INVALID), id="no_messages"),
        pytest.param(chat(messages=[]), (400, INVALID, INVALID), id="no_turns"),
        pytest.param(chat(messages="hi"), (400, INVALID, INVALID), id="messages_text"),
        pytest.param(
            chat(model="gpt-5"), (404, "model_not_found", "model_not_found"), id="unknown_model"
        ),
        pytest.param(chat(model=7), (400, INVALID, INVALID), id="model_number"),
        pytest.param(chat(model="m" * 300), (400, INVALID, INVALID), id="model_long"),
        pytest.param(chat(max_tokens=-1), (400, INVALID, INVALID), id="negative_limit"),
        pytest.param(chat(max_tokens=1.5), (400, INVALID, INVALID), id="fraction_limit"),
        pytest.param(chat(max_tokens="9"), (400, INVALID, INVALID), id="text_limit"),
        pytest.param(chat(max_tokens=True), (400, INVALID, INVALID), id="boolean_limit"),
        pytest.param(chat(max_tokens=10**30), (400, INVALID, INVALID), id="absurd_limit"),
        pytest.param(
            chat(max_completion_tokens=-5), (400, INVALID, INVALID), id="negative_new_limit"
        ),
        pytest.param(chat(n=99), (400, INVALID, INVALID), id="too_many_choices"),
        pytest.param(chat(stream="yes"), (400, INVALID, INVALID), id="stream_text"),
        pytest.param(chat(temperature=3), (400, INVALID, INVALID), id="too_hot"),
    ],
)
async def test_a_bad_body_is_refused(
    consumer: Consumer, body: Any, expected: tuple[int, str, str]
) -> None:
    assert error_of(await consumer.post(body)) == expected


async def test_a_limit_above_what_the_model_can_do_is_cut_to_it(consumer: Consumer) -> None:
    answer = await consumer.post(chat(max_tokens=2**31))
    assert answer.status_code == 200, answer.text
    assert answer.json()["usage"]["completion_tokens"] == 3


async def test_a_body_over_16_mib_is_refused_before_it_is_read(consumer: Consumer) -> None:
    filler = b" " * (16 * 1024 * 1024)
    assert error_of(await consumer.post(filler + b"{}")) == (413, INVALID, INVALID)


@pytest.mark.parametrize("api_key", ["", "sk-db-wrong", "x" * 600, "eyJhbGciOi.x.y"])
async def test_without_a_good_key_nothing_is_answered(mesh: Mesh, api_key: str) -> None:
    stranger = Consumer(mesh, api_key)
    assert error_of(await stranger.post(chat())) == (401, UNAUTHENTICATED, UNAUTHENTICATED)
    for path in ("/v1/models", "/v1/payments/balance", "/v1/payments/usage"):
        assert error_of(await stranger.get(path)) == (401, UNAUTHENTICATED, UNAUTHENTICATED)


async def test_a_revoked_key_is_refused_at_once(mesh: Mesh, books: Books) -> None:
    secret, key_id = await books.new_account(grant_micros=1_000_000)
    caller = Consumer(mesh, secret)
    assert (await caller.post(chat())).status_code == 200

    await books.accounts.RevokeKey(RevokeKeyRequest(key_id=key_id), timeout=CALL_S)

    # The gateway hears of it by a push, not when its cache of a minute runs out.
    async def refused() -> bool:
        return (await caller.get("/v1/payments/balance")).status_code == 401

    await until(refused, "the revoked key is refused", patience_s=2)
    assert error_of(await caller.post(chat())) == (401, UNAUTHENTICATED, UNAUTHENTICATED)


async def test_an_account_without_money_learns_what_it_needs(mesh: Mesh, books: Books) -> None:
    secret, _ = await books.new_account()
    answer = await Consumer(mesh, secret).post(chat(max_tokens=100))
    assert error_of(answer) == (402, "insufficient_funds", "insufficient_quota")
    error = answer.json()["error"]
    assert error["required_micro_usd"] > 0
    assert error["available_micro_usd"] == 0

    secret, _ = await books.new_account(grant_micros=7)
    error = (await Consumer(mesh, secret).post(chat())).json()["error"]
    assert error["available_micro_usd"] == 7
    assert error["required_micro_usd"] > 7
    await books.clean()


async def test_an_unknown_path_and_a_wrong_method_are_json_errors(consumer: Consumer) -> None:
    assert error_of(await consumer.get("/v1/nothing")) == (404, INVALID, INVALID)
    assert error_of(await consumer.post({}, path="/v1/assistants")) == (404, INVALID, INVALID)
    answer = await consumer.get("/v1/chat/completions")
    assert error_of(answer) == (405, INVALID, INVALID)
    assert answer.headers["allow"] == "POST"
    assert error_of(await consumer.post({}, path="/v1/models")) == (405, INVALID, INVALID)


async def test_every_answer_carries_a_request_id_and_echoes_a_good_one(consumer: Consumer) -> None:
    ours = await consumer.post(chat(), headers={"x-request-id": "mine-1.2_3"})
    assert ours.headers["x-request-id"] == "mine-1.2_3"
    forged = await consumer.post(b"{", headers={"x-request-id": "a b\tc"})
    assert forged.headers["x-request-id"] not in ("", "a b\tc")


async def test_no_refusal_holds_any_money(books: Books) -> None:
    await books.clean()


async def test_an_error_is_one_json_object_also_where_a_stream_was_wanted(
    consumer: Consumer,
) -> None:
    answer = await consumer.post(chat(stream=True, model="gpt-5"))
    assert error_of(answer) == (404, "model_not_found", "model_not_found")
    assert set(json.loads(answer.text)) == {"error"}
