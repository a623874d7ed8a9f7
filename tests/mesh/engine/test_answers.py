"""The whole engine with a real model: a tiny random one, and SmolLM2 where its file is at hand."""

import asyncio
import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from darkbloom_mesh.clock import SystemClock
from darkbloom_provider.engine.interface import Build, OutcomeKind, SlotStatus
from darkbloom_provider.engine.limits import EngineLimits
from darkbloom_provider.engine.local import LocalEngine
from darkbloom_provider.engine.mlx.loader import MlxLoader
from darkbloom_provider.engine.tokenizer import Tokenizer
from darkbloom_provider.models.gguf import WeightType, import_gguf
from darkbloom_provider.models.gguf_file import GgufFile
from darkbloom_provider.models.gguf_tensors import repack
from darkbloom_provider.models.store import ModelStore

from tests.mesh.engine.tiny import BUILD_ID, import_tiny
from tests.unit.provider.engine.support import RecordingSink, job
from tests.unit.provider.models import tiny_gguf

pytestmark = pytest.mark.engine

SMOLLM2 = os.environ.get("DARKBLOOM_TEST_GGUF")  # noqa: TID251 - tests choose their data here


@asynccontextmanager
async def engine_of(directory: Path) -> AsyncIterator[LocalEngine]:
    engine = LocalEngine(
        loader=MlxLoader(),
        limits=EngineLimits(kv_budget_bytes=1 << 28),
        clock=SystemClock(),
        draw=secrets.randbits,
    )
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(engine.run())
        try:
            await engine.load(Build(build_id=BUILD_ID, directory=directory))
            yield engine
        finally:
            await engine.close()


async def test_many_answers_at_once_are_the_same_as_one_by_one(tmp_path: Path) -> None:
    directory = import_tiny(tmp_path).directory
    tokenizer = Tokenizer.read(directory)
    prompts = [f"hello number {index}" for index in range(6)]
    async with engine_of(directory) as engine:
        alone = []
        for index, prompt in enumerate(prompts):
            sink = RecordingSink()
            await engine.submit(job(f"solo-{index}", prompt, seed=index, temperature=1.0), sink)
            await sink.end()
            alone.append(sink)
        together = [RecordingSink() for _ in prompts]
        for index, (prompt, sink) in enumerate(zip(prompts, together, strict=True)):
            await engine.submit(job(f"both-{index}", prompt, seed=index, temperature=1.0), sink)
        for sink in together:
            await sink.end()
        (slot,) = engine.slots()

    for one, other in zip(alone, together, strict=True):
        assert one.text == other.text
        assert one.outcome == other.outcome
    outcome = alone[0].outcome
    assert outcome is not None
    rendered = f"<|im_start|>user\n{prompts[0]}<|im_end|>\n<|im_start|>assistant\n"
    assert outcome.usage.prompt_tokens == len(tokenizer.encode(rendered))
    assert slot.state is SlotStatus.IDLE
    assert slot.observed_decode_tps > 0
    assert slot.observed_prefill_tps > 0
    assert slot.active_token_budget_used == 0


async def test_a_cancel_and_a_pause_reach_the_model(tmp_path: Path) -> None:
    async with engine_of(import_tiny(tmp_path).directory) as engine:
        cancelled, paused = RecordingSink(), RecordingSink()
        bias = {str(tiny_gguf.EOS): -100.0}
        await engine.submit(job("a", max_tokens=400, logit_bias=bias), cancelled)
        await engine.submit(job("b", max_tokens=60, logit_bias=bias), paused)
        await paused.more(2)
        engine.pause("b")
        await cancelled.more(len(cancelled.deltas) + 20)
        engine.cancel("a")
        first = await cancelled.end()
        engine.resume("b")
        second = await paused.end()

    assert first.kind is OutcomeKind.CANCELLED
    assert second.usage.completion_tokens == 60


def test_repacked_tensors_are_those_that_mlx_itself_reads(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(tiny_gguf.gguf_bytes(kind="Q4_1"))
    theirs = mx.load(str(path))
    with GgufFile(path) as file:
        name = "blk.1.ffn_up.weight"
        ours = repack(file.tensors[name], file.read(name))

    for suffix, values in zip(("weight", "scales", "biases"), ours, strict=True):
        np.testing.assert_array_equal(np.array(theirs[f"blk.1.ffn_up.{suffix}"]), values)


@pytest.mark.skipif(SMOLLM2 is None, reason="DARKBLOOM_TEST_GGUF names no SmolLM2-135M-Instruct")
@pytest.mark.timeout(600)
@pytest.mark.parametrize("dtype", [WeightType.FLOAT32, WeightType.QUANTIZED])
async def test_a_real_model_knows_the_capital_of_france(tmp_path: Path, dtype: WeightType) -> None:
    import_gguf(
        Path(SMOLLM2 or ""),
        build_id=BUILD_ID,
        version="r1",
        root=tmp_path,
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
        dtype=dtype,
    )
    stored = ModelStore(tmp_path).get(BUILD_ID)
    async with engine_of(stored.directory) as engine:
        sink = RecordingSink()
        await engine.submit(job(text="What is the capital of France?"), sink)
        async with asyncio.timeout(500):
            await sink.ended.wait()

    assert sink.text == "The capital of France is Paris."
    assert sink.outcome is not None
    assert sink.outcome.finish_reason == "stop"
    assert sink.outcome.usage.prompt_tokens == 37
    assert sink.outcome.usage.completion_tokens == 7
