"""One replica of each room in turn is killed under load, then starts again."""

from dataclasses import dataclass, field

from darkbloom_local.mesh import Mesh

from tests.drills.drill import Drill, Outcome
from tests.drills.load import Answer, End, Load, grown, steady
from tests.drills.rooms import BEHIND, ORDER, gateways, well
from tests.drills.stage import Stage
from tests.drills.toll import Ledger, Toll, most_micros
from tests.mesh.harness import until

_CLIENTS = 12
_TOKENS = 40
_PROVIDERS = 2
_ENDS = {
    **{room: {End.WHOLE} for room in BEHIND},
    "router": {End.WHOLE, End.BROKEN},
    # What it was writing ends with its connection: nobody is left to write an error.
    "gateway": {End.WHOLE, End.CUT},
}
"""How a request may end when a room is killed."""


@dataclass
class _Killed:
    """What one kill did."""

    room: str
    load: Load
    toll: Toll
    under_way: int
    """Requests that had been sent and had not ended when it was killed."""
    killed_at: float
    recovery_s: float
    unexpected: list[str] = field(default_factory=list)

    def judge(self) -> None:
        """Compare with what the room's README says."""
        self.unexpected += [f"{self.room}: {text}" for text in self.toll.unexpected]
        allowed = _ENDS[self.room]
        self.unexpected += [
            f"{self.room}: {one.told()}"
            for one in self.load.lost
            if one.end not in allowed or not one.broken_at(self.killed_at)
        ]
        most = most_micros(self.under_way, _TOKENS) if self.room == "gateway" else 0
        if self.toll.lost_micros > most:
            self.unexpected.append(
                f"{self.room}: {self.toll.lost_micros} micro-USD are lost, at most {most} may be"
            )


async def play(stage: Stage) -> Outcome:
    """Kill and start again, one room after the other."""
    killed: list[_Killed] = []
    async with stage.mesh(routers=2, replicas=2, providers=_PROVIDERS) as mesh:
        await well(mesh, _PROVIDERS)
        for room in ORDER:
            one = await _kill(stage, mesh, room)
            one.judge()
            killed.append(one)
            stage.progress(f"{room}: {one.load.facts()}, well after {one.recovery_s:.1f} s")
    lost: list[Answer] = [answer for one in killed for answer in one.load.lost]
    return Outcome(
        lost_requests=len(lost),
        lost_micros=sum(one.toll.lost_micros for one in killed),
        recovery_s=max(one.recovery_s for one in killed),
        unexpected=[text for one in killed for text in one.unexpected],
        facts={one.room: {**one.load.facts(), **one.toll.facts()} for one in killed},
    )


async def _kill(stage: Stage, mesh: Mesh, room: str) -> _Killed:
    ledger = await Ledger.begin(mesh)
    async with steady(mesh, clients=_CLIENTS, tokens=_TOKENS, urls=gateways(mesh)) as load:

        async def all_flow() -> bool:
            return load.flowing >= _CLIENTS // 2

        await until(grown(load, _CLIENTS), "answers before the break")
        await until(all_flow, "answers are under way")
        # Of a question that is on its way something may have come by the time the signal lands.
        under_way, killed_at = load.flowing + load.waiting, stage.clock.monotonic()
        mesh.kill(room)
        await mesh.restart(room)
        await well(mesh, _PROVIDERS)
        recovery_s = stage.clock.monotonic() - killed_at
        await until(grown(load, _CLIENTS), "answers afterwards")
    toll = await ledger.toll(load.answers)
    return _Killed(room, load, toll, under_way, killed_at, recovery_s)


DRILL = Drill(
    name="pod-kill",
    claim="one replica of each room is killed in turn; what had not begun there is answered",
    runbooks=("room-down",),
    expected=(
        "answers that had begun on the killed router or gateway break, and what came of them is"
        " paid; of what a killed gateway had written and not yet reported, one window is not"
    ),
    allowed_micros=most_micros(_CLIENTS, _TOKENS),
    play=play,
    limit_s=420,
)
