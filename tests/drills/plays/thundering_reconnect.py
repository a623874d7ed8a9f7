"""Every machine loses every router at once, and they come back without trampling anybody."""

import asyncio
import os
from pathlib import Path

from darkbloom_local.mesh import Mesh
from darkbloom_mesh.clock import Clock

from tests.crowd.joining import crowd_names, crowd_programs, join
from tests.drills.drill import Drill, Outcome
from tests.drills.load import answered_since, grown, steady
from tests.drills.rooms import both, seen
from tests.drills.stage import Stage
from tests.drills.toll import Ledger
from tests.mesh.harness import gateway_ready, metric, until

_PROCESSES = 4
_MACHINES = int(os.environ.get("DARKBLOOM_DRILL_MACHINES", "1000"))  # noqa: TID251 - how many
_EACH = _MACHINES // _PROCESSES
_CLIENTS = 8
_DIALS_PER_MACHINE = 4
_MOST = 0.95
_TURNED_AWAY = 'darkbloom_provider_streams_refused_total{reason="pace"}'
_LOOK_S = 0.5
_PATIENCE_S = 420.0
_ROUTER = {
    "DARKBLOOM_ROUTER_REBALANCE_PER_S": "50",
    # As in production; the half second of other drills is over before a starved gateway's word.
    "DARKBLOOM_ROUTER_BREAK_SETTLE_DELAY_S": "30",
}
_ROUTERS = both("router")


async def play(stage: Stage) -> Outcome:
    """Kill both routers at once under load; time until most and all machines are back."""
    names, clock = crowd_names(_PROCESSES), stage.clock
    async with stage.mesh(
        providers=0,
        routers=len(_ROUTERS),
        programs=crowd_programs(names, _EACH),
        environment=dict.fromkeys(_ROUTERS, _ROUTER),
    ) as mesh:
        stage.progress(f"{_MACHINES} machines register for the first time")
        joined_at = clock.monotonic()
        async with asyncio.TaskGroup() as crowds:
            for name in names:
                crowds.create_task(join(mesh, name, _EACH))
        await _back(mesh, clock, _MACHINES)
        await gateway_ready(mesh)
        first_s = clock.monotonic() - joined_at
        stage.progress(f"they took {first_s:.0f} s; now both routers die")

        ledger = await Ledger.begin(mesh)
        async with steady(
            mesh, clients=_CLIENTS, tokens=40, limit_s=2 * _PATIENCE_S, patience_s=120.0
        ) as load:
            await until(grown(load, 2 * _CLIENTS), "answers before the break")
            killed_at = clock.monotonic()
            for name in _ROUTERS:
                mesh.kill(name)
            for name in _ROUTERS:
                await mesh.restart(name)
            up_s = clock.monotonic() - killed_at
            most_s = await _back(mesh, clock, int(_MACHINES * _MOST)) - killed_at
            stage.progress(f"95 % are back after {most_s:.1f} s")
            all_s = await _back(mesh, clock, _MACHINES) - killed_at
            stage.progress(f"all are back after {all_s:.1f} s")
            answered_s = await answered_since(load, killed_at) - killed_at
            await until(grown(load, 2 * _CLIENTS), "answers afterwards")
            dials = await _total(mesh, "darkbloom_provider_stream_opens_total")
            away = await _total(mesh, _TURNED_AWAY)
            busy_s = [_processor_s(mesh, name) for name in _ROUTERS]
            lived_s = clock.monotonic() - killed_at
        toll = await ledger.toll(load.answers)
    begun = [one for one in load.lost if one.broken_at(killed_at)]
    strange = [one.told() for one in load.lost if one not in begun]
    if dials > _DIALS_PER_MACHINE * _MACHINES:
        strange.append(f"{dials:.0f} streams were opened by {_MACHINES} machines")
    return Outcome(
        lost_requests=len(load.lost),
        lost_micros=toll.lost_micros,
        recovery_s=all_s,
        unexpected=[*toll.unexpected, *strange],
        facts={
            "machines": _MACHINES,
            "first_registration_s": round(first_s, 1),
            "routers_up_s": round(up_s, 1),
            "most_back_s": round(most_s, 1),
            "all_back_s": round(all_s, 1),
            "first_answer_s": round(answered_s, 1),
            "streams_opened": int(dials),
            "told_to_come_again": int(away),
            "router_processor_s": busy_s,
            "routers_lived_s": round(lived_s, 1),
            **load.facts(),
            **toll.facts(),
        },
    )


async def _total(mesh: Mesh, sample: str) -> float:
    """Return a sample, summed over the routers."""
    return sum([await metric(mesh, name, sample) for name in _ROUTERS])


def _processor_s(mesh: Mesh, name: str) -> float | None:
    """Return how long a process has kept a processor busy; None where nothing tells."""
    path = Path(f"/proc/{mesh.ready(name)['pid']}/stat")
    if not path.exists():
        return None
    # After the name in brackets: 11 fields, then user and system time in ticks.
    ticks = path.read_text().rpartition(")")[2].split()[11:13]
    return round(sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK"), 1)


async def _back(mesh: Mesh, clock: Clock, count: int) -> float:
    """Return when either router would offer so many machines a request.

    Raises:
        AssertionError: They were not in time.
    """
    end = clock.monotonic() + _PATIENCE_S
    while max([len(await seen(mesh, name)) for name in _ROUTERS]) < count:
        assert clock.monotonic() < end, f"{count} machines are not back after {_PATIENCE_S:.0f} s"
        # A list of a thousand costs the routers what they need for coming back.
        await clock.sleep(_LOOK_S)
    return clock.monotonic()


DRILL = Drill(
    name="thundering-reconnect",
    claim="machines that lose every router at once are back in bounded time and dials",
    runbooks=("fleet-drop",),
    expected="answers that had begun when both routers died, paid for what came of them",
    play=play,
    limit_s=1500,
)
