"""From configuration to an engine: the agent builds both of them, and says why it cannot."""

import pytest
from darkbloom_mesh.clock import SystemClock
from darkbloom_provider.config import MAX_MLX_CONCURRENCY, ProviderConfig
from darkbloom_provider.engine.local import LocalEngine
from darkbloom_provider.engine.scripted import ScriptedEngine
from darkbloom_provider.engines import (
    Inventory,
    load_all,
    make_engine,
    prefix_cache,
    take_inventory,
)
from darkbloom_provider.errors import ProviderError

from tests.component.provider.harness import BUILD
from tests.component.provider.models import place_model

NOTHING = Inventory()


def configured(home, **changes) -> ProviderConfig:
    return ProviderConfig(home=home, environment="development", **changes)


def test_the_inventory_is_what_the_store_holds_for_this_engine(tmp_path):
    place_model(tmp_path / "models")
    place_model(tmp_path / "models", "org/real")
    scripted = take_inventory(configured(tmp_path, engine="scripted"))
    assert [model.id for model in scripted.models] == [BUILD]
    assert scripted.builds[0].weight_hash == scripted.models[0].weight_hash
    real = take_inventory(configured(tmp_path, engine="mlx"))
    assert [model.id for model in real.models] == ["org/real"]


async def test_a_build_that_cannot_be_loaded_is_a_plain_error(tmp_path):
    place_model(tmp_path / "models", "org/real")
    inventory = take_inventory(configured(tmp_path))
    engine = ScriptedEngine(clock=SystemClock())
    with pytest.raises(ProviderError, match="org/real cannot be loaded"):
        await load_all(engine, inventory.builds)


@pytest.mark.engine
def test_the_mlx_engine_is_built_with_the_owners_budget(tmp_path):
    config = configured(tmp_path, kv_budget_gb=1.0, prefix_cache_memory_gb=0.25)
    engine = make_engine(config, NOTHING, SystemClock())
    assert isinstance(engine, LocalEngine)
    # What keeps beginnings of prompts is part of the budget, not beside it.
    assert engine._limits.kv_budget_bytes == 3 << 28
    assert engine._limits.max_concurrency == MAX_MLX_CONCURRENCY


def test_beginnings_of_prompts_take_an_eighth_of_the_requests_memory_and_at_most_one_gib(tmp_path):
    def size(budget: int, **wanted: float) -> int:
        cache = prefix_cache(configured(tmp_path, **wanted), budget, SystemClock())
        return 0 if cache is None else cache.memory.max_bytes

    assert size(8 << 20) == 1 << 20
    assert size(64 << 30) == 1 << 30
    assert size(64 << 30, prefix_cache_memory_gb=4.0) == 4 << 30
    assert size(4 << 30, prefix_cache_memory_gb=4.0) == 2 << 30
    assert size(64 << 30, prefix_cache_memory_gb=0.0) == 0


@pytest.mark.engine
def test_without_memory_for_requests_there_is_no_engine(tmp_path):
    with pytest.raises(ProviderError, match="no memory"):
        make_engine(configured(tmp_path, kv_budget_gb=0.0), NOTHING, SystemClock())
