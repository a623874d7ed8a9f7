"""Each family's calls, in the shape in which its models write them, in any chunks."""

import itertools
import json
from collections.abc import Callable
from typing import Any

import pytest
from darkbloom_edge.delta import ToolCallPart
from darkbloom_provider.engine.harmony import HarmonySplitter
from darkbloom_provider.engine.splitter import AnswerSplitter, Channel, Pieces, Splitter
from darkbloom_provider.engine.tools.families import (
    DEFAULT,
    GEMMA,
    GLM,
    HARMONY,
    LFM2,
    LLAMA3,
    MISTRAL,
    MISTRAL_HEADERS,
    NEMOTRON,
    QWEN_XML,
    Family,
    family_of,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.provider.engine.test_splitter import joined

TOOLS: dict[str, dict[str, Any] | None] = {
    "weather": {
        "type": "object",
        "properties": {
            "city": {"type": "string"},
            "days": {"type": "integer"},
            "long": {"type": ["boolean", "null"]},
            "where": {"type": "object"},
        },
    },
    "now": None,
}
WANTED = {"city": 'Aix "en" Provence', "days": 3}


def splitter(
    family: Family = DEFAULT, *, most: int = 128, opaque: bool = False, tools: bool = True
) -> AnswerSplitter:
    ids = itertools.count()
    offered = TOOLS if tools else None

    def new_id() -> str:
        return f"call_{next(ids)}"

    if family.channels:
        return HarmonySplitter(
            tools=offered, most_calls=most, opaque=opaque, new_call_id=new_id, stops=("STOP",)
        )
    return Splitter(
        stops=("STOP",),
        reasoning=True,
        family=family,
        tools=offered,
        most_calls=most,
        opaque=opaque,
        new_call_id=new_id,
    )


def feed(split: AnswerSplitter, parts: list[str]) -> tuple[str, str, list[ToolCallPart]]:
    got: list[Pieces] = []
    for part in parts:
        got.append(split.push(part))
        if split.stop_sequence is not None or split.complete:
            break
    else:
        got.append(split.finish())
    return (
        "".join(piece.text for piece in got),
        "".join(piece.reasoning for piece in got),
        joined(part for piece in got for part in piece.tool_calls),
    )


SAMPLES: dict[str, tuple[Family, str]] = {
    "default": (
        DEFAULT,
        (
            "<tool_call>\n"
            '{"name": "weather", "arguments": {"city": "Aix \\"en\\" Provence", "days": 3}}\n'
            "</tool_call>"
        ),
    ),
    "arguments first": (
        DEFAULT,
        (
            '<tool_call>{"arguments": {"city": "Aix \\"en\\" Provence", "days": 3}, '
            '"name": "weather"}</tool_call>'
        ),
    ),
    "arguments as text": (
        DEFAULT,
        (
            '<tool_call>{"name": "weather", "arguments": '
            '"{\\"city\\": \\"Aix \\\\\\"en\\\\\\" Provence\\", \\"days\\": 3}"}</tool_call>'
        ),
    ),
    "qwen xml": (
        QWEN_XML,
        (
            "<tool_call>\n<function=weather>\n<parameter=city>\n"
            'Aix "en" Provence\n</parameter>\n<parameter=days>\n3\n</parameter>\n'
            "</function>\n</tool_call>"
        ),
    ),
    "qwen json": (
        QWEN_XML,
        (
            '<tool_call>{"name": "weather", "arguments": '
            '{"city": "Aix \\"en\\" Provence", "days": 3}}</tool_call>'
        ),
    ),
    "nemotron": (
        NEMOTRON,
        (
            '<TOOLCALL>[{"name": "weather", "arguments": '
            '{"city": "Aix \\"en\\" Provence", "days": 3}}]</TOOLCALL>'
        ),
    ),
    "llama 3": (
        LLAMA3,
        '{"name": "weather", "parameters": {"city": "Aix \\"en\\" Provence", "days": 3}}',
    ),
    "llama 3 tagged": (
        LLAMA3,
        (
            '<|python_tag|>{"type": "function", "name": "weather", "parameters": '
            '{"city": "Aix \\"en\\" Provence", "days": 3}}'
        ),
    ),
    "mistral list": (
        MISTRAL,
        (
            '[TOOL_CALLS] [{"name": "weather", "arguments": '
            '{"city": "Aix \\"en\\" Provence", "days": 3}}]'
        ),
    ),
    "mistral header": (
        MISTRAL_HEADERS,
        '[TOOL_CALLS]weather[ARGS]{"city": "Aix \\"en\\" Provence", "days": 3}',
    ),
    "gemma": (
        GEMMA,
        (
            "<start_function_call>call:weather{city:<escape>"
            'Aix "en" Provence<escape>,days:3}<end_function_call>'
        ),
    ),
    "gemma 4": (
        GEMMA,
        '<|tool_call>call:weather{city:<|"|>Aix "en" Provence<|"|>,days:3}<tool_call|>',
    ),
    "lfm2": (
        LFM2,
        "<|tool_call_start|>[weather(city='Aix \"en\" Provence', days=3)]<|tool_call_end|>",
    ),
    "glm": (
        GLM,
        (
            "<tool_call>weather\n<arg_key>city</arg_key>\n<arg_value>"
            'Aix "en" Provence</arg_value>\n<arg_key>days</arg_key>\n<arg_value>3</arg_value>\n'
            "</tool_call>"
        ),
    ),
    "harmony": (
        HARMONY,
        (
            "<|channel|>commentary to=functions.weather <|constrain|>json<|message|>"
            '{"city": "Aix \\"en\\" Provence", "days": 3}<|call|>'
        ),
    ),
}
CASES = pytest.mark.parametrize("sample", SAMPLES)


@CASES
def test_a_call_is_found_with_its_name_and_arguments(sample: str) -> None:
    family, text = SAMPLES[sample]

    content, _, (call,) = feed(splitter(family), [text])

    assert content == ""
    assert call.name == "weather"
    assert json.loads(call.arguments) == WANTED


@CASES
@settings(max_examples=20, deadline=None)
@given(size=st.integers(1, 12), cut=st.integers(0, 200))
def test_chunks_change_nothing_and_neither_does_where_it_ends(
    sample: str, size: int, cut: int
) -> None:
    family, call = SAMPLES[sample]
    text = (call + "\n" + call)[: len(call) * 2 - cut]
    parts = [text[at : at + size] for at in range(0, len(text), size)]

    assert feed(splitter(family), parts) == feed(splitter(family), [text])


@CASES
def test_one_call_is_enough_where_calls_may_not_be_parallel(sample: str) -> None:
    family, text = SAMPLES[sample]
    split = splitter(family, most=1)

    content, _, calls = feed(split, [f"{text}\n{text}"])

    assert (content, len(calls)) == ("", 1)
    assert split.complete


@CASES
def test_without_tools_a_call_is_text(sample: str) -> None:
    family, text = SAMPLES[sample]
    content, reasoning, calls = feed(splitter(family, tools=False), [text])

    assert calls == []
    assert "weather" in text
    assert content + reasoning


def test_the_name_comes_before_the_arguments_and_these_come_as_they_are_written() -> None:
    split = splitter()
    seen = [split.push(char).tool_calls for char in SAMPLES["default"][1]]
    parts = [part for pieces in seen for part in pieces]

    assert (parts[0].name, parts[0].arguments) == ("weather", "{")
    assert len(parts) > 30
    assert all(len(part.arguments) == 1 for part in parts[1:])


BROKEN: list[tuple[Family, str]] = [
    (
        QWEN_XML,
        "<tool_call><function=weather><parameter=days>many</parameter></function></tool_call>",
    ),
    (QWEN_XML, "<tool_call><function=weather>what</function></tool_call>"),
    (GLM, "<tool_call>two words</tool_call>"),
    (GEMMA, "<start_function_call>call:weather{days:many}<end_function_call>"),
    (GEMMA, "<start_function_call>weather<end_function_call>"),
    (LFM2, "<|tool_call_start|>[weather('Oslo')]<|tool_call_end|>"),
    (LFM2, "<|tool_call_start|>[weather(days=__import__('os'))]<|tool_call_end|>"),
    (LFM2, "<|tool_call_start|>[weather(days=1e999)]<|tool_call_end|>"),
    (LLAMA3, '{"name": "Ada", "age": 5}'),
    (LLAMA3, '{"name": "unknown", "parameters": {}}'),
    (MISTRAL, "[TOOL_CALLS]two words{}"),
    (NEMOTRON, '<TOOLCALL>{"name": "weather"}</TOOLCALL>'),
    (DEFAULT, '<tool_call>{"name": "\\ud800", "arguments": {}}</tool_call>'),
]


@pytest.mark.parametrize(("family", "text"), BROKEN)
def test_what_is_no_call_is_given_word_for_word(family: Family, text: str) -> None:
    content, _, calls = feed(splitter(family), [text])

    assert (content, calls) == (text, [])


def test_a_call_that_breaks_in_its_arguments_is_given_as_far_as_it_came() -> None:
    _, _, (call,) = feed(
        splitter(), ['<tool_call>{"name": "weather", "arguments": {"a": ]oops</tool_call>']
    )
    assert call.arguments == '{"a": ]oops'

    _, _, (cut,) = feed(splitter(), ['<tool_call>{"name": "weather", "arguments": {"a": 1'])
    assert cut.arguments == '{"a": 1'


def test_markers_inside_of_arguments_are_text() -> None:
    inside = "</tool_call><think>STOP"
    text = f'<tool_call>{{"name": "f", "arguments": {{"q": "{inside}"}}}}</tool_call>after'

    content, reasoning, (call,) = feed(splitter(), [text])

    assert (content, reasoning) == ("after", "")
    assert json.loads(call.arguments) == {"q": inside}


def test_a_value_that_holds_the_closing_tag_stays_whole() -> None:
    text = (
        "<tool_call><function=weather><parameter=city>\na </tool_call> b\n</parameter>"
        "</function></tool_call>"
    )
    _, _, (call,) = feed(splitter(QWEN_XML), [text])

    assert json.loads(call.arguments) == {"city": "a </tool_call> b"}


def test_an_answer_that_follows_a_schema_has_no_markers() -> None:
    text = '{"a": "<think>x</think> STOP <tool_call>"}'

    for family in (DEFAULT, QWEN_XML):
        assert feed(splitter(family, opaque=True), [text])[0] == text
        thought = feed(splitter(family, opaque=True), [f"<think>hm</think>{text}"])
        assert thought == (text, "hm", [])


def test_harmony_has_reasoning_content_and_a_preamble() -> None:
    text = (
        "<|channel|>analysis<|message|>let me see<|end|><|start|>assistant<|channel|>commentary"
        "<|message|>I will look. <|end|><|start|>assistant<|channel|>final<|message|>Done."
    )
    split = splitter(HARMONY)

    assert feed(split, [text]) == ("I will look. Done.", "let me see", [])
    assert split.channel is Channel.CONTENT


def test_harmony_takes_a_recipient_from_the_role_as_well() -> None:
    text = " to=functions.now<|channel|>commentary json<|message|>{}<|call|>"

    _, _, (call,) = feed(splitter(HARMONY), [text])

    assert (call.name, call.arguments) == ("now", "{}")


def test_an_answer_without_channels_is_content() -> None:
    assert feed(splitter(HARMONY), ["Hello", " there"])[0] == "Hello there"


def test_harmony_content_that_follows_a_schema_is_opaque() -> None:
    body = '{"a": "<|end|>STOP"}'

    content = feed(splitter(HARMONY, opaque=True), [f"<|channel|>final<|message|>{body}"])[0]

    assert content == body


@pytest.mark.parametrize(
    ("model_type", "markers", "family"),
    [
        ("gpt_oss", (), HARMONY),
        ("gemma3_text", (), GEMMA),
        ("qwen3_5_moe", (), QWEN_XML),
        ("qwen3_next", (), QWEN_XML),
        ("qwen3", (), DEFAULT),
        ("nemotron_h", (), NEMOTRON),
        ("llama", ("<|python_tag|>",), LLAMA3),
        ("llama", (), DEFAULT),
        ("lfm2_moe", (), LFM2),
        ("glm4_moe", (), GLM),
        ("mistral3", (), MISTRAL),
        ("mistral3", ("[ARGS]",), MISTRAL_HEADERS),
        ("", (), DEFAULT),
    ],
)
def test_the_family_follows_from_the_model_type(
    model_type: str, markers: tuple[str, ...], family: Family
) -> None:
    has: Callable[[str], bool] = markers.__contains__

    assert family_of(model_type, has) is family
