"""`python -m darkbloom_router explain`, against a replica that has the machine."""

from pathlib import Path

import pytest
from darkbloom.router.v1.fleet_service_pb2 import ExplainProviderRequest
from darkbloom_mesh.config import RoomConfig
from darkbloom_mesh.errors import NotFoundError, UnavailableError
from darkbloom_router.asked import ask, lines

from tests.component.router.harness import TOKEN, World
from tests.fakes.registry import SCRIPTED_BUILD


@pytest.fixture
def config(tmp_path: Path) -> RoomConfig:
    token = tmp_path / "mine"
    token.write_text(TOKEN)
    return RoomConfig(environment="development", mesh_token_file=token)


async def test_a_machine_is_explained_gate_by_gate_by_whoever_has_it(
    mesh: World, config: RoomConfig
) -> None:
    provider = await mesh.provider()
    target = mesh.service.listeners["internal"]

    asked = ExplainProviderRequest(provider=provider.provider_id)
    replica, found = await ask(config, target, asked)
    assert replica == target
    assert [one.build for one in found] == [SCRIPTED_BUILD]
    assert list(lines(replica, found)) == [f"{target} {SCRIPTED_BUILD}: gets requests"]

    other = ExplainProviderRequest(provider=provider.provider_id, build="org/other")
    replica, found = await ask(config, target, other)
    (line,) = lines(replica, found)
    assert line.startswith(f"{target} org/other: not_serving_model: ")


async def test_a_machine_that_nobody_has_is_told_from_a_router_that_is_away(
    mesh: World, config: RoomConfig
) -> None:
    nobody = ExplainProviderRequest(provider="prov_nobody")
    with pytest.raises(NotFoundError, match="none of the replicas"):
        await ask(config, mesh.service.listeners["internal"], nobody)
    with pytest.raises(UnavailableError):
        await ask(config, "127.0.0.1:1", nobody)
    with pytest.raises(ValueError, match="invalid literal"):
        await ask(config, "router", nobody)
