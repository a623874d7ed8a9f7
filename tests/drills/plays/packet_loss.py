"""One packet in twenty is lost on every connection of the mesh, and of its consumers."""

from tests.drills.drill import Drill, Outcome
from tests.drills.inside import NETWORK, in_namespaces, packets_dropped, run
from tests.drills.load import grown, steady
from tests.drills.needs import NETWORK_NAMESPACE, NFT, ROOT, program
from tests.drills.rooms import both
from tests.drills.stage import Stage
from tests.drills.toll import Ledger
from tests.mesh.harness import until

_CLIENTS = 6
_ANSWERS = 36
_PERCENT = 5
_ROUTERS = both("router")
_ROUTER = {"DARKBLOOM_ROUTER_BREAK_SETTLE_DELAY_S": "30"}
"""As in production. Drills hurry it to half a second, which one lost packet takes: then a whole
answer is settled before the gateway's word of it has come.
"""


async def play(stage: Stage) -> Outcome:
    """Play it in a network of its own."""
    return await in_namespaces(stage, __name__, (NETWORK,))


async def inside(stage: Stage) -> Outcome:
    """Drop packets of the loopback at random, answer, stop dropping."""
    async with stage.mesh(
        routers=2, providers=2, environment=dict.fromkeys(_ROUTERS, _ROUTER)
    ) as mesh:
        ledger = await Ledger.begin(mesh)
        async with steady(mesh, clients=_CLIENTS, tokens=20) as load:
            await until(grown(load, _CLIENTS), "answers before")
            stage.progress(f"{_PERCENT} % of all packets are dropped")
            run("nft", "add", "table", "inet", "drill")
            run("nft", "add chain inet drill in { type filter hook input priority 0; }")
            drop = f"meta l4proto tcp numgen random mod 100 < {_PERCENT} counter drop"
            run("nft", f"add rule inet drill in {drop}")
            await until(grown(load, _ANSWERS), "answers on a lossy network", 120)
            stage.progress("the network is well again")
            dropped = packets_dropped()
            run("nft", "delete", "table", "inet", "drill")
            begun = stage.clock.monotonic()
            await until(grown(load, 2 * _CLIENTS), "answers afterwards")
            recovery_s = stage.clock.monotonic() - begun
        toll = await ledger.toll(load.answers)
    return Outcome(
        lost_requests=len(load.lost),
        lost_micros=toll.lost_micros,
        recovery_s=recovery_s,
        unexpected=[
            *([] if dropped else ["no packet was dropped"]),
            *toll.unexpected,
            *(one.told() for one in load.lost),
        ],
        facts={**load.facts(), "packets_dropped": dropped},
    )


DRILL = Drill(
    name="packet-loss",
    claim="a network that loses one packet in twenty makes answers slow, and loses none",
    runbooks=("slow-answers",),
    needs=(ROOT, NETWORK_NAMESPACE, NFT, program("ip")),
    limit_s=300,
    play=play,
)
