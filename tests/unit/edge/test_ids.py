"""Ids, sealed values and the strict JSON reader."""

import contextlib
import json
import pickle
import traceback

import pytest
from darkbloom_edge.errors import EdgeError, MalformedError
from darkbloom_edge.ids import id_bytes, id_text, new_id
from darkbloom_edge.sealed import Content, Secret
from darkbloom_edge.strict_json import MAX_DEPTH, canonical_json, parse_json
from hypothesis import given
from hypothesis import strategies as st

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(st.binary(min_size=16, max_size=16))
def test_an_id_is_read_back_as_it_was_written(raw: bytes) -> None:
    assert id_bytes(new_id("req", raw), "req") == raw


def test_two_new_ids_differ() -> None:
    assert new_id("att") != new_id("att")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "req",
        "req_",
        "req_" + "0" * 31,
        "req_" + "0" * 33,
        "req_" + "A" * 32,
        "req_" + "0" * 32 + "\n",
        "att_" + "0" * 32,
        "req_" + "\u0660" * 32,
    ],
)
def test_any_other_spelling_of_an_id_is_refused(text: str) -> None:
    with pytest.raises(MalformedError):
        id_bytes(text, "req")


@pytest.mark.parametrize(("prefix", "raw"), [("", bytes(16)), ("Req", bytes(16)), ("req", b"")])
def test_impossible_ids_are_not_written(prefix: str, raw: bytes) -> None:
    with pytest.raises(MalformedError):
        id_text(prefix, raw)


def test_sealed_values_show_nothing() -> None:
    for value in (Content("canary"), Secret(b"canary")):
        assert "canary" not in f"{value} {value!r} {value:>40} {value}"
        with pytest.raises(TypeError):
            pickle.dumps(value)
    assert Secret(b"a") == Secret(b"a") != Secret(b"b")
    assert Content("x").reveal() == "x"


@given(json_values)
def test_strict_json_reads_what_it_wrote(value: object) -> None:
    assert parse_json(canonical_json(value), max_bytes=10**6) == value


@given(json_values)
def test_strict_json_reads_what_others_write(value: object) -> None:
    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False, indent=2)):
        assert parse_json(text.encode("utf-8", "surrogatepass"), max_bytes=10**6) == value


@given(
    st.binary(max_size=200) | st.text(alphabet='{}[]",:\\ u0a1e-.tf\n', max_size=60).map(str.encode)
)
def test_strict_json_raises_nothing_but_edge_errors(data: bytes) -> None:
    with contextlib.suppress(EdgeError):
        parse_json(data, max_bytes=150)


def test_the_document_does_not_travel_with_the_error() -> None:
    document = b'{"' + bytes.fromhex("63616e617279")
    with pytest.raises(MalformedError) as raised:
        parse_json(document, max_bytes=100)
    assert "canary" not in "".join(traceback.format_exception(raised.value))


@pytest.mark.parametrize(
    "text",
    [
        '{"a":1,"a":2}',
        '{"a":{"b":1,"\\u0062":2}}',
        '[{"x":":"},{"x":1,"x":1}]',
        '"\\ud800"',
        "1e999",
        "NaN",
        "{} {}",
        "[" * 2000 + "]" * 2000,
        "[" * (MAX_DEPTH + 2) + "]" * (MAX_DEPTH + 2),
        "\ufeff{}",
    ],
)
def test_ambiguous_json_is_refused(text: str) -> None:
    with pytest.raises(MalformedError):
        parse_json(text.encode(), max_bytes=10**6)


def test_what_json_cannot_carry_is_not_written() -> None:
    for value in ("\ud800", {"x": 2**70}, {1: 2}, object()):
        with pytest.raises(MalformedError):
            canonical_json(value)
