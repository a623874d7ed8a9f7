"""Chat completion bodies: what is taken, what is dropped, what is refused and how."""

import json
from typing import Any

import pytest
from darkbloom_edge.dialects.chat import Lowered, lower, prompt_bound
from darkbloom_edge.errors import EdgeError, RequestError
from darkbloom_edge.request import canonical_bytes, parse_canonical
from hypothesis import given
from hypothesis import strategies as st

TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
NAMED = {"type": "function", "function": {"name": "f"}}


def body(**changes: Any) -> bytes:
    document = {"model": "m", "messages": [{"role": "user", "content": "hi"}], **changes}
    return json.dumps({name: value for name, value in document.items() if value != ...}).encode()


def lowered(**changes: Any) -> Lowered:
    return lower(body(**changes))


def canonical(**changes: Any) -> dict[str, Any]:
    request = lowered(**changes).to_request("build-1", 64, "2026-01-31")
    data = canonical_bytes(request)
    assert parse_canonical(data) == request
    fields: dict[str, Any] = json.loads(data)
    return fields


def test_the_smallest_request_becomes_the_smallest_canonical_request() -> None:
    assert canonical() == {
        "model": "build-1",
        "messages": [{"role": "user", "content": "hi"}],
        "max_tokens": 64,
        "prompt_date": "2026-01-31",
    }
    request = lowered()
    assert (request.requested_model, request.stream, request.n) == ("m", False, 1)
    assert (request.explicit_output_bound, request.has_tools, request.needs) == (
        None,
        False,
        frozenset(),
    )


def test_fields_that_tell_who_asks_never_reach_the_provider() -> None:
    secrets = {
        "user": "canary",
        "metadata": {"a": "canary"},
        "safety_identifier": "canary",
        "prompt_cache_key": "canary",
        "provider": {"only": ["canary"]},
        "provider_serial": "canary",
        "provider_serials": ["canary"],
        "metadata_details": True,
        "vendor_field": "canary",
        "service_tier": "auto",
    }
    assert canonical(**secrets) == canonical()
    assert lowered(**secrets).metadata_details


def test_sampling_parameters_are_carried_as_they_are() -> None:
    sampling = {
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 40,
        "min_p": 0.1,
        "frequency_penalty": -1.0,
        "presence_penalty": 2.0,
        "repetition_penalty": 1.1,
        "seed": -7,
        "logprobs": True,
        "top_logprobs": 3,
        "logit_bias": {"50256": -100.0},
        "reasoning_effort": "low",
        "stop": ["a", "b"],
    }
    fields = canonical(**sampling)
    assert {name: fields[name] for name in sampling} == sampling
    assert lowered(**sampling).needs == {"logprobs"}


def test_one_stop_string_becomes_a_list() -> None:
    assert canonical(stop="x")["stop"] == ["x"]
    assert "stop" not in canonical(stop=[])


def test_reasoning_effort_is_also_read_from_the_newer_field() -> None:
    assert canonical(reasoning={"effort": "high"})["reasoning_effort"] == "high"


