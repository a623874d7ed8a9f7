"""One answer in a hundred is counted again, and who claims too much is seen."""

import asyncio
from collections.abc import Sequence

import pytest
from darkbloom_edge.delta import Delta, ToolCallPart
from darkbloom_gateway.meters import Meters
from darkbloom_gateway.recount import (
    MAX_BYTES,
    MAX_WAITING,
    Claim,
    Recounts,
    Sample,
    has_drifted,
)
from darkbloom_gateway.tokenizers import Tokenizers
from darkbloom_mesh.telemetry import Metrics
from darkbloom_mesh.testing import settle
from prometheus_client import generate_latest


class Words(Tokenizers):
    """Counts words, of one build."""

    def __init__(self) -> None:
        self.here = True

    @property
    def any(self) -> bool:
        return self.here

    def count(self, builds: object, texts: Sequence[str]) -> int | None:
        return None if builds != ["b"] else sum(len(text.split()) for text in texts)


@pytest.mark.parametrize(
    ("claimed", "counted", "drifts"),
    [
        (0, 0, False),
        (16, 0, False),
        (17, 0, True),
        (1000, 1000, False),
        (1000, 934, False),
        (1000, 933, True),
        (933, 1000, True),
    ],
)
def test_more_than_a_twentieth_and_some_markers_is_a_fault(
    claimed: int, counted: int, drifts: bool
) -> None:
    assert has_drifted(claimed, counted) is drifts


def test_one_in_a_hundred_is_drawn_and_none_without_a_tokenizer() -> None:
    words, drawn = Words(), iter(range(1 << 16))
    recounts = Recounts(words, Meters(Metrics(version="test")), lambda n: next(drawn).to_bytes(n))
    found = sum(recounts.sample() is not None for _ in range(1 << 16))
    assert found == (1 << 16) // 100
    words.here = False
    assert recounts.sample() is None


def test_texts_are_kept_whole_and_never_shown() -> None:
    sample = Sample()
    sample.feed(Delta(reasoning="hm "))
    sample.feed(Delta(text="a b"))
    sample.feed(Delta(text=" c", reasoning="ok"))
    assert sample.texts() == ["hm ok", "a b c"]
    assert "a b" not in repr(sample)
    assert "a b" not in repr(Claim("b", "p", 1, sample.texts()))


def test_calls_and_very_long_answers_are_not_counted() -> None:
    call = Delta(tool_calls=(ToolCallPart(index=0, id="c", name="f", arguments="{}"),))
    for delta in (call, Delta(text="x" * (MAX_BYTES + 1))):
        sample = Sample()
        sample.feed(Delta(text="a"))
        sample.feed(delta)
        sample.feed(Delta(text="b"))
        assert not sample.usable
        assert sample.texts() == ["", ""]


async def test_who_claims_too_much_is_counted_by_build() -> None:
    metrics = Metrics(version="test")
    recounts = Recounts(Words(), Meters(metrics), bytes)
    text = "word " * 100
    for claimed, build in ((500, "other"), (100, "b"), (130, "b")):
        recounts.submit(Claim(build, "prov_1", claimed, [text]))
    running = asyncio.ensure_future(recounts.run())
    async with asyncio.timeout(20):
        while generate_latest(metrics.registry).count(b'token_recounts_total{model="b"') < 2:
            await settle()
    running.cancel()
    await asyncio.wait({running})

    said = generate_latest(metrics.registry).decode()
    assert 'darkbloom_token_recounts_total{model="b",outcome="agrees"} 1.0' in said
    assert 'darkbloom_token_recounts_total{model="b",outcome="drift"} 1.0' in said
    assert said.count("token_recounts_total{") == 2


async def test_what_finds_no_room_is_let_go() -> None:
    recounts = Recounts(Words(), Meters(Metrics(version="test")), bytes)
    for _ in range(MAX_WAITING + 5):
        recounts.submit(Claim("b", "p", 1, ["x"]))
