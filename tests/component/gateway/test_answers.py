import json

import pytest
from darkbloom.router.v1.gateway_lane_pb2 import Refused
from darkbloom_edge.delta import Delta, ToolCallPart
from darkbloom_edge.signatures import to_base64
from darkbloom_edge.verify import verify_receipt

from tests.component.gateway.harness import BEARER, Harness
from tests.fakes.router import scripted


async def test_the_stock_sdk_gets_a_whole_answer_with_a_receipt(mesh: Harness) -> None:
    async with mesh.sdk() as client:
        answer = await client.chat.completions.create(
            model="tiny", messages=[{"role": "user", "content": "hi"}]
        )

    assert answer.choices[0].message.content == "Hello world"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.model == "tiny"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (7, 2)
    await mesh.billing.until(lambda: mesh.billing.receipts)
    assert mesh.billing.receipts == mesh.billing.holds
    assert not mesh.billing.releases


async def test_the_stock_sdk_gets_a_streamed_answer(mesh: Harness) -> None:
    texts, usage = [], None
    async with mesh.sdk() as client:
        stream = await client.chat.completions.create(
            model="tiny",
            messages=[{"role": "user", "content": "hi"}],
            stream=True,
            stream_options={"include_usage": True},
        )
        async for chunk in stream:
            assert chunk.model == "tiny"
            texts += [choice.delta.content or "" for choice in chunk.choices]
            usage = chunk.usage or usage

    assert "".join(texts) == "Hello world"
    assert usage is not None
    assert usage.total_tokens == 9


async def test_a_stream_ends_with_receipt_and_one_done(mesh: Harness) -> None:
    mesh.router.scripts = [scripted(*("word " for _ in range(100)))]

    response = await mesh.chat(stream=True)

    events = [event for event in response.text.split("\n\n") if event]
    assert events[-1] == "data: [DONE]"
    assert response.text.count("[DONE]") == 1
    receipt = json.loads(events[-2].removeprefix("data: "))["receipt"]
    keys = (await mesh.http.get("/v1/receipts/keys")).json()
    assert receipt["gateway_key_id"] in {key["key_id"] for key in keys["receipt_keys"]}
    await mesh.router.until(lambda: mesh.router.seen.closes)
    assert mesh.router.seen.closes[0].opened.completion_tokens == 100
    assert mesh.router.seen.credits == sorted(mesh.router.seen.credits)
    assert mesh.router.seen.credits[0] in (48, 64)


async def test_the_receipt_proves_body_and_answer_offline(mesh: Harness) -> None:
    body = b'{"model": "tiny",  "messages":[{"role":"user","content":"\xc3\xa9"}]}'

    response = await mesh.http.post("/v1/chat/completions", content=body, headers=BEARER)

    receipt = json.dumps(response.json()["receipt"]).encode()
    press = mesh.worker.press
    report = verify_receipt(
        receipt,
        verdict_keys={mesh.attestation.signer.key_id: mesh.attestation.signer.public},
        gateway_keys={press.key_id: press.public_key},
        request_body=body,
        answer=response.content,
    )
    assert report.ok, report


async def test_headers_name_the_provider_and_nothing_of_it_can_inject_one(mesh: Harness) -> None:
    response = await mesh.chat()

    headers = response.headers
    assert headers["x-provider-id"] == mesh.router.provider_id
    assert headers["x-provider-attested"] == "false"
    assert headers["x-provider-trust-level"] == "none"
    assert headers["x-provider-encrypted"] == "true"
    assert headers["x-inference-job-id"].startswith("att_")
    assert headers["x-darkbloom-receipt-job-id"] == headers["x-inference-job-id"]
    assert headers["x-provider-chip"] == "Test chip??X-Evil: 1"
    assert "x-evil" not in headers
    assert json.loads(headers["x-timing"])["provider_us"] == 2000
    assert headers["x-ratelimit-limit-requests"] == "10000"


async def test_a_key_that_only_says_where_it_lives_is_not_called_attested(mesh: Harness) -> None:
    mesh.router.default = scripted("x", trust_level="self_signed")

    response = await mesh.chat(metadata_details=True)

    assert response.headers["x-provider-trust-level"] == "self_signed"
    assert response.headers["x-provider-attested"] == "false"
    assert response.headers["x-provider-secure-enclave"] == "false"
    assert "x-attestation-se-public-key" not in response.headers
    metadata = response.json()["metadata"]
    assert (metadata["provider_attested"], metadata["provider_secure_enclave"]) == (False, False)