@pytest.mark.parametrize(
    ("changes", "bound"),
    [
        ({}, None),
        ({"max_tokens": 0}, None),
        ({"max_tokens": None, "max_completion_tokens": 7}, 7),
        ({"max_tokens": 0, "max_output_tokens": 9}, 9),
        ({"max_tokens": 5, "max_completion_tokens": 7}, 5),
    ],
)
def test_the_output_bound_is_the_first_positive_one(
    changes: dict[str, Any], bound: int | None
) -> None:
    assert lowered(**changes).explicit_output_bound == bound


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens", "max_output_tokens"])
@pytest.mark.parametrize("value", [-1, 1.5, 2.0, "5", True, 2**64, [], {}])
def test_a_malformed_output_bound_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(RequestError) as raised:
        lowered(**{name: value})
    assert raised.value.param == name
    assert raised.value.status == 400
    assert name in raised.value.message


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"model": ...}, "model"),
        ({"model": ""}, "model"),
        ({"model": 5}, "model"),
        ({"model": "x" * 300}, "model"),
        ({"messages": ...}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": {}}, "messages"),
        ({"messages": ["hi"]}, "messages[0]"),
        ({"messages": [{}]}, "messages[0].content"),
        ({"messages": [{"content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [5]}]}, "messages[0].content[0]"),
        (
            {"messages": [{"role": "user", "content": [{"type": "x"}]}]},
            "messages[0].content[0].type",
        ),
        ({"messages": [{"role": "assistant"}]}, "messages[0].content"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id"),
        (
            {"messages": [{"role": "user", "content": "x", "tool_calls": [{}]}]},
            "messages[0].tool_calls",
        ),
        ({"messages": [{"role": "assistant", "tool_calls": [{}]}]}, "messages[0].tool_calls[0].id"),
        ({"n": 9}, "n"),
        ({"n": 0}, "n"),
        ({"n": "1"}, "n"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": []}, "stream_options"),
        ({"stream_options": {"include_usage": 1}}, "include_usage"),
        ({"store": True}, "store"),
        ({"background": True}, "background"),
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"top_p": -0.1}, "top_p"),
        ({"top_k": 1.5}, "top_k"),
        ({"seed": 2**63}, "seed"),
        ({"stop": 5}, "stop"),
        ({"stop": [""]}, "stop"),
        ({"stop": ["x"] * 17}, "stop"),
        ({"stop": "é" * 200}, "stop"),
        ({"top_logprobs": 5}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"logit_bias": {"a": 1}}, "logit_bias"),
        ({"logit_bias": {"1": 101}}, "logit_bias"),
        ({"logit_bias": {"1": None}}, "logit_bias"),
        ({"reasoning_effort": "huge"}, "reasoning_effort"),
        ({"reasoning_effort": ["low"]}, "reasoning_effort"),
        ({"reasoning": {"effort": 5}}, "reasoning.effort"),
        ({"response_format": {"type": "xml"}}, "response_format"),
        ({"response_format": {"type": "json_schema"}}, "response_format"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "a"}}},
            "response_format",
        ),
        ({"tools": {}}, "tools"),
        ({"tools": [5]}, "tools[0]"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name"),
        ({"tools": [{"type": "function", "function": {"name": "a", "strict": 1}}]}, "tools[0]"),
        ({"tools": [TOOL, TOOL]}, "tools[1]"),
        ({"tools": [TOOL] * 129}, "tools"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": NAMED}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": "any"}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": 5}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": {"type": "function"}}, "tool_choice"),
        (
            {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "g"}}},
            "tool_choice",
        ),
        ({"parallel_tool_calls": "no"}, "parallel_tool_calls"),
        ({"functions": [{"name": "f"}], "function_call": {"name": "g"}}, "function_call"),
    ],
)
def test_a_bad_field_is_refused_by_name(changes: dict[str, Any], param: str) -> None:
    with pytest.raises(RequestError) as raised:
        lowered(**changes)
    assert raised.value.param is not None
    assert raised.value.param.startswith(param)
    assert (raised.value.status, raised.value.type) == (400, "invalid_request_error")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"nope",
        b"[]",
        b"\xff",
        b'{"model":"m","model":"n","messages":[{"role":"user","content":"hi"}]}',
        b'{"model":"m","messages":[{"role":"user","content":"\\ud800"}]}',
        b'{"model":"m","messages":[{"role":"user","content":"hi"}],"seed":1e999}',
        b'{"model":"m","messages":' + b"[" * 500 + b"]" * 500 + b"}",
    ],
)
def test_a_body_that_is_not_strict_json_is_refused(data: bytes) -> None:
    with pytest.raises(RequestError) as raised:
        lower(data)
    assert raised.value.status == 400


def test_a_body_that_is_too_large_is_refused_with_its_own_status() -> None:
    with pytest.raises(RequestError) as raised:
        lower(body(), max_bytes=10)
    assert raised.value.status == 413


@pytest.mark.parametrize("kind", ["input_image", "input_audio", "audio_url", "file"])
def test_parts_that_no_model_takes_are_refused(kind: str) -> None:
    part = {"type": kind, kind: {"url": "data:,"}}
    with pytest.raises(RequestError) as raised:
        lowered(messages=[{"role": "user", "content": [{"type": "text", "text": "a"}, part]}])
    assert raised.value.param == "messages[0].content[1].type"


def test_messages_are_brought_into_one_shape() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    messages = [
        {
            "role": "developer",
            "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
        },
        {"role": "user", "content": "x", "name": "bob", "audio": None},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "1", "tool_call_id": "c1"},
        {"role": "assistant", "content": "done", "tool_calls": None},
    ]
    assert canonical(messages=messages)["messages"] == [
        {"role": "system", "content": "ab"},
        {"role": "user", "content": "x", "name": "bob"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "1", "tool_call_id": "c1"},
        {"role": "assistant", "content": "done"},
    ]


def test_functions_of_the_old_dialect_become_tools() -> None:
    fields = canonical(
        functions=[TOOL["function"]],
        function_call={"name": "f"},
        messages=[
            {"role": "user", "content": "x"},
            {"role": "assistant", "function_call": {"name": "f", "arguments": "{}"}},
            {"role": "function", "name": "f", "content": "1"},
        ],
    )
    assert fields["tools"] == [TOOL]
    assert fields["tool_choice"] == NAMED
    call = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    assert fields["messages"][1:] == [
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "name": "f", "content": "1", "tool_call_id": "call_1"},
    ]


