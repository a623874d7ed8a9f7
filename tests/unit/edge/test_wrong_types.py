"""A value of the wrong type anywhere in a body is refused by name; it never breaks a dialect."""

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
from darkbloom_edge.dialects.chat import CHAT
from darkbloom_edge.dialects.completions import COMPLETIONS
from darkbloom_edge.dialects.dialect import Dialect
from darkbloom_edge.dialects.messages import MESSAGES
from darkbloom_edge.dialects.responses import RESPONSES
from darkbloom_edge.errors import RequestError

DIALECTS: dict[str, Dialect] = {
    "chat": CHAT,
    "completions": COMPLETIONS,
    "messages": MESSAGES,
    "responses": RESPONSES,
}
SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "string", "pattern": "x", "enum": ["x"]}},
    "required": ["a"],
}
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
FUNCTION = {"name": "f", "description": "d", "parameters": SCHEMA, "strict": True}
COMMON = {"model": "m", "stream": True, "temperature": 1, "top_p": 1, "metadata_details": True}
BODIES: dict[str, dict[str, Any]] = {
    "chat": {
        **COMMON,
        "messages": [
            {"role": "developer", "content": "be kind"},
            {"role": "user", "content": [{"type": "text", "text": "hi"}]},
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
            {"role": "tool", "tool_call_id": "c1", "content": "1"},
            {"role": "assistant", "function_call": {"name": "f", "arguments": "{}"}},
            {"role": "function", "name": "f", "content": "2"},
            {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]},
        ],
        "tools": [{"type": "function", "function": FUNCTION}],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
        "parallel_tool_calls": True,
        "response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": SCHEMA}},
        "stream_options": {"include_usage": True},
        "max_tokens": 5,
        "n": 2,
        "stop": ["x"],
        "seed": 1,
        "logprobs": True,
        "top_logprobs": 2,
        "logit_bias": {"1": 1},
        "reasoning": {"effort": "low"},
        "modalities": ["text"],
        "store": False,
    },
    "completions": {
        **COMMON,
        "prompt": ["hi"],
        "stop": ["x"],
        "n": 1,
        "best_of": 1,
        "echo": False,
        "suffix": "",
        "logit_bias": {"1": 1},
        "reasoning_effort": "low",
        "response_format": {"type": "json_object"},
    },
    "messages": {
        **COMMON,
        "max_tokens": 5,
        "system": [{"type": "text", "text": "be kind"}],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "hi"}]},
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "hm", "signature": ""},
                    {"type": "tool_use", "id": "c1", "name": "f", "input": {}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {
                        "type": "tool_result",
                        "tool_use_id": "c1",
                        "content": [{"type": "text", "text": "1"}],
                    }
                ],
            },
        ],
        "tools": [{"type": "custom", "name": "f", "input_schema": SCHEMA, "description": "d"}],
        "tool_choice": {"type": "tool", "name": "f", "disable_parallel_tool_use": True},
        "stop_sequences": ["x"],
        "thinking": {"type": "enabled", "budget_tokens": 2000},
        "output_config": {"format": {"type": "json_schema", "schema": SCHEMA}, "effort": "low"},
    },
    "responses": {
        **COMMON,
        "instructions": "be kind",
        "input": [
            {"role": "user", "content": "hi"},
            {
                "type": "message",
                "role": "user",
                "content": [{"type": "input_text", "text": "hi"}],
            },
            {"type": "function_call", "name": "f", "call_id": "c1", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c1", "output": "1"},
            {"type": "reasoning", "summary": []},
        ],
        "tools": [{"type": "function", **FUNCTION}],
        "tool_choice": {"type": "function", "name": "f"},
        "text": {"format": {"type": "json_schema", "name": "s", "schema": SCHEMA}},
        "reasoning": {"effort": "low"},
        "include": ["message.output_text.logprobs"],
        "top_logprobs": 2,
        "metadata": {"a": "b"},
        "max_output_tokens": 5,
        "store": False,
    },
}
WRONG: tuple[Any, ...] = ([], {}, [[]], [{}], 1, -1, 0.5, "", "x", True, None)


def places(value: Any) -> Iterator[tuple[str | int, ...]]:
    """Give the path of every member and entry, at any depth."""
    keyed: Any = ()
    if isinstance(value, dict):
        keyed = value.items()
    elif isinstance(value, list):
        keyed = enumerate(value)
    for key, inner in keyed:
        yield (key,)
        for path in places(inner):
            yield (key, *path)


def changed(body: dict[str, Any], path: tuple[str | int, ...], value: Any) -> bytes:
    made: Any = copy.deepcopy(body)
    at = made
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    return json.dumps(made).encode()


@pytest.mark.parametrize("name", DIALECTS)
def test_the_unchanged_body_is_taken(name: str) -> None:
    assert DIALECTS[name].lower(json.dumps(BODIES[name]).encode()).requested_model == "m"


@pytest.mark.parametrize("name", DIALECTS)
def test_any_wrong_value_is_taken_or_refused(name: str) -> None:
    refused = 0
    for path in places(BODIES[name]):
        for value in WRONG:
            try:
                DIALECTS[name].lower(changed(BODIES[name], path, value))
            except RequestError:
                refused += 1
            except Exception as error:
                raise AssertionError(f"{path} = {value!r}") from error
    assert refused > 100


@pytest.mark.parametrize("value", [[], {}, 1])
@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("chat", ("messages", 1, "role")),
        ("chat", ("messages", 1, "content", 0, "type")),
        ("messages", ("messages", 0, "role")),
        ("messages", ("messages", 0, "content", 0, "type")),
        ("responses", ("input", 1, "type")),
        ("responses", ("input", 1, "role")),
        ("responses", ("input", 1, "content", 0, "type")),
    ],
)
def test_a_role_or_kind_that_is_no_text_is_refused_by_name(
    name: str, path: tuple[str | int, ...], value: Any
) -> None:
    with pytest.raises(RequestError) as caught:
        DIALECTS[name].lower(changed(BODIES[name], path, value))

    assert caught.value.status == 400
    assert caught.value.param is not None
    assert caught.value.param.endswith(str(path[-1]))