@pytest.mark.parametrize(
    ("evidence", "level", "shown"),
    [
        (["reg_1", "app_1", "mda_1"], "hardware", "true"),
        (["reg_1", "app_1", "sec_1"], "hardware", None),
        (["reg_1", "mda_1"], "self_signed", None),
    ],
)
async def test_what_backs_the_level_is_read_from_the_signed_verdict(
    mesh: Harness, evidence: list[str], level: str, shown: str | None
) -> None:
    mesh.router.default = scripted("x", trust_level=level, evidence=evidence)

    headers = (await mesh.chat()).headers

    attested = level == "hardware"
    assert headers.get("x-provider-mda-verified") == shown
    assert headers["x-provider-attested"] == str(attested).lower()
    assert ("x-attestation-se-public-key" in headers) == attested


async def test_an_error_before_anybody_answers_names_no_provider(mesh: Harness) -> None:
    mesh.router.scripts = [scripted("x", fails=True)]
    mesh.router.default = scripted("x", refused=Refused(http_status=503, type="model_unavailable"))

    response = await mesh.chat()

    assert response.status_code >= 400
    assert not [name for name in response.headers if name.startswith("x-provider")]


async def test_a_scripted_engine_says_so(mesh: Harness) -> None:
    mesh.router.scripts = [scripted("x", scripted=True)]

    assert (await mesh.chat()).headers["x-provider-scripted"] == "true"


async def test_metadata_is_given_on_request_only(mesh: Harness) -> None:
    plain, asked = await mesh.chat(), await mesh.chat(metadata_details=True)

    assert "metadata" not in plain.json()
    assert asked.json()["metadata"]["provider_id"] == mesh.router.provider_id


async def test_tool_calls_and_reasoning_are_passed_on(mesh: Harness) -> None:
    part = ToolCallPart(0, "call_1", "look", '{"a":1}')
    deltas = [
        Delta(reasoning="hm", prompt_tokens=7, completion_tokens=1),
        Delta(tool_calls=(part,), prompt_tokens=7, completion_tokens=3),
        Delta(prompt_tokens=7, completion_tokens=3, reasoning_tokens=1, finish_reason="tool_calls"),
    ]
    mesh.router.scripts = [scripted(deltas=deltas)]
    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}

    choice = (await mesh.chat(tools=[tool])).json()["choices"][0]

    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["reasoning"] == "hm"
    assert choice["message"]["tool_calls"][0]["function"]["arguments"] == '{"a":1}'
    assert mesh.router.seen.opens[0].traits.tools


async def test_an_answer_without_content_is_still_an_answer(mesh: Harness) -> None:
    mesh.router.default = scripted(
        deltas=[Delta(prompt_tokens=7, completion_tokens=1, finish_reason="stop")]
    )

    whole, stream = await mesh.chat(), await mesh.chat(stream=True)

    assert whole.json()["choices"][0]["message"]["content"] == ""
    assert stream.text.endswith("data: [DONE]\n\n")


async def test_what_leaves_for_the_provider_names_no_account(mesh: Harness) -> None:
    await mesh.chat(user="somebody", metadata={"a": "b"}, max_tokens=5)

    request = mesh.router.seen.requests[0]
    assert request.model == "dev/tiny"
    assert request.max_tokens == 5
    header = mesh.router.seen.headers[0]
    opened = mesh.router.seen.opens[0]
    assert (header.prompt_bound, header.output_bound) == (opened.prompt_bound, opened.output_bound)
    assert header.sealed_to == 1


async def test_requests_of_one_account_share_a_scope_that_does_not_name_it(mesh: Harness) -> None:
    for _ in range(3):
        await mesh.chat()

    scopes = [header.cache_scope for header in mesh.router.seen.headers]
    assert {len(scope) for scope in scopes} == {32}
    # The scope changes with the day, which may end once while this runs.
    assert len(set(scopes)) < 3
    assert len({header.receipt_key for header in mesh.router.seen.headers}) == 3


async def test_the_output_bound_is_clamped_to_the_model(mesh: Harness) -> None:
    await mesh.chat(max_tokens=10_000_000)
    await mesh.chat()

    assert [seen.output_bound for seen in mesh.router.seen.opens] == [512, 512]


async def test_a_large_body_is_sealed_and_answered(mesh: Harness) -> None:
    text = "é" * 400_000

    response = await mesh.chat(messages=[{"role": "user", "content": text}])

    assert response.status_code == 200
    assert mesh.router.seen.requests[0].messages[0]["content"] == text


async def test_verdict_and_identity_of_providers_are_public(mesh: Harness) -> None:
    listed = (await mesh.http.get("/v1/providers/attestation")).json()["providers"]

    assert listed[0]["provider_id"] == mesh.router.provider_id
    assert listed[0]["identity_key"] == to_base64(mesh.router.identity.public)
    assert listed[0]["verdict"]["key_id"] == mesh.attestation.signer.key_id
