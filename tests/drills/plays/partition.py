"""One router replica cannot be reached any more; it lives, and its own calls still go out."""

from tests.drills.drill import Drill, Outcome
from tests.drills.inside import NETWORK, in_namespaces, packets_dropped, run
from tests.drills.load import End, grown, steady
from tests.drills.needs import NETWORK_NAMESPACE, NFT, ROOT, program
from tests.drills.stage import Stage
from tests.drills.toll import Ledger
from tests.mesh.harness import Fleet, until
from tests.mesh.test_two_partitions import rows

_CLIENTS = 6
_PROVIDERS = 3
_CUT = "router-2"
_ROUTERS = ("router", _CUT)
_AWAY_ANSWERS = 60
_PATIENT = {name: {"DARKBLOOM_ROUTER_BREAK_SETTLE_DELAY_S": "30"} for name in _ROUTERS}
"""As in production: a machine may come back with its terminal before the break is settled."""


async def play(stage: Stage) -> Outcome:
    """Play it in a network of its own."""
    return await in_namespaces(stage, __name__, (NETWORK,))


async def inside(stage: Stage) -> Outcome:
    """Drop what goes to its listeners and what they say, answer, heal."""
    async with stage.mesh(routers=2, providers=_PROVIDERS, environment=_PATIENT) as mesh:
        ports = ", ".join(
            mesh.wiring.address(f"{_CUT}.{listener}").rpartition(":")[2]
            for listener in ("public", "internal")
        )
        ledger = await Ledger.begin(mesh)
        async with steady(mesh, clients=_CLIENTS, tokens=20, patience_s=90) as load:
            await until(grown(load, 2 * _CLIENTS), "answers before")
            stage.progress(f"{_CUT} is cut off")
            run("nft", "add", "table", "inet", "drill")
            run("nft", "add chain inet drill in { type filter hook input priority 0; }")
            for side in ("dport", "sport"):
                run("nft", f"add rule inet drill in tcp {side} {{ {ports} }} counter drop")
            cut_at = stage.clock.monotonic()
            await until(grown(load, _AWAY_ANSWERS), "answers without it", 120)
            stage.progress("the network is whole again")
            dropped = packets_dropped()
            run("nft", "delete", "table", "inet", "drill")
            healed_at = stage.clock.monotonic()

            async def everybody() -> bool:
                counts = [len(await rows(mesh, name)) for name in _ROUTERS]
                return counts == [_PROVIDERS] * len(_ROUTERS)

            await until(everybody, "both replicas know every machine", 90)
            recovery_s = stage.clock.monotonic() - healed_at
            await until(grown(load, 2 * _CLIENTS), "answers afterwards")
        longest = max(one.ended_at - one.asked_at for one in load.answers)
        toll = await ledger.toll(load.answers)
        await Fleet(mesh).wait_routable(_PROVIDERS)
    odd = [
        one.told() for one in load.lost if one.end is not End.BROKEN or not one.broken_at(cut_at)
    ]
    return Outcome(
        lost_requests=len(load.lost),
        lost_micros=toll.lost_micros,
        recovery_s=recovery_s,
        unexpected=[*toll.unexpected, *odd],
        facts={
            **load.facts(),
            **toll.facts(),
            "packets_dropped": dropped,
            "longest_answer_s": round(longest, 1),
            "cut_off_s": round(healed_at - cut_at, 1),
        },
    )


DRILL = Drill(
    name="partition",
    claim="a replica that cannot be reached costs the answers that it carried, and no others",
    runbooks=("fleet-drop", "room-down"),
    expected="answers that had begun through the replica break, and are paid for what came",
    needs=(ROOT, NETWORK_NAMESPACE, NFT, program("ip")),
    limit_s=300,
    play=play,
)
