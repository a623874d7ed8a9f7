"""What a consumer with the stock SDK gets, and what everybody can prove of it afterwards."""

import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import anthropic
import openai
import pytest
import pytest_asyncio
from darkbloom_local.mesh import Mesh
from darkbloom_local.models import SCRIPTED

from tests.mesh.harness import Books, Consumer, request_id_of, script

pytestmark = [pytest.mark.mesh, pytest.mark.asyncio(loop_scope="session")]

INPUT, OUTPUT = 100_000, 400_000
"""Price of the scripted build in micro-USD per million tokens."""


@pytest_asyncio.fixture(loop_scope="session")
async def sdk(mesh: Mesh) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(
        base_url=f"{mesh.url}/v1", api_key=mesh.api_key, max_retries=0
    ) as client:
        yield client


def price(prompt: int, completion: int) -> int:
    """What the price list says, each term rounded down, at least the minimum of 100 micro-USD."""
    return max(100, prompt * INPUT // 1_000_000 + completion * OUTPUT // 1_000_000)


async def test_an_answer_through_the_sdk_is_whole_counted_and_paid(
    sdk: openai.AsyncOpenAI, consumer: Consumer, books: Books
) -> None:
    before, earned = await consumer.balance(), await books.earned()

    raw = await sdk.chat.completions.with_raw_response.create(
        model="scripted",
        messages=script(tokens=1000, delta_tokens=50),
    )
    answer = raw.parse()

    assert answer.model == "scripted"
    assert answer.choices[0].finish_reason == "stop"
    text = answer.choices[0].message.content or ""
    assert len(text.split()) == 1000
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (5, 1000)
    assert raw.headers["x-provider-trust-level"] == "none"
    assert raw.headers["x-provider-attested"] == "false"
    assert raw.headers["x-provider-encrypted"] == "true"
    assert raw.headers["x-provider-scripted"] == "true"

    row = await consumer.usage(raw.headers["x-inference-job-id"])
    charge = price(5, 1000)
    assert row["cost_micro_usd"] == charge
    assert (row["prompt_tokens"], row["completion_tokens"]) == (5, 1000)
    assert await consumer.balance() == before - charge
    receipt = (answer.model_extra or {})["receipt"]
    assert await books.earning(request_id_of(receipt)) == charge
    assert await books.earned() == earned + charge
    await books.clean()


async def test_a_stream_through_the_sdk_ends_with_usage_and_a_receipt_that_verifies_offline(
    sdk: openai.AsyncOpenAI, consumer: Consumer, books: Books
) -> None:
    before = await consumer.balance()
    sent: list[bytes] = []

    async def keep(request: Any) -> None:
        sent.append(await request.aread())

    sdk._client.event_hooks["request"].append(keep)
    raw = await sdk.chat.completions.with_raw_response.create(
        model="scripted",
        messages=script(tokens=40),
        stream=True,
        stream_options={"include_usage": True},
    )
    text, usage, receipts, reasons = "", [], [], []
    async for chunk in raw.parse():
        for choice in chunk.choices:
            text += choice.delta.content or ""
            reasons += [choice.finish_reason] if choice.finish_reason else []
        usage += [chunk.usage] if chunk.usage else []
        extra = chunk.model_extra or {}
        receipts += [extra["receipt"]] if "receipt" in extra else []

    assert len(text.split()) == 40
    assert reasons == ["stop"]
    (counts,), (receipt,), (body,) = usage, receipts, sent
    assert (counts.prompt_tokens, counts.completion_tokens) == (3, 40)

    report = await consumer.verify(receipt, body=body, answer=text)
    assert {claim.name: claim.detail for claim in report.claims if claim.holds is False} == {}
    assert report.ok
    assert not report.attested

    row = await consumer.usage(raw.headers["x-inference-job-id"])
    assert row["completion_tokens"] == 40
    assert await consumer.balance() == before - row["cost_micro_usd"]
    assert await books.earning(request_id_of(receipt)) == row["cost_micro_usd"]


async def test_a_receipt_fails_for_another_answer_another_body_and_another_key(
    consumer: Consumer,
) -> None:
    body = json.dumps({"model": SCRIPTED, "messages": script(text="yes, it is")}).encode()
    answer = (await consumer.post(body)).json()
    receipt = answer["receipt"]

    assert (await consumer.verify(receipt, body=body, answer="yes, it is")).ok
    assert not (await consumer.verify(receipt, body=body, answer="no, it is not")).ok
    assert not (await consumer.verify(receipt, body=body + b" ", answer="yes, it is")).ok
    forged = {**receipt, "countersign_signature": base64.b64encode(bytes(64)).decode()}
    assert not (await consumer.verify(forged, body=body)).ok


async def test_tool_calls_json_and_reasoning_come_through_the_sdk(sdk: openai.AsyncOpenAI) -> None:
    tool: Any = {
        "type": "function",
        "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}},
    }
    called = await sdk.chat.completions.create(
        model="scripted",
        messages=script(text="", tool_calls=[{"name": "weather", "arguments": {"city": "Oslo"}}]),
        tools=[tool],
    )
    (call,) = called.choices[0].message.tool_calls or []
    assert call.type == "function"
    assert call.function.name == "weather"
    assert json.loads(call.function.arguments) == {"city": "Oslo"}
    assert called.choices[0].finish_reason == "tool_calls"

    structured = await sdk.chat.completions.create(
        model="scripted",
        messages=script(json={"a": [1, 2]}),
        response_format={"type": "json_object"},
    )
    assert json.loads(structured.choices[0].message.content or "") == {"a": [1, 2]}

    thought = await sdk.chat.completions.create(
        model="scripted", messages=script(reasoning="let me see", text="four")
    )
    assert thought.choices[0].message.content == "four"
    assert "let me see" in json.dumps(thought.choices[0].message.model_extra)


async def test_the_output_bound_ends_an_answer_with_length(sdk: openai.AsyncOpenAI) -> None:
    answer = await sdk.chat.completions.create(
        model="scripted", messages=script(tokens=500), max_tokens=7
    )
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 7


async def test_a_megabyte_of_prompt_is_carried_in_parts(consumer: Consumer) -> None:
    filler = [{"role": "system", "content": "word " * 200_000}]
    answer = await consumer.post(
        {"model": SCRIPTED, "messages": [*filler, *script(text="read it all")]}
    )
    assert answer.status_code == 200, answer.text
    assert answer.json()["choices"][0]["message"]["content"] == "read it all"
    assert answer.json()["usage"]["prompt_tokens"] > 200_000


async def test_models_prices_and_evidence_are_published(
    sdk: openai.AsyncOpenAI, consumer: Consumer
) -> None:
    models = [model.id async for model in sdk.models.list()]
    assert "scripted" in models
    assert (await sdk.models.retrieve("scripted")).id == "scripted"

    prices = (await consumer.get("/v1/pricing")).json()["prices"]
    (row,) = [one for one in prices if one["model"] == SCRIPTED]
    assert (row["input_price"], row["output_price"]) == (INPUT, OUTPUT)

    (machine,) = (await consumer.get("/v1/providers/attestation")).json()["providers"]
    assert machine["trust_level"] == "none"
    assert machine["admission"] == "development"
    assert machine["status"] == "online"
    assert machine["verdict"]["document"]


async def test_every_dialect_is_answered_counted_and_paid(
    mesh: Mesh, sdk: openai.AsyncOpenAI, consumer: Consumer, books: Books
) -> None:
    await books.quiet()
    before = await consumer.balance()
    [turn] = script(tokens=3)
    said = turn["content"]

    response = await sdk.responses.create(model="scripted", input=said)
    completion = await sdk.completions.create(model="scripted", prompt=said)
    chosen = await sdk.chat.completions.create(model="scripted", messages=[turn], n=2)
    async with anthropic.AsyncAnthropic(
        base_url=mesh.url, api_key=mesh.api_key, max_retries=0
    ) as client:
        asked: Any = {"model": "scripted", "max_tokens": 64, "messages": [turn]}
        async with client.messages.stream(**asked) as stream:
            message = await stream.get_final_message()
        counted = await client.messages.count_tokens(model="scripted", messages=[turn])

    text = response.output_text
    assert len(text.split()) == 3
    assert completion.choices[0].text == text
    assert [choice.message.content for choice in chosen.choices] == [text, text]
    assert message.content[0].type == "text"
    assert message.content[0].text == text
    assert message.usage.output_tokens == 3
    assert chosen.usage is not None
    assert chosen.usage.completion_tokens == 6
    assert counted.input_tokens > 0
    await books.quiet()
    assert await consumer.balance() == before - 5 * price(message.usage.input_tokens, 3)
    await books.clean()
