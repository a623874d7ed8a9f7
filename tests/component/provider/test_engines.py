"""From configuration to an engine: the agent builds both of them, and says why it cannot."""

import pytest
from darkbloom_mesh.clock import SystemClock
from darkbloom_provider.config import MAX_MLX_CONCURRENCY, ProviderConfig
from darkbloom_provider.engine.local import LocalEngine
from darkbloom_provider.engine.scripted import ScriptedEngine
from darkbloom_provider.engines import Inventory, load_all, make_engine, take_inventory
from darkbloom_provider.errors import ProviderError

from tests.component.provider.harness import BUILD
from tests.component.provider.models import place_model

NOTHING = Inventory(builds=(), models=())


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
    engine = make_engine(configured(tmp_path, kv_budget_gb=1.0), NOTHING, SystemClock())
    assert isinstance(engine, LocalEngine)
    assert engine._limits.kv_budget_bytes == 1 << 30
    assert engine._limits.max_concurrency == MAX_MLX_CONCURRENCY


@pytest.mark.engine
def test_without_memory_for_requests_there_is_no_engine(tmp_path):
    with pytest.raises(ProviderError, match="no memory"):
        make_engine(configured(tmp_path, kv_budget_gb=0.0), NOTHING, SystemClock())
