"""A name moves to another build: a good one arrives, a bad one comes back by itself at step 1."""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from darkbloom.registry.v1 import registry_service_pb2 as rpc
from darkbloom.registry.v1 import rollout_pb2
from darkbloom.registry.v1.registry_service_pb2_grpc import RegistryServiceStub
from darkbloom_gateway.catalog import Alias, in_share
from darkbloom_local import seeds
from darkbloom_local.mesh import Mesh
from darkbloom_local.models import SCRIPTED, place_scripted, scripted_build

from tests.mesh.harness import CALL_S, QUICK, Books, Consumer, Fleet, until

pytestmark = [pytest.mark.mesh, pytest.mark.asyncio(loop_scope="session")]

GOOD, BAD = "dev/good", "dev/bad"
FREE = "a-free-name"
STEP = 50
NAME = next(
    name
    for name in map("name-{}".format, range(100))
    if in_share(Alias(name, "", "", "", active=True, percent=STEP), seeds.CONSUMER)
)
"""A name whose first half of accounts has ours in it."""


@asynccontextmanager
async def opened(state: Path) -> AsyncIterator[Mesh]:
    """Run one machine with three builds, of which one answers nobody."""
    environment = {
        **QUICK,
        "provider": {
            "DARKBLOOM_PROVIDER_MODELS": f"{SCRIPTED},{GOOD},{BAD}",
            "DARKBLOOM_PROVIDER_SCRIPT": json.dumps({"only": BAD, "fail_before_content": True}),
        },
        "registry": {"DARKBLOOM_REGISTRY_ROLLOUT_PERIOD_S": "0.5"},
    }
    async with Mesh(state, engine=None, environment=environment, durable=False) as found:
        models = found.state.directory("models")
        builds = [replace(scripted_build(place_scripted(models)), alias=NAME)]
        for name in (GOOD, BAD):
            build = scripted_build(place_scripted(models, name))
            build.build.id = build.build.display_name = name
            builds.append(replace(build, alias=""))
        await seeds.prices(found.channel("billing.grpc"), builds)
        await seeds.catalog(found.channel("registry.grpc"), builds)
        await found.start_provider("provider", engine="scripted")
        await Fleet(found).wait_routable(1)
        yield found


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def shop(state: Path) -> AsyncIterator[Mesh]:
    """The same, for this module."""
    async with opened(state) as found:
        yield found


class Rollouts:
    """An operator of the registry."""

    def __init__(self, mesh: Mesh) -> None:
        self._stub = RegistryServiceStub(mesh.channel("registry.grpc"))

    async def start(self, to_build: str) -> str:
        gates = rollout_pb2.RolloutGates(min_requests=2)
        gates.soak.FromMilliseconds(500)
        request = rpc.StartRolloutRequest(
            request_id=f"drill {to_build}",
            alias=NAME,
            to_build=to_build,
            steps=[STEP, 100],
            gates=gates,
            actor="drill",
        )
        answer = await self._stub.StartRollout(request, timeout=CALL_S)
        return str(answer.rollout.rollout_id)

    async def everybody_goes_by_it(self) -> bool:
        """Say whether the router and the gateway go by the newest catalog."""
        found = await self._stub.GetPropagation(rpc.GetPropagationRequest(), timeout=CALL_S)
        return found.propagated and {one.room for one in found.readers} == {"router", "gateway"}

    async def progress(self, build: str) -> rpc.GetBuildProgressResponse:
        request = rpc.GetBuildProgressRequest(build=build)
        answer: rpc.GetBuildProgressResponse = await self._stub.GetBuildProgress(
            request, timeout=CALL_S
        )
        return answer

    async def get(self, rollout_id: str) -> rollout_pb2.Rollout:
        request = rpc.GetRolloutRequest(rollout_id=rollout_id)
        answer: rpc.GetRolloutResponse = await self._stub.GetRollout(request, timeout=CALL_S)
        return answer.rollout


async def ask(mesh: Mesh) -> httpx.Response:
    body = {"model": NAME, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 4}
    return await Consumer(mesh).post(body)


async def ended(mesh: Mesh, rollout_id: str) -> rollout_pb2.Rollout:
    """Ask until the rollout has ended, whatever the answers are."""
    rollouts, live = Rollouts(mesh), {rollout_pb2.ROLLOUT_STATE_RUNNING}

    async def over() -> rollout_pb2.Rollout | None:
        await ask(mesh)
        found = await rollouts.get(rollout_id)
        return found if found.state not in live else None

    found: rollout_pb2.Rollout = await until(over, "the rollout ends", patience_s=90)
    return found


@pytest.mark.timeout(300)
async def test_a_good_build_passes_every_step_and_a_bad_one_comes_back_at_the_first(
    shop: Mesh,
) -> None:
    good = await ended(shop, await Rollouts(shop).start(GOOD))
    assert good.state == rollout_pb2.ROLLOUT_STATE_DONE
    assert good.step == 1

    bad = await ended(shop, await Rollouts(shop).start(BAD))
    assert bad.state == rollout_pb2.ROLLOUT_STATE_REVERTED
    assert bad.step == 0
    assert bad.reason.startswith(f"step 1 ({STEP} %): success: ")
    assert bad.from_build == GOOD

    async def served() -> bool:
        return (await ask(shop)).status_code == 200

    await until(served, "the name is served by the build that it came from")

    rollouts = Rollouts(shop)
    await until(rollouts.everybody_goes_by_it, "router and gateway go by the newest catalog")

    async def held() -> bool:
        found = await rollouts.progress(GOOD)
        return (found.now.holding, found.now.current, found.proven) == (1, 1, True)

    await until(held, "the machine that serves the build is seen in its one view")
    await Books(shop).clean()


def publish(mesh: Mesh, *arguments: str) -> dict[str, Any]:
    """Run the publisher's command line, and return what it says."""
    at = ("--target", mesh.wiring.address("registry.grpc"))
    token = ("--mesh-token-file", str(mesh.state.root / "keys" / "mesh-token"))
    done = subprocess.run(
        (str(Path(sys.executable).with_name("darkbloom-publish")), *at, *token, *arguments),
        capture_output=True,
        check=True,
        timeout=60,
        text=True,
    )
    said: dict[str, Any] = json.loads(done.stdout)
    return said


async def test_a_name_for_marketplaces_is_served_and_only_the_feed_shows_it(shop: Mesh) -> None:
    command = ("alias", FREE, NAME, "--marketplace-only", "--marketplace-slug", "org/free")
    said = await asyncio.to_thread(publish, shop, *command)
    assert said["propagation"]["propagated"]
    consumer = Consumer(shop)

    body = {"model": FREE, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 4}
    answer = await consumer.post(body)
    assert (answer.status_code, answer.json()["model"]) == (200, FREE)
    listed = (await consumer.get("/v1/models?include_builds=1")).json()["data"]
    shown = {row["id"]: row for row in (await consumer.get("/v1/models/openrouter")).json()["data"]}
    assert {NAME, GOOD} <= {row["id"] for row in listed}
    assert FREE not in {row["id"] for row in listed}
    own = {"id": FREE, "name": FREE, "openrouter": {"slug": "org/free"}}
    assert shown[FREE] == {**shown[NAME], **own}
