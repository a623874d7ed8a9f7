"""`POST /v1/messages` over a real socket, with the stock Anthropic SDK."""

import asyncio
import json
from typing import Any

import pytest
from anthropic import APIStatusError, AsyncAnthropic
from darkbloom_edge.delta import Delta, ToolCallPart

from tests.component.gateway.harness import BEARER, Harness, gateway
from tests.component.gateway.neighbours import API_KEY
from tests.fakes.router import scripted

pytestmark = pytest.mark.asyncio(loop_scope="session")

PATH = "/v1/messages"
ASK: dict[str, Any] = {
    "model": "tiny",
    "max_tokens": 64,
    "messages": [{"role": "user", "content": "hi"}],
}
CALLING = scripted(
    deltas=[
        Delta(reasoning="hm", prompt_tokens=7, completion_tokens=1, reasoning_tokens=1),
        Delta("so", prompt_tokens=7, completion_tokens=2, reasoning_tokens=1),
        Delta(
            tool_calls=(ToolCallPart(0, "call_1", "look", '{"at": '),),
            prompt_tokens=7,
            completion_tokens=3,
            reasoning_tokens=1,
        ),
        Delta(
            tool_calls=(ToolCallPart(0, arguments='"sky"}'), ToolCallPart(1, "call_2", "wait")),
            prompt_tokens=7,
            completion_tokens=4,
            cached_tokens=3,
            reasoning_tokens=1,
        ),
        Delta(
            prompt_tokens=7,
            completion_tokens=4,
            cached_tokens=3,
            reasoning_tokens=1,
            finish_reason="tool_calls",
        ),
    ]
)
TOOLS = [{"name": "look", "input_schema": {"type": "object"}}, {"name": "wait", "input_schema": {}}]


def sdk(house: Harness) -> AsyncAnthropic:
    return AsyncAnthropic(api_key=API_KEY, base_url=house.url, max_retries=0)


def events(text: str) -> list[tuple[str, dict[str, Any]]]:
    found = []
    for event in text.removesuffix("\n\n").split("\n\n"):
        name, data = event.split("\n")
        found.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    assert all(name == data["type"] for name, data in found)
    return found


async def test_the_stock_sdk_gets_a_message_with_its_default_header(house: Harness) -> None:
    async with sdk(house) as client:
        answer = await client.messages.create(**ASK, system="be brief", stop_sequences=["X"])

    assert answer.id.startswith("msg_")
    assert answer.model == "tiny"
    assert answer.content[0].type == "text"
    assert answer.content[0].text == "Hello world"
    assert answer.stop_reason == "end_turn"
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (7, 2)
    assert answer._request_id
    request = house.router.seen.requests[0]
    assert [turn["role"] for turn in request.messages] == ["system", "user"]
    assert (request.stop, request.max_tokens) == (["X"], 64)


async def test_the_stock_sdk_streams_a_message(house: Harness) -> None:
    async with sdk(house) as client, client.messages.stream(**ASK) as stream:
        texts = [text async for text in stream.text_stream]
        final = await stream.get_final_message()

    assert "".join(texts) == "Hello world"
    assert final.stop_reason == "end_turn"
    assert (final.usage.input_tokens, final.usage.output_tokens) == (7, 2)


async def test_thinking_text_and_tools_come_as_blocks(house: Harness) -> None:
    house.router.scripts = [CALLING, CALLING]
    async with sdk(house) as client:
        whole = await client.messages.create(**ASK, tools=TOOLS)
        async with client.messages.stream(**ASK, tools=TOOLS) as stream:
            streamed = await stream.get_final_message()

    for answer in (whole, streamed):
        assert [block.type for block in answer.content] == [
            "thinking",
            "text",
            "tool_use",
            "tool_use",
        ]
        thinking, _, look, wait = answer.content
        assert thinking.type == "thinking"
        assert thinking.thinking == "hm"
        assert look.type == wait.type == "tool_use"
        assert (look.id, look.name, look.input) == ("call_1", "look", {"at": "sky"})
        assert (wait.id, wait.name, wait.input) == ("call_2", "wait", {})
        assert answer.stop_reason == "tool_use"
        assert (answer.usage.input_tokens, answer.usage.cache_read_input_tokens) == (4, 3)
        assert answer.usage.output_tokens == 4


async def test_the_stream_has_the_events_of_the_original_and_ends_once(house: Harness) -> None:
    house.router.scripts = [CALLING]

    response = await house.http.post(PATH, json={**ASK, "stream": True}, headers=BEARER)

    found = events(response.text)
    assert [name for name, _ in found] == [
        "message_start",
        *("content_block_start", "content_block_delta", "content_block_stop"),
        *("content_block_start", "content_block_delta", "content_block_stop"),
        *("content_block_start", "content_block_delta", "content_block_delta"),
        "content_block_stop",
        *("content_block_start", "content_block_stop"),
        *("message_delta", "message_stop"),
    ]
    assert found[0][1]["message"]["usage"]["input_tokens"] == 7
    pieces = [data["delta"] for _, data in found if data["type"] == "content_block_delta"]
    assert [piece.get("partial_json") for piece in pieces] == [None, None, '{"at": ', '"sky"}']
    assert found[-2][1]["receipt"]["gateway_key_id"]
    assert response.headers["x-provider-id"] == house.router.provider_id


