"""A prompt whose beginning is known is answered as if it had been read: the same tokens, sooner."""

import asyncio
import dataclasses
import random  # noqa: TID251 - seeded: the prompts
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import mlx.core as mx
import pytest
from darkbloom_edge.usage import Usage
from darkbloom_mesh.clock import SystemClock
from darkbloom_provider.engine.batch import RowSpec
from darkbloom_provider.engine.interface import Build
from darkbloom_provider.engine.limits import EngineLimits
from darkbloom_provider.engine.local import LocalEngine
from darkbloom_provider.engine.mlx.batch import MlxBatch
from darkbloom_provider.engine.mlx.loader import MlxLoader
from darkbloom_provider.engine.mlx.prefix import (
    KvBlock,
    KvCodec,
    cut,
    identity_here,
    typed,
)
from darkbloom_provider.engine.prefix.cache import PrefixCache
from darkbloom_provider.engine.prefix.disk import SsdTier
from darkbloom_provider.engine.prefix.keys import CacheKeys
from darkbloom_provider.engine.prefix.limits import DiskLimits
from darkbloom_provider.engine.sampling import Sampling
from darkbloom_provider.models.store import StoredModel
from mlx_lm.models.cache import KVCache

from tests.mesh.engine.kinds import KINDS, write_kind
from tests.mesh.engine.tiny import BUILD_ID, import_tiny
from tests.unit.provider.engine.support import RecordingSink, job
from tests.unit.provider.models import tiny_gguf

pytestmark = pytest.mark.engine

ALICE, BOB = b"a" * 32, b"b" * 32
WEIGHTS = "ab" * 32
BLOCK = 64
LETTERS = range(3, 250)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> StoredModel:
    return import_tiny(tmp_path_factory.mktemp("tiny"))


def load(directory: Path, cache: PrefixCache | None) -> MlxBatch:
    loaded = MlxLoader(prefixes=cache).load(
        directory, end_tokens=frozenset({tiny_gguf.EOS}), max_concurrency=4
    )
    assert isinstance(loaded, MlxBatch)
    return loaded


def spec(cache: PrefixCache, tokens: list[int], scope: bytes = ALICE, **changes: int) -> RowSpec:
    seed = changes.pop("seed", 1)
    return RowSpec(
        tokens=tokens,
        max_tokens=12,
        sampling=Sampling(seed=seed, temperature=1.0),
        top_logprobs=None,
        prefix=cache.plan(scope, WEIGHTS, tokens),
    )


def answers(batch: MlxBatch, specs: list[RowSpec]) -> list[tuple[list[int], int]]:
    """Generate rows together; give each one's tokens and how many of its prompt were known."""
    rows = {batch.add(one): ([], []) for one in specs}  # type: dict[int, tuple[list[int], list[int]]]
    while batch.has_work():
        for event in batch.step().events:
            rows[event.row][0].append(event.token)
            rows[event.row][1].append(event.cached)
    return [(said, max(cached)) for said, cached in rows.values()]


def cold(one: RowSpec) -> RowSpec:
    return dataclasses.replace(one, prefix=None)


def test_cached_answers_equal_cold_ones_alone_and_in_company(stored: StoredModel) -> None:
    draw = random.Random(7)
    cache = PrefixCache(1 << 24, block_tokens=BLOCK)
    warm, plain = load(stored.directory, cache), load(stored.directory, None)
    stems = [draw.choices(LETTERS, k=130) for _ in range(3)]
    hits = 0
    for round_ in range(3):
        specs = []
        for place in range(4):
            stem = draw.choice(stems)[: draw.randint(40, 130)]
            tail = draw.choices(LETTERS, k=draw.randint(1, 50))
            specs.append(spec(cache, stem + tail, seed=10 * round_ + place))
        expected = [answers(plain, [cold(one)])[0][0] for one in specs]
        together = answers(warm, specs)
        assert [said for said, _ in together] == expected
        # Whatever was cold in company is known now, and says the same once more.
        again = [answers(warm, [one])[0] for one in specs]
        assert [said for said, _ in again] == expected
        assert all(
            known == (len(one.tokens) - 1) // BLOCK * BLOCK
            for one, (_, known) in zip(specs, again, strict=True)
        )
        hits += sum(known > 0 for _, known in together)
    assert hits


