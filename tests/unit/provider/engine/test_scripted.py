"""The scripted engine does what its script says, and serves nothing but `dev/`."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from darkbloom_edge.media import MediaKind, part_of
from darkbloom_edge.request import ChatRequest
from darkbloom_mesh.clock import SystemClock
from darkbloom_mesh.testing import FakeClock, settle
from darkbloom_provider.engine.errors import EngineError, ErrorReason
from darkbloom_provider.engine.interface import PAUSE_SLACK_DELTAS, Build, OutcomeKind
from darkbloom_provider.engine.script import Script, parse_script
from darkbloom_provider.engine.scripted import ScriptedEngine
from hypothesis import given
from hypothesis import strategies as st

from tests.media import png
from tests.unit.provider.engine.support import RecordingSink, job

BUILD = "dev/scripted"
IMAGE = MediaKind.IMAGE


def request_of(content: list[dict[str, Any]]) -> ChatRequest:
    return ChatRequest(model=BUILD, messages=[{"role": "user", "content": content}], max_tokens=64)


@asynccontextmanager
async def engine_of(script: Script | None = None, **options: Any) -> AsyncIterator[ScriptedEngine]:
    engine = ScriptedEngine(script=script, **({"clock": SystemClock()} | options))
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(engine.run())
        await settle()
        try:
            await engine.load(Build(build_id=BUILD))
            yield engine
        finally:
            await engine.close()


async def play(text: str = "hi", script: Script | None = None, **fields: Any) -> RecordingSink:
    async with engine_of(script) as engine:
        sink = RecordingSink()
        await engine.submit(job(text=text, build_id=BUILD, **fields), sink)
        await sink.end()
    return sink


async def test_the_same_request_gets_the_same_words() -> None:
    first, second = await play(), await play()

    assert first.text == second.text
    assert len(first.deltas) == 16
    assert first.outcome is not None
    assert first.outcome.usage == (1, 16, 0, 0)


async def test_only_builds_of_dev_are_served() -> None:
    async with engine_of() as engine:
        with pytest.raises(EngineError, match="dev/"):
            await engine.load(Build(build_id="mlx-community/real"))
        with pytest.raises(EngineError) as caught:
            await engine.submit(job(build_id="dev/unknown"), RecordingSink())

    assert caught.value.status == 404


async def test_a_directive_overrides_the_script_for_one_request() -> None:
    sink = await play('/script {"text": "one two", "reasoning": "hmm ok"}', Script(tokens=3))

    assert sink.text == "one two"
    assert "".join(delta.reasoning for delta in sink.deltas) == "hmm ok"
    assert sink.outcome is not None
    assert sink.outcome.usage.completion_tokens == 4
    assert sink.outcome.usage.reasoning_tokens == 2


async def test_tool_calls_json_and_wrong_counts_can_be_played() -> None:
    called = await play(
        script=Script(
            text="",
            tool_calls=parse_script(
                '{"tool_calls": [{"name": "f", "arguments": {"a": 1}}]}'
            ).tool_calls,
        )
    )
    data = await play('/script {"json": {"a": [1, 2]}}')
    lying = await play(script=Script(tokens=2, inflate_tokens=100))

    assert called.deltas[0].tool_calls[0].arguments == '{"a":1}'
    assert called.outcome is not None
    assert called.outcome.finish_reason == "tool_calls"
    assert json.loads(data.text) == {"a": [1, 2]}
    assert [delta.completion_tokens for delta in lying.deltas] == [101, 102]


async def test_several_tokens_travel_in_one_delta() -> None:
    sink = await play(script=Script(tokens=10, delta_tokens=4))

    assert [delta.completion_tokens for delta in sink.deltas] == [4, 8, 10]


async def test_limits_and_stop_strings_end_the_answer() -> None:
    short = await play(script=Script(tokens=100), max_tokens=5)
    bounded = await play(script=Script(tokens=100), output_bound=4)
    stopped = await play('/script {"text": "one two three"}', stop=["wo t"])

    assert short.outcome is not None
    assert (short.outcome.finish_reason, len(short.deltas)) == ("length", 5)
    assert len(bounded.deltas) == 4
    assert stopped.text == "one t"
    assert stopped.outcome is not None
    assert stopped.outcome.stop_sequence == "wo t"


async def test_failures_come_where_the_script_says() -> None:
    before = await play(script=Script(fail_before_content=True))
    after = await play(script=Script(fail_after_deltas=3))

    assert (len(before.deltas), len(after.deltas)) == (0, 3)
    for sink in (before, after):
        assert sink.outcome is not None
        assert sink.outcome.kind is OutcomeKind.ERROR


async def test_refusals_carry_the_scripted_reason() -> None:
    async with engine_of(Script(refuse=ErrorReason.TOKEN_BUDGET_EXHAUSTED)) as engine:
        with pytest.raises(EngineError) as caught:
            await engine.submit(job(build_id=BUILD), RecordingSink())
        with pytest.raises(EngineError) as over:
            await engine.submit(
                job(text='/script {"prompt_tokens": 500}', build_id=BUILD), RecordingSink()
            )

    assert caught.value.reason is ErrorReason.TOKEN_BUDGET_EXHAUSTED
    assert over.value.reason is ErrorReason.BOUND_EXCEEDED


async def test_a_stalled_answer_waits_for_its_cancel() -> None:
    async with engine_of(Script(stall_after_deltas=2)) as engine:
        sink = RecordingSink()
        await engine.submit(job(build_id=BUILD), sink)
        await settle()
        assert len(sink.deltas) == 2
        engine.cancel("j")
        outcome = await sink.end()

    assert outcome.kind is OutcomeKind.CANCELLED
    assert outcome.usage.completion_tokens == 2


async def test_the_pace_is_that_of_the_clock() -> None:
    clock = FakeClock()
    async with engine_of(Script(tokens=3, first_delay_s=1, interval_s=0.5), clock=clock) as engine:
        sink = RecordingSink()
        await engine.submit(job(build_id=BUILD), sink)
        seen = []
        for _ in range(4):
            await settle()
            seen.append(len(sink.deltas))
            await clock.advance(0.5)
        await sink.end()

    assert seen == [0, 0, 1, 2]


async def test_a_paused_job_stops_within_the_slack_and_goes_on() -> None:
    async with engine_of(Script(tokens=30)) as engine:
        sink = RecordingSink()
        await engine.submit(job(build_id=BUILD), sink)
        engine.pause("j")
        await settle()
        held = len(sink.deltas)
        engine.resume("j")
        await sink.end()

    assert held <= PAUSE_SLACK_DELTAS
    assert len(sink.deltas) == 30


async def test_closing_cancels_and_a_full_engine_refuses() -> None:
    async with engine_of(Script(stall_after_deltas=0), max_concurrency=1) as engine:
        sink = RecordingSink()
        await engine.submit(job(build_id=BUILD), sink)
        with pytest.raises(EngineError) as full:
            await engine.submit(job("k", build_id=BUILD), RecordingSink())
        with pytest.raises(EngineError) as twice:
            await engine.submit(job(build_id=BUILD), RecordingSink())

    assert (await sink.end()).kind is OutcomeKind.CANCELLED
    assert full.value.reason is ErrorReason.QUEUE_FULL
    assert twice.value.status == 409


@given(st.text(max_size=80))
def test_any_text_is_a_script_or_a_typed_error(text: str) -> None:
    with contextlib.suppress(EngineError):
        parse_script(text)


@given(st.text(max_size=60))
async def test_the_answer_is_the_scripted_text_to_the_letter(text: str) -> None:
    sink = await play(script=Script(text=text), max_tokens=1000)

    assert sink.text == text


async def test_it_is_fast_enough_to_load_a_mesh() -> None:
    async with engine_of(Script(tokens=20_000)) as engine:
        sink = RecordingSink()
        began = time.perf_counter()
        await engine.submit(job(build_id=BUILD, max_tokens=20_000, output_bound=20_000), sink)
        await sink.end()
        spent = time.perf_counter() - began

    assert len(sink.deltas) == 20_000
    assert len(sink.deltas) / spent > 5_000


async def test_a_build_with_eyes_says_what_it_was_shown_and_one_without_refuses() -> None:
    content = [{"type": "text", "text": '/script {"describe": true}'}, part_of(png(), IMAGE)]
    shown = replace(job(build_id="dev/eyes"), request=request_of(content))
    async with engine_of() as engine:
        await engine.load(Build(build_id="dev/eyes", vision=True))
        sink = RecordingSink()
        await engine.submit(shown, sink)
        await sink.end()
        with pytest.raises(EngineError, match="text only"):
            await engine.submit(replace(shown, build_id=BUILD), RecordingSink())

    assert sink.text == f"image/png 3x2 {len(png())} bytes"
    assert sink.outcome is not None
    # Words of the directive, and the image.
    assert sink.outcome.usage.prompt_tokens == 3 + 300
