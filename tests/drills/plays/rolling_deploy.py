"""Every room is replaced, one replica after the other, under fifty streams: nobody notices."""

from collections import Counter

from tests.drills.drill import Drill, Outcome
from tests.drills.load import Answer, End, grown, steady
from tests.drills.rooms import ORDER, both, gateways, well
from tests.drills.stage import Stage
from tests.drills.toll import Ledger
from tests.mesh.harness import until

_STREAMS = 50
_PROVIDERS = 4
_TOKENS = 30
_INTERVAL_S = 0.1
_MIN_READY_S = 5.0
"""A replica that is ready is given this before the next one goes, so that everybody has dialled it
again; Kubernetes gives ours 30 s (`minReadySeconds`)."""
_LEAVES = "this gateway is draining"


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
                    await stage.clock.sleep(_MIN_READY_S)
            took_s = stage.clock.monotonic() - began_at
            await until(grown(load, _STREAMS), "answers after the deploy")
        toll = await ledger.toll(load.answers)
    failed = [one for one in load.answers if _failures(one)]
    heard = Counter(failure for one in failed for failure in _failures(one))
    lost = [*load.lost, *(one for one in failed if one.end is End.WHOLE)]
    return Outcome(
        lost_requests=len(lost),
        lost_micros=toll.lost_micros,
        recovery_s=slowest_s,
        unexpected=[
            *toll.unexpected,
            *(one.told() for one in load.lost),
            *(f"{count} requests heard {why}" for why, count in sorted(heard.items())),
        ],
        facts={"streams": _STREAMS, "deploy_s": round(took_s, 1), **load.facts()},
    )


def _failures(answer: Answer) -> list[str]:
    """Return what no balancer would have hidden.

    One leaves a gateway that is not there, or that says that it leaves before it takes anything. It
    sends nothing twice that was sent: a connection that ends under a request is a failed request,
    and so is any other refusal, of a full line or an empty bucket too.
    """
    return [
        f"{why}: {reason}"
        for why, reason in zip(answer.refusals, answer.reasons, strict=True)
        if why != "ConnectError" and not (why == "429" and _LEAVES in reason)
    ]


DRILL = Drill(
    name="rolling-deploy",
    claim="every room is replaced one by one under 50 streams, and no request notices",
    runbooks=("deploy",),
    play=play,
    limit_s=420,
)
