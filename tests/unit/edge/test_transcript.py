"""Digests of an answer do not depend on how it was cut."""

import hashlib
import hmac
import itertools

import pytest
from darkbloom_edge.delta import Delta, ToolCallPart
from darkbloom_edge.errors import MalformedError
from darkbloom_edge.transcript import (
    Transcript,
    body_digest,
    keyed_digest,
    tool_call_digest,
)
from hypothesis import given
from hypothesis import strategies as st

KEY = bytes(range(32))
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


def fed(*deltas: Delta) -> Transcript:
    transcript = Transcript(KEY)
    transcript.request(b"{}")
    for delta in deltas:
        transcript.feed(delta)
    return transcript


def pieces(whole: str, cuts: list[int]) -> list[str]:
    edges = [0, *sorted(cut % (len(whole) + 1) for cut in cuts), len(whole)]
    return [whole[a:b] for a, b in itertools.pairwise(edges)]


@given(text, text, text, st.lists(st.integers(0, 40), max_size=5))
def test_digests_are_the_same_however_the_answer_is_cut(
    content: str, reasoning: str, arguments: str, cuts: list[int]
) -> None:
    whole = fed(Delta(content, reasoning, (ToolCallPart(0, "id", "f", arguments),)))
    cut = fed(
        *(Delta(reasoning=piece) for piece in pieces(reasoning, cuts)),
        *(Delta(piece) for piece in pieces(content, cuts)),
        Delta(tool_calls=(ToolCallPart(0, "id", "f"),)),
        *(
            Delta(tool_calls=(ToolCallPart(0, arguments=piece),))
            for piece in pieces(arguments, cuts)
        ),
    )
    assert cut.digests() == whole.digests()
    assert cut.delivered_bytes == whole.delivered_bytes
    assert whole.delivered_bytes == len((content + reasoning + "f" + arguments).encode())
    assert whole.digests().tool_calls == (tool_call_digest(KEY, 0, "f", arguments),)


def test_a_digest_is_what_the_wire_page_says() -> None:
    expected = hmac.new(KEY, b"content\x00" + "é".encode(), hashlib.sha256).hexdigest()
    assert keyed_digest(KEY, "content", "é".encode()) == expected
    assert fed(Delta("é")).digests().content == expected
    assert body_digest(KEY, b"x") == keyed_digest(KEY, "body", b"x")
    assert fed().digests().request == keyed_digest(KEY, "request", b"{}")


def test_equal_texts_in_other_places_have_other_digests() -> None:
    digests = fed(Delta("x", "x", (ToolCallPart(0, "", "x"), ToolCallPart(1, "", "x")))).digests()
    assert len({digests.content, digests.reasoning, *digests.tool_calls}) == 4


def test_digests_can_be_read_in_the_middle() -> None:
    transcript = fed(Delta("a", tool_calls=(ToolCallPart(0, "", "f"),)))
    before = transcript.digests()
    assert before == transcript.digests()
    transcript.feed(Delta(tool_calls=(ToolCallPart(0, arguments="{}"),)))
    assert transcript.digests().tool_calls == (tool_call_digest(KEY, 0, "f", "{}"),)


def test_impossible_transcripts_are_refused() -> None:
    with pytest.raises(MalformedError):
        fed(Delta(tool_calls=(ToolCallPart(1, "", "f"),)))
    with pytest.raises(MalformedError):
        fed(Delta(tool_calls=(ToolCallPart(0, "", "f", "{"), ToolCallPart(0, "", "g"))))
    with pytest.raises(MalformedError):
        Transcript(KEY).digests()
    with pytest.raises(MalformedError):
        Transcript(b"short")
