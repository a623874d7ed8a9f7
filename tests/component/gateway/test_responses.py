"""`POST /v1/responses` over a real socket, with the stock SDK."""

import json
from typing import Any

import pytest
from darkbloom_edge.delta import Delta, ToolCallPart

from tests.component.gateway.harness import BEARER, Harness
from tests.fakes.router import scripted

pytestmark = pytest.mark.asyncio(loop_scope="session")

PATH = "/v1/responses"
ASK: dict[str, Any] = {"model": "tiny", "input": "hi"}
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
            tool_calls=(ToolCallPart(0, arguments='"sky"}'), ToolCallPart(1, "", "wait")),
            prompt_tokens=7,
            completion_tokens=4,
            reasoning_tokens=1,
        ),
        Delta(prompt_tokens=7, completion_tokens=4, reasoning_tokens=1, finish_reason="tool_calls"),
    ]
)
LOOK = {"type": "function", "name": "look", "parameters": {"type": "object"}, "strict": False}


async def test_the_stock_sdk_gets_a_response(house: Harness) -> None:
    async with house.sdk() as client:
        answer = await client.responses.create(
            **ASK, instructions="be brief", max_output_tokens=64, metadata={"a": "canary"}
        )

    assert answer.id.startswith("resp_")
    assert answer.output_text == "Hello world"
    assert (answer.status, answer.model, answer.instructions) == ("completed", "tiny", "be brief")
    assert answer.metadata == {"a": "canary"}
    assert answer.previous_response_id is None
    assert answer.usage is not None
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (7, 2)
    request = house.router.seen.requests[0]
    assert request.messages == [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "hi"},
    ]
    assert request.max_tokens == 64


async def test_the_stock_sdk_streams_a_response_of_every_kind_of_item(house: Harness) -> None:
    house.router.scripts = [CALLING, CALLING]
    async with house.sdk() as client:
        whole = await client.responses.create(**ASK, tools=[LOOK])
        async with client.responses.stream(**ASK, tools=[LOOK]) as stream:
            numbers = [event.sequence_number async for event in stream]
            streamed = await stream.get_final_response()

    assert numbers == list(range(len(numbers)))
    for answer in (whole, streamed):
        kinds = [item.type for item in answer.output]
        assert kinds == ["reasoning", "message", "function_call", "function_call"]
        reasoning, _, look, wait = answer.output
        assert reasoning.type == "reasoning"
        assert reasoning.summary[0].text == "hm"
        assert answer.output_text == "so"
        assert look.type == wait.type == "function_call"
        assert (look.call_id, look.name, look.arguments) == ("call_1", "look", '{"at": "sky"}')
        assert wait.call_id.startswith("call_")
        assert answer.usage is not None
        assert answer.usage.output_tokens_details.reasoning_tokens == 1


async def test_the_events_come_in_the_documented_order_and_end_once(house: Harness) -> None:
    response = await house.http.post(PATH, json={**ASK, "stream": True}, headers=BEARER)

    found = []
    for event in response.text.removesuffix("\n\n").split("\n\n"):
        name, data = event.split("\n")
        found.append(json.loads(data.removeprefix("data: ")))
        assert name == "event: " + found[-1]["type"]
    assert [event["type"].removeprefix("response.") for event in found] == [
        *("created", "in_progress", "output_item.added", "content_part.added"),
        *("output_text.delta", "output_text.delta"),
        *("output_text.done", "content_part.done", "output_item.done", "completed"),
    ]
    last = found[-1]["response"]
    assert last["output"][0]["content"][0]["text"] == "Hello world"
    assert last["receipt"]["gateway_key_id"]
    assert last["usage"]["total_tokens"] == 9
    assert "[DONE]" not in response.text


async def test_an_empty_answer_is_one_empty_message(house: Harness) -> None:
    nothing = scripted(deltas=[Delta(prompt_tokens=7, completion_tokens=1, finish_reason="stop")])
    house.router.default = nothing

    whole = await house.http.post(PATH, json=ASK, headers=BEARER)
    streamed = await house.http.post(PATH, json={**ASK, "stream": True}, headers=BEARER)

    assert [item["type"] for item in whole.json()["output"]] == ["message"]
    last = json.loads(streamed.text.removesuffix("\n\n").rpartition("data: ")[2])
    assert last["response"]["output"][0]["content"][0]["text"] == ""


async def test_an_answer_at_its_bound_is_incomplete(house: Harness) -> None:
    answer = (
        await house.http.post(PATH, json={**ASK, "max_output_tokens": 2}, headers=BEARER)
    ).json()

    assert answer["status"] == "incomplete"
    assert answer["incomplete_details"] == {"reason": "max_output_tokens"}
    assert answer["output"][0]["status"] == "incomplete"


async def test_items_of_a_conversation_become_turns(house: Harness) -> None:
    async with house.sdk() as client:
        await client.responses.create(
            model="tiny",
            user="canary",
            reasoning={"effort": "high"},
            parallel_tool_calls=False,
            tools=[LOOK],
            input=[
                {"role": "developer", "content": "rules"},
                {"role": "user", "content": [{"type": "input_text", "text": "look"}]},
                {"type": "reasoning", "id": "rs_1", "summary": []},
                {
                    "type": "message",
                    "id": "msg_1",
                    "role": "assistant",
                    "status": "completed",
                    "content": [{"type": "output_text", "text": "I look", "annotations": []}],
                },
                {"type": "function_call", "call_id": "a", "name": "look", "arguments": "{}"},
                {"type": "function_call", "call_id": "b", "name": "look", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "a", "output": "blue"},
                {
                    "type": "function_call_output",
                    "call_id": "b",
                    "output": [{"type": "input_text", "text": "grey"}],
                },
            ],
        )

    request = house.router.seen.requests[0]
    turns = [(turn["role"], turn["content"]) for turn in request.messages]
    assert turns == [
        ("system", "rules"),
        ("user", "look"),
        ("assistant", "I look"),
        ("tool", "blue"),
        ("tool", "grey"),
    ]
    assert [call["id"] for call in request.messages[2]["tool_calls"]] == ["a", "b"]
    assert request.reasoning_effort == "high"
    assert request.parallel_tool_calls is False


async def test_a_break_after_commit_is_one_error_event(house: Harness) -> None:
    house.router.scripts = [scripted(*("word " for _ in range(100)), breaks_after=40)]

    response = await house.http.post(PATH, json={**ASK, "stream": True}, headers=BEARER)

    last = response.text.removesuffix("\n\n").split("\n\n")[-1]
    assert last.startswith("event: error\n")
    said = json.loads(last.partition("data: ")[2])
    assert (said["type"], said["code"], said["param"]) == ("error", "provider_error", None)
    assert "response.completed" not in response.text