async def test_a_stop_sequence_is_named_where_the_caller_supplied_it(house: Harness) -> None:
    end = Delta("x", prompt_tokens=7, completion_tokens=1)
    stopped = [
        end,
        Delta(prompt_tokens=7, completion_tokens=1, finish_reason="stop", stop_sequence="END"),
    ]
    house.router.default = scripted(deltas=stopped)

    named = await house.http.post(PATH, json={**ASK, "stop_sequences": ["END"]}, headers=BEARER)
    foreign = await house.http.post(PATH, json={**ASK, "stop_sequences": ["no"]}, headers=BEARER)

    assert (named.json()["stop_reason"], named.json()["stop_sequence"]) == ("stop_sequence", "END")
    assert (foreign.json()["stop_reason"], foreign.json()["stop_sequence"]) == ("end_turn", None)


async def test_a_conversation_with_tools_is_lowered_to_turns(house: Harness) -> None:
    async with sdk(house) as client:
        await client.messages.create(
            model="tiny",
            max_tokens=8,
            thinking={"type": "enabled", "budget_tokens": 1024},
            tool_choice={"type": "auto", "disable_parallel_tool_use": True},
            tools=TOOLS,
            metadata={"user_id": "canary"},
            messages=[
                {
                    "role": "user",
                    "content": [{"type": "text", "text": "look "}, {"type": "text", "text": "up"}],
                },
                {
                    "role": "assistant",
                    "content": [
                        {"type": "thinking", "thinking": "hm", "signature": ""},
                        {"type": "text", "text": "I look"},
                        {"type": "tool_use", "id": "c1", "name": "look", "input": {"b": 1, "a": 2}},
                    ],
                },
                {
                    "role": "user",
                    "content": [
                        {
                            "type": "tool_result",
                            "tool_use_id": "c1",
                            "content": [{"type": "text", "text": "blue"}],
                        },
                        {"type": "text", "text": "well?"},
                    ],
                },
            ],
        )

    request = house.router.seen.requests[0]
    call = {
        "id": "c1",
        "type": "function",
        "function": {"name": "look", "arguments": '{"b":1,"a":2}'},
    }
    assert request.messages == [
        {"role": "user", "content": "look up"},
        {
            "role": "assistant",
            "content": "I look",
            "reasoning_content": "hm",
            "tool_calls": [call],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "blue"},
        {"role": "user", "content": "well?"},
    ]
    assert request.parallel_tool_calls is False
    assert request.reasoning_effort == "low"
    assert [tool["function"]["name"] for tool in request.tools or ()] == ["look", "wait"]


async def test_errors_have_the_envelope_of_the_original(house: Harness) -> None:
    async with sdk(house) as client:
        with pytest.raises(APIStatusError) as caught:
            await client.messages.create(**{**ASK, "model": "nobody"})

    assert caught.value.status_code == 404
    assert caught.value.body == {
        "type": "error",
        "error": {
            "type": "not_found_error",
            "message": "the model does not exist",
            "code": "model_not_found",
            "param": "model",
        },
        "request_id": caught.value.response.headers["x-request-id"],
    }


@pytest.mark.parametrize(
    ("method", "headers", "status", "kind"),
    [
        ("POST", {}, 401, "authentication_error"),
        ("POST", {"x-api-key": "wrong"}, 401, "authentication_error"),
        ("GET", {}, 405, "invalid_request_error"),
    ],
)
async def test_refusals_before_the_body_have_the_envelope_as_well(
    house: Harness, method: str, headers: dict[str, str], status: int, kind: str
) -> None:
    response = await house.http.request(method, PATH, headers=headers)

    assert response.status_code == status
    assert response.json()["type"] == "error"
    assert response.json()["error"]["type"] == kind


async def test_the_key_header_counts_on_no_other_route(house: Harness) -> None:
    body = {"model": "tiny", "prompt": "x"}

    response = await house.http.post("/v1/completions", json=body, headers={"x-api-key": API_KEY})

    assert response.status_code == 401


async def test_a_break_after_commit_is_one_error_event(house: Harness) -> None:
    house.router.scripts = [scripted(*("word " for _ in range(100)), breaks_after=40)]

    response = await house.http.post(PATH, json={**ASK, "stream": True}, headers=BEARER)

    found = events(response.text)
    assert found[-1][0] == "error"
    assert found[-1][1]["error"]["type"] == "api_error"
    assert "message_stop" not in [name for name, _ in found]


async def test_silence_after_commit_is_filled_with_pings(valkey_url: str) -> None:
    async with gateway(valkey_url, keepalive_s=0.1) as house:
        gate = asyncio.Event()
        house.router.scripts = [scripted("one", "two", pause=gate)]
        text = ""
        async with house.http.stream(
            "POST", PATH, json={**ASK, "stream": True}, headers=BEARER
        ) as response:
            async for part in response.aiter_text():
                text += part
                if "event: ping" in text:
                    gate.set()

        assert events(text)[-1][0] == "message_stop"


async def test_arguments_that_are_no_json_are_the_providers_fault(house: Harness) -> None:
    call = (ToolCallPart(0, "c", "look", "{oops"),)
    house.router.scripts = [
        scripted(
            deltas=[
                Delta(tool_calls=call, prompt_tokens=7, completion_tokens=1),
                Delta(prompt_tokens=7, completion_tokens=1, finish_reason="tool_calls"),
            ]
        )
    ]

    response = await house.http.post(PATH, json={**ASK, "tools": TOOLS}, headers=BEARER)

    assert response.status_code == 502
    assert response.json()["error"]["type"] == "api_error"
