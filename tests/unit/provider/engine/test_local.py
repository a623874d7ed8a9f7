"""The engine around a model: admission, order, cancels, pauses, failures and the end."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from darkbloom_mesh.testing import FakeClock
from darkbloom_provider.engine.batch import RowSpec
from darkbloom_provider.engine.errors import EngineError, ErrorReason, FailureCode
from darkbloom_provider.engine.interface import PAUSE_SLACK_DELTAS, Build, OutcomeKind, SlotStatus
from darkbloom_provider.engine.limits import EngineLimits
from darkbloom_provider.engine.local import LocalEngine

from tests.unit.provider.engine.support import (
    PlannedLoader,
    RecordingSink,
    job,
    tiny_tokenizer,
    write_tokenizer,
)
from tests.unit.provider.engine.test_splitter import joined
from tests.unit.provider.models import tiny_gguf

TOKENIZER = tiny_tokenizer()
HELLO = [*TOKENIZER.encode("hello world"), tiny_gguf.EOS]
ENDLESS = TOKENIZER.encode(" x")


@pytest.fixture
def files(tmp_path: Path) -> Path:
    write_tokenizer(tmp_path)
    return tmp_path


@asynccontextmanager
async def engine_of(
    files: Path,
    plan: Callable[[RowSpec], list[int]] = lambda _spec: HELLO,
    *,
    kv_budget_bytes: int = 1_000_000,
    max_concurrency: int = 4,
    max_waiting: int = 4,
) -> AsyncIterator[tuple[LocalEngine, PlannedLoader]]:
    loader = PlannedLoader(plan)
    engine = LocalEngine(
        loader=loader,
        limits=EngineLimits(
            kv_budget_bytes=kv_budget_bytes,
            max_concurrency=max_concurrency,
            max_waiting=max_waiting,
        ),
        clock=FakeClock(),
        draw=lambda bits: (1 << bits) - 1,
    )
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(engine.run())
        try:
            await engine.load(Build(build_id="org/tiny", directory=files))
            yield engine, loader
        finally:
            await engine.close()
    assert loader.closed


async def refused(engine: LocalEngine, job_id: str = "j", **fields: object) -> EngineError:
    with pytest.raises(EngineError) as caught:
        await engine.submit(job(job_id, **fields), RecordingSink())
    return caught.value


async def test_an_answer_comes_in_order_with_exact_counts(files: Path) -> None:
    async with engine_of(files) as (engine, _):
        sink = RecordingSink()
        await engine.submit(job(), sink)
        outcome = await sink.end()

    assert sink.text == "hello world"
    assert outcome.kind is OutcomeKind.COMPLETED
    assert outcome.finish_reason == "stop"
    assert outcome.usage.completion_tokens == len(HELLO) - 1
    assert outcome.usage.prompt_tokens == sink.deltas[0].prompt_tokens > 0
    counts = [delta.completion_tokens for delta in sink.deltas]
    assert counts == sorted(counts)


async def test_generation_stops_at_the_bound(files: Path) -> None:
    async with engine_of(files, lambda _spec: ENDLESS) as (engine, _):
        sink = RecordingSink()
        await engine.submit(job(output_bound=5), sink)
        outcome = await sink.end()

    assert outcome.finish_reason == "length"
    assert outcome.usage.completion_tokens == 5


async def test_a_stop_string_ends_the_row_in_the_model_too(files: Path) -> None:
    async with engine_of(files, lambda _spec: TOKENIZER.encode("hello ")) as (engine, loader):
        sink = RecordingSink()
        await engine.submit(job(stop=["o h"]), sink)
        outcome = await sink.end()
        rows = loader.models[0].rows

    assert sink.text == "hell"
    assert (outcome.finish_reason, outcome.stop_sequence) == ("stop", "o h")
    assert not rows


async def test_a_stop_string_in_the_last_held_back_text_counts(files: Path) -> None:
    plan = [*TOKENIZER.encode("hello"), tiny_gguf.EOS]
    async with engine_of(files, lambda _spec: plan) as (engine, _):
        sink = RecordingSink()
        await engine.submit(job(stop=["hello"]), sink)
        outcome = await sink.end()

    assert (sink.text, outcome.stop_sequence) == ("", "hello")


async def test_a_cancel_ends_one_row_and_no_other(files: Path) -> None:
    async with engine_of(files, lambda _spec: ENDLESS) as (engine, loader):
        first, second = RecordingSink(), RecordingSink()
        await engine.submit(job("a", max_tokens=400), first)
        await engine.submit(job("b"), second)
        await first.more(2)
        engine.cancel("a")
        outcome = await first.end()
        kept = await second.end()
        engine.cancel("a")
        engine.cancel("never heard of")

    assert outcome.kind is OutcomeKind.CANCELLED
    assert outcome.usage.completion_tokens >= len(first.deltas)
    assert kept.usage.completion_tokens == 32
    assert not loader.models[0].rows


async def test_a_cancel_that_overtakes_the_prompt_still_counts(files: Path) -> None:
    async with engine_of(files, lambda _spec: ENDLESS) as (engine, _):
        sink = RecordingSink()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(engine.submit(job(max_tokens=400), sink))
            asyncio.get_running_loop().call_soon(engine.cancel, "j")
        outcome = await sink.end()

    assert outcome.kind is OutcomeKind.CANCELLED


async def test_a_paused_row_stops_and_the_others_go_on(files: Path) -> None:
    async with engine_of(files, lambda _spec: ENDLESS) as (engine, _):
        slow, quick = RecordingSink(), RecordingSink()
        await engine.submit(job("slow", max_tokens=300), slow)
        await slow.more(1)
        engine.pause("slow")
        at_pause = len(slow.deltas)
        await engine.submit(job("quick", max_tokens=200), quick)
        await quick.end()
        slack = len(slow.deltas) - at_pause
        engine.resume("slow")
        outcome = await slow.end()

    assert slack <= PAUSE_SLACK_DELTAS
    assert slow.outcome is outcome
    assert outcome.usage.completion_tokens == 300


async def test_a_pause_made_inside_a_delta_takes_effect_within_the_slack(files: Path) -> None:
    class Pausing(RecordingSink):
        def on_delta(self, delta: object) -> None:
            super().on_delta(delta)  # type: ignore[arg-type]
            engine.pause("j")

    async with engine_of(files, lambda _spec: ENDLESS) as (engine, _):
        sink, other = Pausing(), RecordingSink()
        await engine.submit(job(max_tokens=400), sink)
        await engine.submit(job("other", max_tokens=50), other)
        await other.end()
        held = len(sink.deltas)
        engine.cancel("j")
        outcome = await sink.end()

    assert held <= 1 + PAUSE_SLACK_DELTAS
    assert outcome.kind is OutcomeKind.CANCELLED


async def test_a_model_that_breaks_ends_its_rows_and_says_crashed(files: Path) -> None:
    async with engine_of(files, lambda _spec: ENDLESS) as (engine, loader):
        sink = RecordingSink()
        await engine.submit(job(), sink)
        loader.models[0].fail_next = RuntimeError("secret prompt text")
        outcome = await sink.end()
        (slot,) = engine.slots()
        error = await refused(engine)
        await engine.load(Build(build_id="org/tiny", directory=files))
        again = RecordingSink()
        await engine.submit(job(max_tokens=2), again)
        recovered = await again.end()

    assert outcome.kind is OutcomeKind.ERROR
    assert outcome.error is not None
    assert outcome.error.code is FailureCode.GENERATION_FAILURE
    assert "secret" not in str(outcome.error)
    assert slot.state is SlotStatus.CRASHED
    assert error.code is FailureCode.MODEL_UNAVAILABLE
    assert recovered.kind is OutcomeKind.COMPLETED


async def test_a_load_that_fails_is_a_typed_error(files: Path, tmp_path: Path) -> None:
    async with engine_of(files) as (engine, loader):
        loader.failure = RuntimeError("boom")
        for build in (
            Build(build_id="org/other", directory=files),
            Build(build_id="org/empty", directory=tmp_path / "nothing"),
            Build(build_id="org/none"),
        ):
            with pytest.raises(EngineError) as caught:
                await engine.load(build)
            assert caught.value.reason is ErrorReason.MODEL_LOAD
        assert [slot.model for slot in engine.slots()] == ["org/tiny"]


async def test_admission_reserves_kv_and_gives_it_back(files: Path) -> None:
    size = len(TOKENIZER.encode("<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"))
    budget = 10 * (size + 32)
    async with engine_of(files, lambda _spec: ENDLESS, kv_budget_bytes=budget) as (engine, _):
        never = await refused(engine, max_tokens=33)
        first = RecordingSink()
        await engine.submit(job("a"), first)
        engine.pause("a")
        now = await refused(engine, "b")
        used = engine.slots()[0].active_token_budget_used
        engine.cancel("a")
        await first.end()
        second = RecordingSink()
        await engine.submit(job("c"), second)
        await second.end()
        (slot,) = engine.slots()

    assert (never.reason, never.status) == (ErrorReason.REQUEST_EXCEEDS_NODE, 413)
    assert (now.reason, now.status) == (ErrorReason.TOKEN_BUDGET_EXHAUSTED, 503)
    assert used == size + 32
    assert slot.active_token_budget_used == 0
    assert slot.active_token_budget_max == size + 32


async def test_a_full_queue_and_a_live_id_are_refused(files: Path) -> None:
    plan = lambda _spec: ENDLESS  # noqa: E731
    async with engine_of(files, plan, max_concurrency=1, max_waiting=1) as (engine, _):
        sinks = [RecordingSink(), RecordingSink()]
        await engine.submit(job("a", max_tokens=400), sinks[0])
        engine.pause("a")
        twice = await refused(engine, "a")
        await engine.submit(job("b", max_tokens=400), sinks[1])
        engine.pause("b")
        full = await refused(engine, "c")
        (slot,) = engine.slots()

    assert twice.status == 409
    assert full.reason is ErrorReason.QUEUE_FULL
    assert (slot.num_running, slot.num_waiting, slot.state) == (1, 1, SlotStatus.RUNNING)


async def test_unknown_builds_and_long_ids_are_refused(files: Path) -> None:
    async with engine_of(files) as (engine, _):
        unknown = await refused(engine, build_id="org/unknown")
        long = await refused(engine, "x" * 300)

    assert (unknown.code, unknown.status) == (FailureCode.MODEL_UNAVAILABLE, 404)
    assert long.status == 400


async def test_unloading_and_closing_cancel_what_lives(files: Path) -> None:
    async with engine_of(files, lambda _spec: ENDLESS) as (engine, loader):
        first = RecordingSink()
        await engine.submit(job(max_tokens=400), first)
        engine.pause("j")
        await engine.unload("org/tiny")
        unloaded = await first.end()
        assert engine.slots() == []
        await engine.load(Build(build_id="org/tiny", directory=files))
        second = RecordingSink()
        await engine.submit(job(max_tokens=400), second)
        engine.pause("j")

    assert unloaded.kind is OutcomeKind.CANCELLED
    assert (await second.end()).kind is OutcomeKind.CANCELLED
    assert all(model.closed for model in loader.models)
    assert (await refused(engine)).reason is ErrorReason.DRAINING


async def test_two_loads_of_one_build_are_one(files: Path) -> None:
    async with engine_of(files) as (engine, loader):
        build = Build(build_id="org/second", directory=files)
        await asyncio.gather(engine.load(build), engine.load(build))
        await engine.load(build)

    assert len(loader.models) == 2


async def test_log_probabilities_come_with_their_text(files: Path) -> None:
    async with engine_of(files) as (engine, _):
        sink = RecordingSink()
        await engine.submit(job(logprobs=True, top_logprobs=1), sink)
        await sink.end()

    entries = [entry for delta in sink.deltas for entry in delta.logprobs or ()]
    assert b"".join(entry.token_bytes for entry in entries) == b"hello world"
    assert all(len(entry.top) == 1 for entry in entries)


async def test_a_required_tool_that_is_not_called_is_an_error(files: Path) -> None:
    (files / "chat_template.jinja").write_text("{{ tools | tojson }}{{ messages[0].content }}")
    tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
    async with engine_of(files) as (engine, _):
        sink = RecordingSink()
        await engine.submit(job(tools=[tool], tool_choice="required"), sink)
        outcome = await sink.end()

    assert outcome.error is not None
    assert outcome.error.reason is ErrorReason.TOOL_NONCOMPLIANCE


async def test_a_called_tool_is_the_finish_reason(files: Path) -> None:
    (files / "chat_template.jinja").write_text("{{ tools | tojson }}{{ messages[0].content }}")
    tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
    plan = TOKENIZER.encode('<tool_call>{"name":"f","arguments":{}}</tool_call>')
    async with engine_of(files, lambda _spec: [*plan, tiny_gguf.EOS]) as (engine, _):
        sink = RecordingSink()
        await engine.submit(job(tools=[tool], max_tokens=100), sink)
        outcome = await sink.end()

    (call,) = joined(part for delta in sink.deltas for part in delta.tool_calls)
    assert (call.name, call.arguments, sink.text) == ("f", "{}", "")
    assert outcome.finish_reason == "tool_calls"
