"""A name moves to a build that answers nobody: it comes back by itself at the first step."""

import asyncio
import sys
from pathlib import Path

from darkbloom.registry.v1 import rollout_pb2
from darkbloom_local.environment import inherited
from darkbloom_local.mesh import Mesh

from tests.drills.drill import Drill, Outcome
from tests.drills.load import grown, steady
from tests.drills.stage import Stage
from tests.drills.toll import Ledger
from tests.mesh.harness import until
from tests.mesh.test_rollouts import BAD, NAME, STEP, Rollouts, opened

_CLIENTS = 4


async def play(stage: Stage) -> Outcome:
    """Roll the bad build out to half of the accounts, under load of one of them."""
    rollouts, live = None, {rollout_pb2.ROLLOUT_STATE_RUNNING}
    async with opened(stage.home / "mesh") as mesh:
        ledger, rollouts = await Ledger.begin(mesh), Rollouts(mesh)
        async with steady(mesh, clients=_CLIENTS, tokens=16, text="hello", model=NAME) as load:
            await until(grown(load, _CLIENTS), "answers of the good build")
            stage.progress(f"a bad build is rolled out, step 1 of 2 ({STEP} %)")
            begun = stage.clock.monotonic()
            rollout_id = await rollouts.start(BAD)

            async def over() -> rollout_pb2.Rollout | None:
                found = await rollouts.get(rollout_id)
                return found if found.state not in live else None

            ended: rollout_pb2.Rollout = await until(over, "the rollout ends by itself")
            stage.progress(f"reverted by itself: {ended.reason}")
            at = len(load.answers)
            await until(grown(load, _CLIENTS), "answers of the good build again")
            recovery_s = stage.clock.monotonic() - begun
        toll = await ledger.toll(load.answers)
        shown = await _show(mesh, rollout_id)
    odd = [*toll.unexpected, *(one.told() for one in load.lost)]
    if (ended.state, ended.step) != (rollout_pb2.ROLLOUT_STATE_REVERTED, 0):
        odd.append(f"the rollout ended in state {ended.state} at step {ended.step + 1}")
    if not ended.reason or ended.reason not in shown:
        odd.append(f"`darkbloom-publish rollout show` does not say why: {shown}")
    return Outcome(
        lost_requests=len(load.lost),
        lost_micros=toll.lost_micros,
        recovery_s=recovery_s,
        unexpected=odd,
        facts={**load.facts(), "reason": ended.reason, "whole_before_revert": at},
    )


async def _show(mesh: Mesh, rollout_id: str) -> str:
    """Return what the one command says."""
    process = await asyncio.create_subprocess_exec(
        *(str(Path(sys.executable).parent / "darkbloom-publish"), "rollout", "show", rollout_id),
        env={
            **inherited(),
            "DARKBLOOM_PUBLISH_TARGET": mesh.wiring.address("registry.grpc"),
            "DARKBLOOM_MESH_TOKEN_FILE": str(mesh.wiring.mesh_token_file),
        },
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await process.communicate()
    return said.decode()


DRILL = Drill(
    name="bad-revision",
    claim="a model that fails comes back by itself before step 2, and one command says why",
    runbooks=("models",),
    limit_s=300,
    play=play,
    light=True,
)
