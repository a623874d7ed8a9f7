"""Valkey is killed under load, stays away for a while, and comes back without a memory."""

from tests.drills.drill import Drill, Outcome
from tests.drills.load import grown, steady
from tests.drills.stage import Stage
from tests.drills.toll import Ledger
from tests.mesh.harness import Fleet, until

_CLIENTS = 8
_PROVIDERS = 2
_AWAY_ANSWERS = 24


async def play(stage: Stage) -> Outcome:
    """Kill it, have a few dozen answers without it, start an empty one."""
    async with stage.mesh(routers=2, providers=_PROVIDERS) as mesh:
        ledger = await Ledger.begin(mesh)
        async with steady(mesh, clients=_CLIENTS, tokens=20) as load:
            await until(grown(load, _CLIENTS), "answers before the break")
            stage.progress("valkey is killed")
            mesh.kill("valkey")
            await until(grown(load, _AWAY_ANSWERS), "answers without valkey")
            stage.progress("an empty valkey starts")
            back_at = stage.clock.monotonic()
            await mesh.restart("valkey")
            await Fleet(mesh).wait_routable(_PROVIDERS)
            recovery_s = stage.clock.monotonic() - back_at
            await until(grown(load, _CLIENTS), "answers afterwards")
        toll = await ledger.toll(load.answers)
    return Outcome(
        lost_requests=len(load.lost),
        lost_micros=toll.lost_micros,
        recovery_s=recovery_s,
        unexpected=[*toll.unexpected, *(one.told() for one in load.lost)],
        facts=load.facts(),
    )


DRILL = Drill(
    name="valkey-loss",
    claim="without Valkey everything known goes on, and an empty one is filled again",
    runbooks=("room-down", "valkey"),
    play=play,
)
