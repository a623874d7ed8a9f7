"""PostgreSQL restarts without a word, and fails over to a standby, both under load."""

import signal
from collections.abc import Awaitable, Callable

import httpx
from darkbloom_local.mesh import Mesh

from tests.drills.drill import Drill, Outcome
from tests.drills.load import answered_since, grown, steady
from tests.drills.stage import Stage
from tests.drills.standby import Pair, either
from tests.drills.toll import Ledger
from tests.mesh.harness import Consumer, Fleet, until

_CLIENTS = 8
_PROVIDERS = 2
_END_S = 30.0
_WITH_STORE = ("registry", "attestation", "billing")


async def restart(stage: Stage) -> Outcome:
    """End the server at once, as `pg_ctl -m immediate` does, and start it on the same data."""

    async def broken(mesh: Mesh) -> None:
        child = mesh._children["postgres"]
        child.send(signal.SIGQUIT)
        await mesh.stop("postgres", _END_S)
        stage.progress("postgresql has ended, and recovers from its log")
        await mesh.restart("postgres")

    async with stage.mesh(providers=_PROVIDERS, durable=True) as mesh:
        return await _through(stage, mesh, lambda: broken(mesh))


async def failover(stage: Stage) -> Outcome:
    """Kill the leader, let the standby lead, wind the old leader back and let it follow."""
    told = {"DATABASE_URL": either(stage.home / "mesh")}
    async with stage.mesh(
        providers=_PROVIDERS, durable=True, environment=dict.fromkeys(_WITH_STORE, told)
    ) as mesh:
        pair = Pair(mesh)
        await pair.follow()

        async def broken() -> None:
            mesh.kill("postgres")
            stage.progress("the leader is dead, the standby takes over")
            await pair.take_over()

        outcome = await _through(stage, mesh, broken, afterwards=pair.rejoin)
        stage.progress("the old leader follows")
        # And back again: a pair that fails over once only is none.
        mesh.kill("postgres-2")
        await pair.take_over()
        await _answered(mesh)
        return outcome


async def _nothing() -> None:
    """Do nothing."""


async def _through(
    stage: Stage,
    mesh: Mesh,
    broken: Callable[[], Awaitable[None]],
    afterwards: Callable[[], Awaitable[None]] = _nothing,
) -> Outcome:
    """Break the store under load and count."""
    ledger = await Ledger.begin(mesh)
    async with steady(mesh, clients=_CLIENTS, tokens=60) as load:

        async def all_flow() -> bool:
            return load.flowing == _CLIENTS

        await until(grown(load, _CLIENTS), "answers before the break")
        await until(all_flow, "answers are under way")
        stage.progress(f"it breaks under {load.flowing} streams")
        broken_at = stage.clock.monotonic()
        await broken()
        recovery_s = await answered_since(load, broken_at) - broken_at
        await afterwards()
        await until(grown(load, 2 * _CLIENTS), "answers afterwards")
    toll = await ledger.toll(load.answers)
    await Fleet(mesh).wait_routable(_PROVIDERS)
    return Outcome(
        lost_requests=len(load.lost),
        lost_micros=toll.lost_micros,
        recovery_s=recovery_s,
        unexpected=[*toll.unexpected, *(one.told() for one in load.lost)],
        facts={**load.facts(), **toll.facts()},
    )


async def _answered(mesh: Mesh) -> None:
    """Return once a new request is answered."""

    async def asked() -> bool:
        return (await Consumer(mesh).ask(tokens=1)).status_code == httpx.codes.OK

    await until(asked, "a new request is answered")


DRILLS = (
    Drill(
        name="postgres-restart",
        claim="PostgreSQL ends in the middle of everything; answers go on, new requests wait",
        runbooks=("database",),
        play=restart,
        limit_s=240,
    ),
    Drill(
        name="postgres-failover",
        claim="the standby takes over with every charge that anybody was told of",
        runbooks=("database",),
        play=failover,
        light=True,
        limit_s=300,
    ),
)
