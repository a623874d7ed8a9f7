"""The night's run: a real model says the same alone, in company, from memory and from disk."""

import dataclasses
import os
import random  # noqa: TID251 - seeded: the prompts
from datetime import UTC, datetime
from pathlib import Path

import pytest
from darkbloom_provider.engine.prefix.cache import PrefixCache
from darkbloom_provider.models.gguf import WeightType, import_gguf
from darkbloom_provider.models.store import ModelStore

from tests.mesh.engine.test_batch import check_company
from tests.mesh.engine.test_prefix_cache import answers, cold, load, spec, with_disk
from tests.mesh.engine.tiny import BUILD_ID

SMOLLM2 = os.environ.get("DARKBLOOM_TEST_GGUF")  # noqa: TID251 - tests choose their data here
WORDS = range(1000, 40_000)

pytestmark = [
    pytest.mark.engine,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(SMOLLM2 is None, reason="DARKBLOOM_TEST_GGUF names no SmolLM2"),
]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("smollm2")
    import_gguf(
        Path(SMOLLM2 or ""),
        build_id=BUILD_ID,
        version="r1",
        root=root,
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
        dtype=WeightType.QUANTIZED,
    )
    return ModelStore(root).get(BUILD_ID).directory


def test_rows_of_a_real_model_say_the_same_alone_and_in_company(directory: Path) -> None:
    check_company(directory, 5, steps=40)


async def test_a_real_model_says_the_same_cold_from_memory_and_from_disk(
    directory: Path, tmp_path: Path
) -> None:
    draw = random.Random(3)
    stem = draw.choices(WORDS, k=150)
    prompts = [stem + draw.choices(WORDS, k=20) for _ in range(3)]
    plain = load(directory, None)

    memory = PrefixCache(1 << 28)
    warm = load(directory, memory)
    specs = [spec(memory, tokens) for tokens in prompts]
    expected = [answers(plain, [cold(one)])[0][0] for one in specs]
    assert [said for said, _ in answers(warm, specs)] == expected
    again = answers(warm, specs)
    assert [said for said, _ in again] == expected
    assert all(known > 0 for _, known in again)

    for round_ in range(2):
        # A new process each time: only the disk knows what was read.
        cache, tier = with_disk(tmp_path / "kv3")
        batch = load(directory, cache)
        try:
            plans = [spec(cache, tokens) for tokens in prompts]
            staged = [
                dataclasses.replace(one, prefix=await cache.stage(one.prefix))
                for one in plans
                if one.prefix is not None
            ]
            restored = answers(batch, staged)
            assert [said for said, _ in restored] == expected
            assert not round_ or all(known > 0 for _, known in restored)
            tier.settle()
        finally:
            cache.close()