@pytest.mark.parametrize(
    ("choice", "policy", "needs"),
    [
        (None, "auto", {"tools"}),
        ("auto", "auto", {"tools"}),
        ("none", "none", {"tools", "tool_grammar"}),
        ("required", "required", {"tools", "tool_grammar"}),
        (NAMED, "named", {"tools", "tool_grammar"}),
    ],
)
def test_the_tool_choice_says_what_a_build_must_be_able_to_do(
    choice: object, policy: str, needs: set[str]
) -> None:
    request = lowered(tools=[TOOL], tool_choice=choice)
    assert (request.tool_policy, request.has_tools, request.needs) == (policy, True, needs)


def test_an_empty_tool_list_is_no_tool_list() -> None:
    assert canonical(tools=[], tool_choice="none", parallel_tool_calls=False) == canonical()


def test_response_formats_say_what_a_build_must_be_able_to_do() -> None:
    schema = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}}
    assert canonical(response_format={"type": "text"}) == canonical()
    assert lowered(response_format={"type": "json_object"}).needs == {"json_mode"}
    assert lowered(response_format=schema).needs == {"structured_outputs"}
    assert canonical(response_format=schema)["response_format"] == schema


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=50), min_size=1))
def test_the_prompt_bound_covers_every_byte_of_the_text(contents: list[str]) -> None:
    request = lowered(messages=[{"role": "user", "content": text} for text in contents])
    size = sum(len(text.encode()) for text in contents)
    assert prompt_bound(request) == 128 + 16 * len(contents) + size
    assert prompt_bound(request.to_request("b", 1, "2026-01-31")) == prompt_bound(request)


def test_the_prompt_bound_covers_tools_and_names_and_schemas() -> None:
    plain = prompt_bound(lowered())
    assert prompt_bound(lowered(tools=[TOOL])) > plain + len(json.dumps(TOOL))
    named = [{"role": "user", "content": "hi", "name": "x" * 100}]
    assert prompt_bound(lowered(messages=named)) > plain + 100
    schema = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"title": "x" * 100}}}
    assert prompt_bound(lowered(response_format=schema)) > plain + 200


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)
FIELDS = [
    "model", "messages", "stream", "stream_options", "max_tokens", "n", "stop", "temperature",
    "seed", "logit_bias", "tools", "tool_choice", "functions", "function_call", "reasoning",
    "response_format", "modalities", "top_logprobs", "logprobs",
]  # fmt: skip


@given(st.dictionaries(st.sampled_from(FIELDS), json_values))
def test_no_document_raises_anything_but_a_request_error(document: dict[str, Any]) -> None:
    data = json.dumps({**json.loads(body()), **document}).encode()
    try:
        request = lower(data)
    except RequestError:
        return
    assert parse_canonical(canonical_bytes(request.to_request("b", 5, "2026-01-31")))
    assert prompt_bound(request) > 0


message_values = st.dictionaries(
    st.sampled_from(["role", "content", "tool_calls", "function_call", "tool_call_id", "name"]),
    st.sampled_from(["user", "assistant", "function", "tool", "developer"]) | json_values,
)


@given(st.lists(message_values, max_size=3))
def test_no_message_raises_anything_but_a_request_error(messages: list[dict[str, Any]]) -> None:
    try:
        request = lower(json.dumps({"model": "m", "messages": messages}).encode())
    except RequestError:
        return
    assert parse_canonical(canonical_bytes(request.to_request("b", 5, "2026-01-31")))


@given(st.binary(max_size=100))
def test_no_bytes_raise_anything_but_an_edge_error(data: bytes) -> None:
    with pytest.raises(EdgeError):
        lower(data)


def test_refusals_and_repr_quote_no_content() -> None:
    assert "canary" not in repr(lowered(messages=[{"role": "user", "content": "canary"}]))
    for changes in (
        {"messages": [{"role": "canary", "content": "canary"}]},
        {"messages": [{"role": "user", "content": [{"type": "canary"}]}]},
        {"tools": [{"type": "function", "function": {"name": "canary!"}}]},
        {"reasoning_effort": "canary"},
        {"stop": ["canary" * 100]},
    ):
        with pytest.raises(RequestError) as raised:
            lowered(**changes)
        assert "canary" not in f"{raised.value} {raised.value.message} {raised.value.param}"


def test_beside_a_grammar_there_are_at_most_four_stop_strings() -> None:
    stops = ["a", "b", "c", "d", "e"]
    assert lowered(stop=stops, tools=[TOOL]).fields["stop"] == stops
    assert lowered(stop=stops[:4], tools=[TOOL], tool_choice="required").has_tools
    for choice in ("required", "none", NAMED):
        with pytest.raises(RequestError) as refused:
            lowered(stop=stops, tools=[TOOL], tool_choice=choice)
        assert (refused.value.param, refused.value.status) == ("stop", 400)
