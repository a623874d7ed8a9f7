"""Every room is replaced, one replica after the other, under fifty streams: nobody notices."""

from tests.drills.drill import Drill, Outcome
from tests.drills.load import grown, steady
from tests.drills.rooms import ORDER, both, gateways, well
from tests.drills.stage import Stage
from tests.drills.toll import Ledger
from tests.mesh.harness import until

_STREAMS = 50
_PROVIDERS = 4
_TOKENS = 30
_INTERVAL_S = 0.1
_LEFT = {"429", "ConnectError", "RemoteProtocolError", "ReadError"}


async def play(stage: Stage) -> Outcome:
    """Replace registry, attestation and billing, then routers, then gateways, two of each."""
    async with stage.mesh(routers=2, replicas=2, providers=_PROVIDERS) as mesh:
        await well(mesh, _PROVIDERS)
        ledger = await Ledger.begin(mesh)
        slowest_s = 0.0
        async with steady(
            mesh,
            clients=_STREAMS,
            urls=gateways(mesh),
            tokens=_TOKENS,
            interval_s=_INTERVAL_S,
            limit_s=300,
        ) as load:

            async def all_flow() -> bool:
                return load.flowing == _STREAMS

            await until(all_flow, f"{_STREAMS} streams at a time")
            began_at = stage.clock.monotonic()
            for room in ORDER:
                for name in both(room):
                    stage.progress(f"{name} is replaced under {load.flowing} streams")
                    replaced_at = stage.clock.monotonic()
                    await mesh.restart(name)
                    await well(mesh, _PROVIDERS)
                    slowest_s = max(slowest_s, stage.clock.monotonic() - replaced_at)
            took_s = stage.clock.monotonic() - began_at
            await until(grown(load, _STREAMS), "answers after the deploy")
        toll = await ledger.toll(load.answers)
    # A balancer leaves a gateway that drains or is gone; every other refusal is a failed request.
    failed = sorted({why for one in load.answers for why in one.refusals} - _LEFT)
    return Outcome(
        lost_requests=len(load.lost),
        lost_micros=toll.lost_micros,
        recovery_s=slowest_s,
        unexpected=[
            *toll.unexpected,
            *(one.told() for one in load.lost),
            *(f"a request was refused with {why}" for why in failed),
        ],
        facts={"streams": _STREAMS, "deploy_s": round(took_s, 1), **load.facts()},
    )


DRILL = Drill(
    name="rolling-deploy",
    claim="every room is replaced one by one under 50 streams, and no request notices",
    runbooks=("deploy",),
    play=play,
    limit_s=420,
)
