"""Grammars hold what they promise, against a vocabulary of bytes and against another library."""

import itertools
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jsonschema
import pytest
from darkbloom_provider.engine.constraint import (
    MAX_GRAMMARS,
    GrammarCompiler,
    GrammarConstraint,
)
from darkbloom_provider.engine.errors import EngineError, ErrorReason
from darkbloom_provider.engine.grammar import Calls, Function, Thinking, answer_grammar
from darkbloom_provider.engine.schema import MAX_SAFE_INTEGER, narrowed
from darkbloom_provider.engine.tools.families import DEFAULT, HARMONY, LLAMA3, MISTRAL
from darkbloom_provider.engine.wanted import grammar_of, wanted_of
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.provider.engine.support import request, tiny_tokenizer
from tests.unit.provider.models import tiny_gguf

TOKENIZER = tiny_tokenizer()
COMPILER = GrammarCompiler(TOKENIZER)
THINK = Thinking(before=("<think>",), close="</think>", after=(), opened=False)
FUNCTIONS = [
    Function("f", {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}),
    Function("g", None),
]


def no_marker(_name: str) -> int | None:
    return None


def permits(constraint: GrammarConstraint, tokens: list[int]) -> bool:
    """Feed tokens one by one, each only if the mask allows it."""
    last = 0
    for place, token in enumerate(tokens):
        mask = constraint.allowed(place, last)
        if mask is None or not mask[token >> 3] >> (token & 7) & 1:
            return False
        last = token
    return True


def holds(grammar: str, text: str) -> bool:
    """Whether a whole answer may be this text."""
    return permits(COMPILER.compile(grammar), [*TOKENIZER.encode(text), tiny_gguf.EOS])


def schema_holds(schema: dict[str, Any], text: str) -> bool:
    return holds(answer_grammar(schema=schema, marker=no_marker), text)


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"type": "integer"}, "-12", "1.5"),
        ({"type": "integer"}, str(MAX_SAFE_INTEGER), "9" * 40),
        ({"enum": ["a", 1, None]}, "null", '"b"'),
        ({"type": "string", "maxLength": 2}, '"äö"', '"abc"'),
        ({"type": "string", "pattern": "^[ab]+$"}, '"abba"', '"abc"'),
        ({"type": "string", "format": "date"}, '"2026-01-31"', '"soon"'),
        ({"type": "array", "items": {"type": "boolean"}, "minItems": 1}, "[true, false]", "[]"),
        ({"type": ["string", "null"]}, "null", "1"),
        ({"type": "object", "properties": {"a": {"type": "null"}}}, '{"a": null}', '{"b": 1}'),
        ({"type": "object", "additionalProperties": False}, "{}", '{"b": 1}'),
        ({"allOf": [{"minimum": 3}, {"maximum": 5, "type": "integer"}]}, "4", "6"),
        ({"$ref": "#/$defs/n", "$defs": {"n": {"type": "integer"}}}, "7", '"7"'),
    ],
)
def test_a_grammar_lets_through_what_its_schema_does(
    schema: dict[str, Any], good: str, bad: str
) -> None:
    jsonschema.validate(json.loads(good), schema)
    assert schema_holds(schema, good)
    assert not schema_holds(schema, bad)
    assert not schema_holds(schema, good + "x")


def test_no_answer_ends_before_it_is_whole() -> None:
    whole = '{"a": [1, {"b": "c"}]}'
    grammar = answer_grammar(schema={"type": "object"}, marker=no_marker)

    assert holds(grammar, whole)
    for end in range(len(whole)):
        assert not holds(grammar, whole[:end])


def test_properties_come_in_the_order_of_required() -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"type": "null"}, "z": {"type": "null"}},
        "required": ["z", "a"],
    }

    assert schema_holds(schema, '{"z": null, "a": null}')
    assert not schema_holds(schema, '{"a": null, "z": null}')


SCHEMAS = st.recursive(
    st.sampled_from(
        [
            {"type": "integer"},
            {"type": "string", "maxLength": 3},
            {"type": "boolean"},
            {"enum": [1, "x"]},
        ]
    ),
    lambda inner: st.one_of(
        st.builds(lambda item: {"type": "array", "items": item, "maxItems": 2}, inner),
        st.builds(
            lambda one, two: {
                "type": "object",
                "properties": {"a": one, "b": two},
                "required": ["b"],
            },
            inner,
            inner,
        ),
        st.builds(lambda one: {"anyOf": [one, {"type": "null"}]}, inner),
    ),
    max_leaves=4,
)


@settings(max_examples=40, deadline=None)
@given(schema=SCHEMAS, draws=st.lists(st.integers(0, 2**16), min_size=200, max_size=200))
def test_whatever_a_model_draws_validates(schema: dict[str, Any], draws: list[int]) -> None:
    constraint = COMPILER.compile(answer_grammar(schema=schema, marker=no_marker))
    tokens: list[int] = []
    for draw in draws:
        mask = constraint.allowed(len(tokens), tokens[-1] if tokens else 0)
        assert mask is not None
        possible = [
            token for token in range(TOKENIZER.vocabulary) if mask[token >> 3] >> (token & 7) & 1
        ]
        assert possible, "there is always a way on"
        token = possible[draw % len(possible)]
        if token == tiny_gguf.EOS:
            break
        tokens.append(token)
    else:
        return  # Not at its end yet: nothing is promised.
    written = b"".join(TOKENIZER.token_bytes(token) for token in tokens).decode()
    jsonschema.validate(json.loads(written), schema)


