"""Chat answers: spliced bytes say the same as a plain JSON writer would."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from darkbloom_edge.answers import parse_answer
from darkbloom_edge.delta import Delta, TokenLogprob, ToolCallPart, TopLogprob
from darkbloom_edge.dialects.chat import (
    DONE,
    ChatCollector,
    ChatStream,
    Usage,
    error_event,
    usage_of,
)
from darkbloom_edge.errors import MalformedError
from hypothesis import given
from hypothesis import strategies as st

text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
USAGE = Usage(7, 5, 2, 1)
USAGE_JSON = {
    "prompt_tokens": 7,
    "completion_tokens": 5,
    "total_tokens": 12,
    "prompt_tokens_details": {"cached_tokens": 2},
    "completion_tokens_details": {"reasoning_tokens": 1},
}
CALLS = (
    ToolCallPart(0, "call_a", "f", '{"x":'),
    ToolCallPart(1, "call_b", "g", ""),
)
MORE = (ToolCallPart(0, arguments="1}"), ToolCallPart(1, arguments="{}"))


def events(data: bytes) -> list[dict[str, Any]]:
    assert data.endswith(b"\n\n")
    lines = data.decode().removesuffix("\n\n").split("\n\n")
    assert all(line.startswith("data: ") for line in lines)
    return [json.loads(line.removeprefix("data: ")) for line in lines]


def event(choices: list[Any], model: str = "m", **extras: Any) -> dict[str, Any]:
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 17,
        "model": model,
        "choices": choices,
        **extras,
    }


def choice(delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "finish_reason": finish_reason}


def stream(model: str = "m", **options: Any) -> ChatStream:
    return ChatStream("chatcmpl-1", 17, model, **options)


@given(text, text, text, text)
def test_arbitrary_text_is_rendered_as_a_plain_json_writer_would(
    model: str, first: str, second: str, reasoning: str
) -> None:
    answer = stream(model)
    assert events(answer.first(Delta(first, reasoning))) == [
        event([choice({"role": "assistant", "reasoning": reasoning, "content": first})], model)
    ]
    assert events(answer.chunk(Delta(second))) == [event([choice({"content": second})], model)]
    assert events(answer.chunk(Delta(reasoning=reasoning))) == [
        event([choice({"reasoning": reasoning})], model)
    ]
    assert events(error_event(first, second)) == [{"error": {"message": first, "type": second}}]


def test_the_role_comes_once_and_first() -> None:
    answer = stream()
    assert events(answer.chunk(Delta("a")))[0]["choices"][0]["delta"]["role"] == "assistant"
    assert "role" not in events(answer.chunk(Delta("b")))[0]["choices"][0]["delta"]
    assert events(stream().first(Delta())) == [
        event([choice({"role": "assistant", "content": ""})])
    ]


def test_a_delta_without_content_is_no_event() -> None:
    assert stream().chunk(Delta(prompt_tokens=3)) == b""


def test_tool_calls_are_streamed_in_parts() -> None:
    answer = stream()
    assert events(answer.chunk(Delta(tool_calls=CALLS)) + answer.chunk(Delta(tool_calls=MORE))) == [
        event(
            [
                choice(
                    {
                        "role": "assistant",
                        "tool_calls": [
                            {
                                "index": 0,
                                "id": "call_a",
                                "type": "function",
                                "function": {"name": "f", "arguments": '{"x":'},
                            },
                            {
                                "index": 1,
                                "id": "call_b",
                                "type": "function",
                                "function": {"name": "g", "arguments": ""},
                            },
                        ],
                    }
                )
            ]
        ),
        event(
            [
                choice(
                    {
                        "tool_calls": [
                            {"index": 0, "function": {"arguments": "1}"}},
                            {"index": 1, "function": {"arguments": "{}"}},
                        ]
                    }
                )
            ]
        ),
    ]
    assert events(answer.finish(Delta(finish_reason="stop"), None)) == [
        event([choice({}, "tool_calls")])
    ]


LOGPROBS = (TokenLogprob("a", -0.5, b"a", (TopLogprob("\ufffd", -1e-07, b"\xff"),)),)
LOGPROBS_JSON = {
    "content": [
        {
            "token": "a",
            "logprob": -0.5,
            "bytes": [97],
            "top_logprobs": [{"token": "\ufffd", "logprob": -1e-07, "bytes": [255]}],
        }
    ],
    "refusal": None,
}


def test_log_probabilities_are_shown_in_both_forms() -> None:
    delta = Delta("a", logprobs=LOGPROBS)
    answer = stream()
    answer.first(Delta("x"))
    assert events(answer.chunk(delta))[0]["choices"][0]["logprobs"] == LOGPROBS_JSON
    collector = ChatCollector("chatcmpl-1", 17, "m")
    collector.feed(delta)
    assert json.loads(collector.body(None))["choices"][0]["logprobs"] == LOGPROBS_JSON


def test_usage_comes_last_and_only_where_asked_for() -> None:
    final = Delta("z", finish_reason="stop")
    asked = stream(include_usage=True)
    asked.first(Delta("a"))
    assert events(asked.finish(final, USAGE)) == [
        event([choice({"content": "z"})]),
        event([choice({}, "stop")]),
        event([], usage=USAGE_JSON),
    ]
    silent = stream()
    silent.first(Delta("a"))
    assert events(silent.finish(Delta(finish_reason="stop"), USAGE)) == [
        event([choice({}, "stop")])
    ]


def test_usage_is_never_invented() -> None:
    answer = stream(include_usage=True)
    answer.first(Delta("a"))
    assert events(answer.finish(None, None)) == [event([choice({}, "stop")])]


def test_extras_ride_on_the_usage_event_or_on_one_of_their_own() -> None:
    extras = {"receipt": b'{"a":1}', "metadata": b'{"b":2}'}
    shown = {"receipt": {"a": 1}, "metadata": {"b": 2}}
    asked, silent = stream(include_usage=True), stream()
    for answer in (asked, silent):
        answer.first(Delta("a"))
    assert events(asked.finish(None, USAGE, extras))[-1] == event([], usage=USAGE_JSON, **shown)
    assert events(silent.finish(None, USAGE, extras))[-1] == event([], **shown)


@pytest.mark.parametrize(
    ("delta", "usage", "bound", "expected"),
    [
        (Delta(finish_reason="stop"), USAGE, None, "stop"),
        (Delta(finish_reason="stop"), USAGE, 6, "stop"),
        (Delta(finish_reason="stop"), USAGE, 5, "length"),
        (Delta(finish_reason="length"), USAGE, None, "length"),
        (Delta(finish_reason="content_filter"), USAGE, 5, "content_filter"),
        (Delta(finish_reason="cancelled"), None, None, "stop"),
        (Delta(tool_calls=CALLS, finish_reason="stop"), USAGE, None, "tool_calls"),
        (Delta(tool_calls=CALLS, finish_reason="stop"), USAGE, 5, "length"),
    ],
)
def test_the_finish_reason_is_the_true_one_in_both_forms(
    delta: Delta, usage: Usage | None, bound: int | None, expected: str
) -> None:
    answer = stream(output_bound=bound)
    assert events(answer.finish(delta, usage))[-1]["choices"][0]["finish_reason"] == expected
    collector = ChatCollector("chatcmpl-1", 17, "m", output_bound=bound)
    collector.feed(delta)
    assert json.loads(collector.body(usage))["choices"][0]["finish_reason"] == expected


def test_the_collected_body_is_complete() -> None:
    collector = ChatCollector("chatcmpl-1", 17, "m")
    collector.feed(Delta("a", "think", CALLS))
    collector.feed(Delta("b", "ing", MORE, 7, 5, 2, 1, finish_reason="stop"))
    assert collector.usage == USAGE
    assert json.loads(collector.body(collector.usage, {"receipt": b"{}"})) == {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 17,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": "ab",
                    "refusal": None,
                    "reasoning": "thinking",
                    "tool_calls": [
                        {
                            "id": "call_a",
                            "type": "function",
                            "function": {"name": "f", "arguments": '{"x":1}'},
                        },
                        {
                            "id": "call_b",
                            "type": "function",
                            "function": {"name": "g", "arguments": "{}"},
                        },
                    ],
                },
                "logprobs": None,
                "finish_reason": "tool_calls",
            }
        ],
        "usage": USAGE_JSON,
        "receipt": {},
    }


def test_an_empty_answer_has_empty_content() -> None:
    body = json.loads(ChatCollector("chatcmpl-1", 17, "m").body(None))
    assert body["choices"][0]["message"] == {
        "role": "assistant",
        "content": "",
        "refusal": None,
    }
    assert "usage" not in body


def test_tool_calls_with_gaps_are_refused() -> None:
    collector = ChatCollector("chatcmpl-1", 17, "m")
    with pytest.raises(MalformedError):
        collector.feed(Delta(tool_calls=(ToolCallPart(1, "a", "f", ""),)))


@given(st.lists(text, min_size=1, max_size=4), text, text)
def test_a_saved_answer_is_read_back_from_both_forms(
    pieces: list[str], reasoning: str, arguments: str
) -> None:
    deltas = [
        *map(Delta, pieces),
        Delta(reasoning=reasoning, tool_calls=(ToolCallPart(0, "i", "f", arguments),)),
        Delta(tool_calls=(ToolCallPart(0, arguments=arguments),)),
    ]
    answer, collector = stream(include_usage=True), ChatCollector("chatcmpl-1", 17, "m")
    saved = b": keep-alive\n\n"
    for delta in deltas:
        saved += answer.chunk(delta)
        collector.feed(delta)
    saved += answer.finish(None, USAGE, {"receipt": b"{}"}) + DONE

    for read in (parse_answer(saved), parse_answer(collector.body(USAGE))):
        assert read.content == "".join(pieces)
        assert read.reasoning == reasoning
        assert read.tool_calls == [["f", arguments * 2]]
        assert (read.model, read.complete) == ("m", True)


def test_a_stream_without_its_end_is_not_complete() -> None:
    assert not parse_answer(stream().chunk(Delta("a"))).complete


def test_json_that_a_model_wrote_is_plain_text() -> None:
    assert parse_answer(b'{"object":"cat"}').form == "text"
    assert parse_answer("héllo\n".encode()).content == "héllo\n"


@pytest.mark.parametrize(
    "data",
    [
        b"\xff",
        b'{"object":"chat.completion"}',
        b'{"object":"chat.completion","choices":[{"message":{"content":5}}]}',
        b'{"object":"chat.completion","choices":[{"message":{"tool_calls":[5]}}]}',
        b'data: {"choices":[{"delta":{"tool_calls":[{"index":3,"function":{}}]}}]}\n\n',
        b'data: {"choices":[{"delta":{"tool_calls":[{"index":"0","function":{}}]}}]}\n\n',
        b"data: nope\n\n",
    ],
)
def test_a_broken_saved_answer_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedError):
        parse_answer(data)


def test_the_numbers_of_a_delta_are_its_usage() -> None:
    assert usage_of(Delta("", "", (), 7, 5, 2, 1)) == USAGE


def _schema_data() -> Path:
    return Path(os.environ.get("DARKBLOOM_TEST_DATA", "../shared/data"), "openai")  # noqa: TID251 - where the data lies is the environment's to say


def test_events_have_the_members_that_openai_requires() -> None:
    path = _schema_data() / "openapi-subset.json"
    if not path.exists():
        pytest.skip(f"no test data: {path.name}")
    schemas = json.loads(path.read_text())["components"]["schemas"]
    rendered = stream(include_usage=True)
    chunks = events(rendered.first(Delta("a")) + rendered.finish(None, USAGE))
    for chunk in chunks:
        assert set(schemas["CreateChatCompletionStreamResponse"]["required"]) <= set(chunk)
        assert set(chunk) <= set(schemas["CreateChatCompletionStreamResponse"]["properties"])
    body = json.loads(ChatCollector("chatcmpl-1", 17, "m").body(USAGE))
    schema = schemas["CreateChatCompletionResponse"]
    assert set(schema["required"]) <= set(body) <= set(schema["properties"])
    item = schema["properties"]["choices"]["items"]
    assert set(item["required"]) <= set(body["choices"][0])
