"""Text is split the same however it arrives, and markers never leak."""

import itertools
from collections.abc import Iterable

import pytest
from darkbloom_edge.delta import ToolCallPart
from darkbloom_provider.engine.splitter import Channel, Pieces, Splitter
from hypothesis import given
from hypothesis import strategies as st

CALL = '<tool_call>{"name": "f", "arguments": {"a": 1}}</tool_call>'


def splitter(
    stops: tuple[str, ...] = (),
    *,
    reasoning: bool = True,
    tools: bool = True,
    start: Channel = Channel.CONTENT,
) -> Splitter:
    ids = itertools.count()
    return Splitter(
        stops=stops,
        reasoning=reasoning,
        tools={"f": None} if tools else None,
        start=start,
        new_call_id=lambda: f"call_{next(ids)}",
    )


def feed(split: Splitter, parts: list[str]) -> tuple[str, str, list[ToolCallPart]]:
    got: list[Pieces] = []
    for part in parts:
        got.append(split.push(part))
        if split.stop_sequence is not None:
            break
    else:
        got.append(split.finish())
    return (
        "".join(piece.text for piece in got),
        "".join(piece.reasoning for piece in got),
        joined(part for piece in got for part in piece.tool_calls),
    )


def joined(parts: Iterable[ToolCallPart]) -> list[ToolCallPart]:
    """Put the pieces of each call together, as a consumer does."""
    calls: list[ToolCallPart] = []
    for part in parts:
        if part.index == len(calls):
            assert part.id
            assert part.name
            calls.append(part)
            continue
        last = calls.pop()
        assert (part.index, part.id, part.name) == (last.index, "", "")
        calls.append(ToolCallPart(last.index, last.id, last.name, last.arguments + part.arguments))
    return calls


def test_reasoning_is_never_mixed_into_content() -> None:
    assert feed(splitter(), ["<think>why</think>because"]) == ("because", "why", [])


def test_reasoning_may_begin_in_the_prompt() -> None:
    assert feed(splitter(start=Channel.REASONING), ["why</think>x"]) == ("x", "why", [])


def test_a_tool_call_becomes_one_part_with_its_arguments() -> None:
    text, _, calls = feed(splitter(), ["ok ", CALL, CALL])

    assert text == "ok "
    assert calls == [
        ToolCallPart(index=0, id="call_0", name="f", arguments='{"a": 1}'),
        ToolCallPart(index=1, id="call_1", name="f", arguments='{"a": 1}'),
    ]


@pytest.mark.parametrize(
    "payload", ["{", "[]", '{"name": 1}', '{"arguments": {}}', "[" * 20_000, ""]
)
def test_a_payload_that_is_no_call_is_given_word_for_word(payload: str) -> None:
    raw = f"<tool_call>{payload}</tool_call>!"

    assert feed(splitter(), [raw]) == (raw, "", [])


def test_an_unfinished_call_is_given_word_for_word() -> None:
    assert feed(splitter(), ['<tool_call>{"na'])[0] == '<tool_call>{"na'


def test_tool_payloads_are_opaque_to_stop_strings_and_think_tags() -> None:
    call = '<tool_call>{"name":"f","arguments":{"q":"<think>STOP"}}</tool_call>'
    _, reasoning, calls = feed(splitter(("STOP",)), [call])

    assert reasoning == ""
    assert calls[0].arguments == '{"q":"<think>STOP"}'


def test_tags_mean_nothing_where_they_are_switched_off() -> None:
    raw = f"<think>x</think>{CALL}"

    assert feed(splitter(reasoning=False, tools=False), [raw]) == (raw, "", [])


def test_only_a_possible_marker_is_held_back() -> None:
    split = splitter(("END",))

    assert split.push("abc").text == "abc"
    assert split.push("E").text == ""
    assert split.push("N").text == ""
    assert split.push("x").text == "ENx"
    assert split.push(" EN").text == " "
    assert split.finish().text == "EN"


def test_the_stop_string_that_is_complete_first_wins() -> None:
    split = splitter(("abc", "b"))

    assert split.push("xabc").text == "xa"
    assert split.stop_sequence == "b"


@given(
    text=st.text("abc", max_size=40),
    stop=st.text("abc", min_size=1, max_size=5),
    cuts=st.lists(st.integers(0, 40), max_size=8),
)
def test_a_stop_string_ends_the_text_where_it_first_occurs(
    text: str, stop: str, cuts: list[int]
) -> None:
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    parts = [text[a:b] for a, b in itertools.pairwise(edges)]
    split = splitter((stop,))

    got, _, _ = feed(split, parts)

    assert got == text.partition(stop)[0]
    assert (split.stop_sequence is not None) == (stop in text)


@given(
    pieces=st.lists(
        st.sampled_from(
            ["<think>", "</think>", "<tool_call>", "</tool_call>", CALL, "<", "x", "é"]
        ),
        max_size=12,
    ),
    size=st.integers(1, 7),
)
def test_the_size_of_the_pieces_changes_nothing(pieces: list[str], size: int) -> None:
    text = "".join(pieces)
    parts = [text[at : at + size] for at in range(0, len(text), size)]

    assert feed(splitter(), parts) == feed(splitter(), [text])