@pytest.mark.parametrize(
    ("frame", "call"),
    [
        (DEFAULT.frame, '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>'),
        (LLAMA3.frame, '{"name": "f", "parameters": {"a": 1}}'),
        (MISTRAL.frame, '[TOOL_CALLS][{"name": "f", "arguments": {"a": 1}}]'),
        (
            HARMONY.frame,
            '<|channel|>commentary to=functions.f <|constrain|>json<|message|>{"a": 1}',
        ),
    ],
    ids=["default", "llama3", "mistral", "harmony"],
)
def test_a_forced_call_is_written_as_the_family_writes_it(frame: Any, call: str) -> None:
    grammar = answer_grammar(calls=Calls(FUNCTIONS, frame), marker=no_marker)

    assert holds(grammar, call)
    assert not holds(grammar, call.replace('"a": 1', '"a": "1"'))
    assert not holds(grammar, "I would rather not.")


def test_calls_may_stand_side_by_side_only_where_that_was_allowed() -> None:
    call = '<tool_call>\n{"name": "g", "arguments": {}}\n</tool_call>'
    assert DEFAULT.frame is not None
    for most in (1, 2):
        grammar = answer_grammar(calls=Calls(FUNCTIONS, DEFAULT.frame, most), marker=no_marker)
        for count in (1, 2, 3):
            assert holds(grammar, "\n".join([call] * count)) == (count <= most)


def test_thinking_is_free_and_must_be_closed() -> None:
    schema = {"type": "boolean"}
    grammar = answer_grammar(schema=schema, marker=no_marker, thinking=THINK)
    opened = answer_grammar(schema=schema, marker=no_marker, thinking=THINK._replace(opened=True))

    assert holds(grammar, "true")
    assert holds(grammar, "<think>{ hm </think>\n\ntrue")
    assert not holds(grammar, "<think>true")
    assert holds(opened, "hm</think>true")
    assert not holds(opened, "true")


def test_a_schema_beside_tools_lets_the_model_choose() -> None:
    tool = {"type": "function", "function": {"name": "g"}}
    asked = request(response_format={"type": "json_object"}, tools=[tool])
    grammar = grammar_of(wanted_of(asked, TOKENIZER), TOKENIZER, reasoning=False, opened=False)

    assert grammar is not None
    assert holds(grammar, '{"x": 1}')
    assert holds(grammar, '<tool_call>\n{"name": "g", "arguments": {}}\n</tool_call>')
    assert not holds(grammar, "text")


@pytest.mark.parametrize(
    "schema",
    [
        False,
        {"type": "string", "pattern": "("},
        {"type": "string", "pattern": "(?=a)b"},
        {"type": "integer", "minimum": 3, "maximum": 2},
        {"oneOf": [{"type": "number"}, {"type": "integer"}]},
        {"type": "nothing"},
    ],
)
def test_a_schema_that_does_not_compile_is_a_typed_refusal(schema: Any) -> None:
    wrapped = {"type": "object", "properties": {"canary": schema}, "required": ["canary"]}
    with pytest.raises(EngineError) as refused:
        COMPILER.compile(answer_grammar(schema=wrapped, marker=no_marker))

    assert refused.value.reason is ErrorReason.UNSUPPORTED_SCHEMA
    assert refused.value.status == 400
    assert "canary" not in str(refused.value)


def test_options_of_the_compiler_cannot_be_smuggled_in() -> None:
    schema = {"type": "integer", "x-guidance": {"lenient": True, "whitespace_flexible": True}}

    assert "x-guidance" not in narrowed(schema)
    assert not schema_holds({"type": "array", "items": schema}, "[1,  2]")


def test_kept_grammars_are_bounded_and_rows_do_not_share_a_state() -> None:
    compiler = GrammarCompiler(TOKENIZER)
    grammars = [
        answer_grammar(schema={"const": index}, marker=no_marker)
        for index in range(MAX_GRAMMARS + 5)
    ]
    for grammar in grammars:
        compiler.compile(grammar)
    one, other = (compiler.compile(grammars[-1]) for _ in range(2))
    text = [*TOKENIZER.encode(str(MAX_GRAMMARS + 4)), tiny_gguf.EOS]

    assert len(compiler._kept) == MAX_GRAMMARS
    with ThreadPoolExecutor(1) as thread:
        # Compiled on one thread, followed on another, as in the engine.
        assert thread.submit(permits, one, text).result()
    assert permits(other, text)


def test_a_row_that_was_fed_what_was_forbidden_is_broken() -> None:
    constraint = COMPILER.compile(answer_grammar(schema={"type": "boolean"}, marker=no_marker))
    (wrong,) = TOKENIZER.encode("x")

    assert constraint.allowed(0, 0) is not None
    assert constraint.allowed(1, wrong) is None
    assert constraint.broken


def test_asking_twice_at_one_place_changes_nothing() -> None:
    constraint = COMPILER.compile(answer_grammar(schema={"const": "ab"}, marker=no_marker))
    for place, token in enumerate(itertools.chain([0], TOKENIZER.encode('"ab"'))):
        assert constraint.allowed(place, token) == constraint.allowed(place, token)
    assert not constraint.broken


def test_a_build_without_an_end_cannot_hold_a_promise() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.end_tokens = frozenset()

    with pytest.raises(EngineError):
        GrammarCompiler(tokenizer).compile(answer_grammar(schema={}, marker=no_marker))