def test_eviction_while_rows_run_changes_no_answer(stored: StoredModel) -> None:
    draw = random.Random(8)
    # Room for three blocks: everything is evicted all the time.
    cache = PrefixCache(3 * BLOCK * 64, block_tokens=BLOCK)
    warm, plain = load(stored.directory, cache), load(stored.directory, None)
    stem = draw.choices(LETTERS, k=100)
    for round_ in range(3):
        specs = [
            spec(cache, stem[: draw.randint(60, 100)] + draw.choices(LETTERS, k=9), seed=round_),
            spec(cache, draw.choices(LETTERS, k=90), seed=round_),
        ]
        expected = [answers(plain, [cold(one)])[0][0] for one in specs]
        assert [said for said, _ in answers(warm, specs)] == expected
        assert cache.memory.bytes <= cache.memory.max_bytes


def test_a_prompt_larger_than_the_cache_keeps_its_beginning(stored: StoredModel) -> None:
    draw = random.Random(10)
    measured = PrefixCache(1 << 24, block_tokens=BLOCK)
    tokens = draw.choices(LETTERS, k=200)
    answers(load(stored.directory, measured), [spec(measured, tokens)])
    one = measured.memory.bytes // len(measured.memory)

    small = PrefixCache(2 * one + one // 2, block_tokens=BLOCK)
    batch = load(stored.directory, small)
    assert answers(batch, [spec(small, tokens)])[0][1] == 0
    assert len(small.memory) == 2
    assert small.memory.evicted == 0
    assert answers(batch, [spec(small, tokens)])[0][1] == 2 * BLOCK


def test_another_account_reads_its_prompt_whole(stored: StoredModel) -> None:
    cache = PrefixCache(1 << 24, block_tokens=BLOCK)
    batch = load(stored.directory, cache)
    tokens = random.Random(9).choices(LETTERS, k=200)

    def steps(scope: bytes) -> int:
        batch.add(spec(cache, tokens, scope))
        count = 0
        while not batch.step().events:
            count += 1
        while batch.has_work():
            batch.step()
        return count

    cold_steps = steps(ALICE)
    # What a clock could tell is how many chunks are read before the first token.
    assert steps(BOB) == cold_steps
    assert cache.counts.hits == 0
    assert steps(ALICE) < cold_steps / 2
    assert cache.counts.hits == 1
    assert cache.counts.hit_tokens == 192


def test_a_prompt_without_a_scope_leaves_nothing_behind(stored: StoredModel) -> None:
    cache = PrefixCache(1 << 24, block_tokens=BLOCK)
    batch = load(stored.directory, cache)
    tokens = random.Random(9).choices(LETTERS, k=200)
    assert answers(batch, [spec(cache, tokens, b"")])[0][1] == 0
    assert answers(batch, [spec(cache, tokens, b"")])[0][1] == 0
    assert len(cache.memory) == 0


# The SSD tier.


def tier_of(folder: Path) -> SsdTier:
    limits = DiskLimits(floor_tokens=BLOCK, min_free_bytes=0, budget_bytes=1 << 26)
    return SsdTier(folder, CacheKeys(bytes(range(32))), KvCodec(), SystemClock(), limits=limits)


def with_disk(folder: Path) -> tuple[PrefixCache, SsdTier]:
    tier = tier_of(folder)
    cache = PrefixCache(0, block_tokens=BLOCK, disk=tier, identity=identity_here())
    cache.enter("org/tiny", WEIGHTS)
    return cache, tier


async def test_answers_restored_from_the_disk_by_a_new_process_equal_cold_ones(
    stored: StoredModel, tmp_path: Path
) -> None:
    draw = random.Random(11)
    plain = load(stored.directory, None)
    stem = draw.choices(LETTERS, k=120)
    prompts = [stem[: draw.randint(70, 120)] + draw.choices(LETTERS, k=20) for _ in range(4)]
    for round_ in range(3):
        # Each round is a new process: nothing of the memory is left.
        cache, tier = with_disk(tmp_path / "kv3")
        batch = load(stored.directory, cache)
        try:
            specs = [spec(cache, tokens, seed=round_) for tokens in prompts]
            expected = [answers(plain, [cold(one)])[0][0] for one in specs]
            staged = [
                dataclasses.replace(one, prefix=await cache.stage(one.prefix))
                for one in specs
                if one.prefix is not None
            ]
            got = answers(batch, staged)
            assert [said for said, _ in got] == expected
            known = [count for _, count in got]
            whole = [(len(tokens) - 1) // BLOCK * BLOCK for tokens in prompts]
            assert known == (whole if round_ else [0] * len(prompts))
            tier.settle()
        finally:
            cache.close()
        assert tier.counts.bad == 0


async def test_small_blocks_of_the_memory_and_large_ones_of_the_disk_make_one_beginning(
    stored: StoredModel, tmp_path: Path
) -> None:
    draw = random.Random(12)
    plain = load(stored.directory, None)
    tokens = draw.choices(LETTERS, k=3 * BLOCK + 9)
    shorter = tokens[: BLOCK + 5]

    async def ask(cache: PrefixCache, batch: MlxBatch, prompt: list[int]) -> int:
        one = spec(cache, prompt)
        assert one.prefix is not None
        staged = dataclasses.replace(one, prefix=await cache.stage(one.prefix))
        [(said, known)] = answers(batch, [staged])
        assert said == answers(plain, [cold(one)])[0][0]
        return known

    def start() -> tuple[PrefixCache, SsdTier, MlxBatch]:
        tier = tier_of(tmp_path / "kv3")
        cache = PrefixCache(
            1 << 24,
            block_tokens=2 * BLOCK,
            fine_tokens=BLOCK,
            disk=tier,
            identity=identity_here(),
        )
        cache.enter("org/tiny", WEIGHTS)
        return cache, tier, load(stored.directory, cache)

    cache, tier, batch = start()
    try:
        assert await ask(cache, batch, tokens) == 0
        assert await ask(cache, batch, tokens) == 3 * BLOCK, "the memory gives small blocks"
        tier.settle()
        assert len(tier) == 1, "the disk keeps large ones"
    finally:
        cache.close()

    cache, tier, batch = start()
    try:
        assert await ask(cache, batch, shorter) == 0
        assert len(cache.memory) == 1
        assert await ask(cache, batch, tokens) == 2 * BLOCK, "the disk reaches further"
        assert cache.counts.disk_tokens == BLOCK
        assert await ask(cache, batch, tokens) == 3 * BLOCK
        tier.settle()
        assert (len(tier), tier.counts.bad) == (1, 0)
    finally:
        cache.close()


@pytest.mark.parametrize("dtype", [mx.float32, mx.float16, mx.bfloat16], ids=str)
def test_numbers_come_back_bit_for_bit(dtype: mx.Dtype) -> None:
    codec = KvCodec()
    array = mx.random.normal((1, 2, 8, 4), key=mx.random.key(1)).astype(dtype)
    block = KvBlock.of([(array, array * 2)])
    lowered = codec.lower(block)
    assert lowered is not None
    content = b"".join(bytes(part.cast("B")) for part in lowered.data)
    back = typed(codec.lift(dict(lowered.facts), content))
    assert back.nbytes == block.nbytes == len(content)
    for (keys, values), (more_keys, more_values) in zip(block.layers, back.layers, strict=True):
        assert keys.dtype == more_keys.dtype == dtype
        assert mx.array_equal(keys, more_keys)
        assert mx.array_equal(values, more_values)


def test_blocks_hold_no_view_of_the_whole_prompt() -> None:
    layer = KVCache()
    layer.update_and_fetch(mx.ones((1, 1, 64, 4)), mx.ones((1, 1, 64, 4)))
    mx.eval(layer.state)
    before = mx.get_active_memory()
    blocks = [cut([layer], 0, 32)]
    del layer
    assert mx.get_active_memory() < before
    assert blocks[0].nbytes == 2 * 32 * 4 * 4


# The whole engine.


@asynccontextmanager
async def engine_with(directory: Path, cache: PrefixCache) -> AsyncIterator[LocalEngine]:
    engine = LocalEngine(
        loader=MlxLoader(prefixes=cache),
        limits=EngineLimits(kv_budget_bytes=1 << 28),
        clock=SystemClock(),
        draw=lambda bits: 0,
        prefixes=cache,
    )
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(engine.run())
        try:
            build = Build(build_id=BUILD_ID, directory=directory, weight_hash=WEIGHTS)
            await engine.load(build)
            yield engine
        finally:
            await engine.close()


async def asked(engine: LocalEngine, name: str, text: str, scope: bytes) -> tuple[str, Usage]:
    sink = RecordingSink()
    question = job(name, text, prompt_bound=4000, seed=3, temperature=1.0)
    await engine.submit(dataclasses.replace(question, cache_scope=scope), sink)
    outcome = await sink.end()
    counts = {delta.cached_tokens for delta in sink.deltas}
    # The edge takes no count that falls: it is the same from the first piece on.
    assert counts <= {outcome.usage.cached_tokens}
    return sink.text, outcome.usage


async def test_usage_says_what_was_not_read_again_across_restarts_and_never_across_accounts(
    stored: StoredModel, tmp_path: Path
) -> None:
    text = "a long beginning that is always the same " * 6
    first_cache, _ = with_disk(tmp_path / "kv3")
    async with engine_with(stored.directory, first_cache) as engine:
        cold_text, usage = await asked(engine, "1", text, ALICE)
        assert usage.cached_tokens == 0
        assert engine.slots()[0].prefix_cache == "ready"
        first_disk = first_cache.disk
        assert isinstance(first_disk, SsdTier)
        first_disk.settle()
        # The memory tier is off here: this comes from the disk.
        warm_text, usage = await asked(engine, "2", text, ALICE)
        known = usage.cached_tokens
        assert known > usage.prompt_tokens - 2 * BLOCK
        assert warm_text == cold_text
        assert (await asked(engine, "3", text, BOB))[1].cached_tokens == 0
        assert (await asked(engine, "4", text, b""))[1].cached_tokens == 0
        facts = engine.prefix_cache()
        assert facts is not None
        assert (facts.hits, facts.hit_tokens, facts.disk_tokens) == (1, known, known)

    second_cache, _ = with_disk(tmp_path / "kv3")
    async with engine_with(stored.directory, second_cache) as engine:
        restored_text, usage = await asked(engine, "5", text, ALICE)
        assert usage.cached_tokens == known
        assert restored_text == cold_text


async def test_what_is_in_memory_survives_the_thread_that_made_it(stored: StoredModel) -> None:
    text = "a beginning that another thread has read " * 6
    cache = PrefixCache(1 << 24, block_tokens=BLOCK)
    async with engine_with(stored.directory, cache) as engine:
        cold_text, _ = await asked(engine, "1", text, ALICE)
        await engine.unload(BUILD_ID)
        build = Build(build_id=BUILD_ID, directory=stored.directory, weight_hash=WEIGHTS)
        await engine.load(build)
        again, usage = await asked(engine, "2", text, ALICE)
        assert usage.cached_tokens > 0
        assert again == cold_text


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_model_whose_layers_forget_is_always_read_and_says_the_same(
    tmp_path: Path, kind: str
) -> None:
    folder = write_kind(tmp_path / kind, kind)
    cache = PrefixCache(1 << 24, block_tokens=BLOCK)
    warm, plain = load(folder, cache), load(folder, None)
    tokens = random.Random(12).choices(LETTERS, k=100)
    expected = answers(plain, [cold(spec(cache, tokens))])[0][0]
    assert answers(warm, [spec(cache, tokens)]) == [(expected, 0)]
    known = (len(tokens) - 1) // BLOCK * BLOCK if kind == "full" else 0
    assert answers(warm, [spec(cache, tokens)]) == [(expected, known)]
    assert warm.prefix_cache == ("ready" if kind == "full" else "unsupported")
    assert (len(cache.memory) > 0) == (kind == "full")
