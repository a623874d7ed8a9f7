"""The canonical request and the delta: one spelling, and nothing but typed errors."""

import contextlib
import json
import math

import msgspec
import pytest
from darkbloom_edge import delta as deltas
from darkbloom_edge.delta import Delta, TokenLogprob, ToolCallPart, TopLogprob
from darkbloom_edge.errors import EdgeError, MalformedError
from darkbloom_edge.request import ChatRequest, canonical_bytes, parse_canonical
from hypothesis import given
from hypothesis import strategies as st

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
counts = st.integers(0, 2**32 - 1)


def chat(**changes: object) -> ChatRequest:
    fields: dict[str, object] = {
        "model": "build-1",
        "messages": [{"role": "user", "content": "hi"}],
        "max_tokens": 16,
    }
    return ChatRequest(**{**fields, **changes})


def test_the_canonical_form_is_sorted_compact_and_without_absent_fields() -> None:
    request = chat(temperature=1, top_p=0.1, messages=[{"role": "user", "content": "é\u2028"}])
    assert (
        canonical_bytes(request)
        == (
            '{"max_tokens":16,"messages":[{"content":"é\u2028","role":"user"}],"model":"build-1",'
            '"temperature":1.0,"top_p":0.1}'
        ).encode()
    )


@given(text, st.floats(0, 2), st.none() | st.lists(text, max_size=3), st.none() | st.booleans())
def test_a_canonical_request_is_read_back_as_it_was(
    content: str, temperature: float, stop: list[str] | None, parallel: bool | None
) -> None:
    request = chat(
        messages=[{"role": "user", "content": content, "x": {"b": [1, 2.5], "a": None}}],
        temperature=temperature,
        stop=stop,
        parallel_tool_calls=parallel,
    )
    assert parse_canonical(canonical_bytes(request)) == request


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b'{"max_tokens":16,"messages":[],"model":"b"}',
        b'{"max_tokens":0,"messages":[{"content":"","role":"user"}],"model":"b"}',
        b'{"max_tokens":1,"messages":[{"role":"user"}],"model":"b"}',
        b'{"max_tokens":1,"messages":[{"content":"","role":"robot"}],"model":"b"}',
        b'{"max_tokens":1,"messages":[{"content":"","role":"tool"}],"model":"b"}',
        b'{"max_tokens":1,"messages":[{"content":"","role":"user"}],"model":"b","x":1}',
        b'{"max_tokens":1, "messages":[{"content":"","role":"user"}],"model":"b"}',
        b'{"max_tokens":1,"messages":[{"role":"user","content":""}],"model":"b"}',
        b'{"max_tokens":1,"messages":[{"content":"","role":"user"}],"model":"b","temperature":1}',
        b'{"max_tokens":1,"messages":[{"content":"","role":"user","tool_calls":[]}],"model":"b"}',
    ],
)
def test_what_is_not_canonical_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedError):
        parse_canonical(data)


@given(st.binary(max_size=200))
def test_reading_arbitrary_bytes_raises_nothing_but_edge_errors(data: bytes) -> None:
    with pytest.raises(EdgeError):
        parse_canonical(data)


def test_a_request_larger_than_allowed_is_refused() -> None:
    data = canonical_bytes(chat())
    with pytest.raises(MalformedError):
        parse_canonical(data, max_bytes=len(data) - 1)


def test_errors_and_repr_quote_no_content() -> None:
    request = chat(messages=[{"role": "user", "content": "canary"}])
    assert "canary" not in repr(request)
    with pytest.raises(MalformedError) as raised:
        parse_canonical(b'{"max_tokens":1,"messages":[{"role":"canary"}],"model":"canary"}')
    assert "canary" not in str(raised.value)


@given(
    st.builds(
        Delta,
        text=text,
        reasoning=text,
        tool_calls=st.lists(
            st.builds(ToolCallPart, index=st.integers(0, 127), id=text, arguments=text), max_size=3
        ).map(tuple),
        prompt_tokens=counts,
        completion_tokens=counts,
        finish_reason=st.none() | st.sampled_from(["stop", "length", "cancelled"]),
        stop_sequence=st.none() | text,
    )
)
def test_a_delta_is_read_back_as_it_was(delta: Delta) -> None:
    assert deltas.decode(deltas.encode(delta)) == delta


def test_log_probabilities_survive_the_box() -> None:
    top = (TopLogprob("a", -0.5, b"a"), TopLogprob("\ufffd", -2.0, b"\xff"))
    delta = Delta("a", logprobs=(TokenLogprob("a", -0.5, b"a", top),))
    assert deltas.decode(deltas.encode(delta)) == delta


def test_trailing_defaults_are_left_out() -> None:
    assert deltas.encode(Delta()) == b"\x90"
    assert deltas.encode(Delta("a")) == b"\x91\xa1a"
    assert deltas.encode(Delta("a", prompt_tokens=3)) == b"\x94\xa1a\xa0\x90\x03"


@pytest.mark.parametrize(
    "fields",
    [
        ["", "", [], -1],
        ["", "", [], 2**32],
        ["", "", [], 1, 1, 2],
        ["", "", [], 1, 1, 0, 2],
        ["", "", [], 1, 1, 0, 0, "because"],
        ["", "", [[128, "", "", ""]]],
        ["", "", [[-1, "", "", ""]]],
        ["", "", [], 0, 0, 0, 0, None, [["a", math.nan, b"", []]]],
        ["", "", [], 0, 0, 0, 0, None, [["a", 0.0, b"", [["b", -math.inf, b""]]]]],
        ["", "", [], 0, 0, 0, 0, None, None, None, 1],
        [1],
        {},
    ],
)
def test_an_impossible_delta_is_refused(fields: object) -> None:
    with pytest.raises(MalformedError):
        deltas.decode(msgspec.msgpack.encode(fields))


@given(st.binary(max_size=100))
def test_decoding_arbitrary_bytes_raises_nothing_but_edge_errors(data: bytes) -> None:
    with contextlib.suppress(EdgeError):
        deltas.decode(data)


def test_an_oversized_delta_is_refused_on_both_sides() -> None:
    big = "x" * deltas.MAX_DELTA_BYTES
    with pytest.raises(MalformedError):
        deltas.encode(Delta(big))
    with pytest.raises(MalformedError):
        deltas.decode(msgspec.msgpack.encode([big]))


def test_text_with_a_lone_surrogate_is_not_sealed() -> None:
    with pytest.raises(MalformedError):
        deltas.encode(Delta("\ud800"))
    with pytest.raises(MalformedError):
        canonical_bytes(chat(messages=[{"role": "user", "content": json.loads('"\\ud800"')}]))


def test_content_means_text_reasoning_or_a_call() -> None:
    assert not Delta(prompt_tokens=5, completion_tokens=2).has_content
    for delta in (Delta("a"), Delta(reasoning="a"), Delta(tool_calls=(ToolCallPart(0),))):
        assert delta.has_content
        assert "'a'" not in repr(delta)
