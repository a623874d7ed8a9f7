"""What more replicas and more connected providers cost a request: CPU time, side by side.

One mesh for each number of replicas; its fleet grows while it runs. What the rooms spend without
any request (heartbeats, challenges, presence) is measured first and taken off.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from darkbloom.common.v1.page_pb2 import PageRequest
from darkbloom.router.v1 import fleet_service_pb2
from darkbloom.router.v1.fleet_service_pb2_grpc import FleetServiceStub
from darkbloom_local import models
from darkbloom_local.mesh import Mesh
from darkbloom_mesh.clock import SystemClock

from tests.bench import measure, ours, placement
from tests.bench.measure import LoadError
from tests.bench.scenarios import Scenario, timed
from tests.bench.systems import System
from tests.crowd.joining import crowd_programs, join

REPLICAS = (1, 2)
FLEETS = (1, 10, 100, 1000)
LOAD = Scenario(name="whole, 16 tokens, 16 at a time", tokens=16, concurrency=16)
_CROWDS = {1: (1,), 10: (9,), 100: (90,), 1000: (300, 300, 300)}
"""What joins to reach each size."""
_KNOWN_S = 300.0
_CALL_S = 30.0
_ROUTERS = "router"
_ENVIRONMENT = {
    "DARKBLOOM_ROUTER_REBALANCE_PER_S": "50",
}

Progress = Callable[[str], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One size of fleet under one number of replicas."""

    replicas: int
    providers: int
    cpu_us: dict[str, float]
    """CPU time of one request by room; replicas of the router are added up."""
    idle_cores: dict[str, float]
    """What each room keeps busy without requests."""
    p50_ms: float
    ttft_p50_ms: float
    failures: int


async def run(
    home: Path, seconds: float, progress: Progress, fleets: Sequence[int] = FLEETS
) -> list[Row]:
    """Measure every row.

    Raises:
        LoadError: Providers did not come, or nothing was answered.
    """
    return [
        row
        for replicas in REPLICAS
        for row in await _grow(home / f"replicas-{replicas}", replicas, fleets, seconds, progress)
    ]


async def _grow(
    state: Path, replicas: int, fleets: Sequence[int], seconds: float, progress: Progress
) -> list[Row]:
    crowds = [
        (f"provider-crowd-{fleet}-{number}", fleet, each)
        for fleet in fleets
        for number, each in enumerate(_CROWDS[fleet])
    ]
    programs: dict[str, list[str]] = {}
    for name, _, each in crowds:
        programs |= crowd_programs((name,), each)
    environment = {**ours.ENVIRONMENT, "router": _ENVIRONMENT, "router-2": _ENVIRONMENT}
    found: list[Row] = []
    async with Mesh(
        state, engine=None, environment=environment, programs=programs, routers=replicas
    ) as mesh:
        await ours.grant(mesh)
        rooms = dict(mesh.pids)
        if placement.can_pin():
            placement.pin(rooms.values(), placement.UNDER_TEST)
        for fleet in fleets:
            progress(f"{replicas} replicas: {fleet} providers")
            for name, size, each in crowds:
                if size == fleet:
                    await join(mesh, name, each)
                    if placement.can_pin():
                        placement.pin([mesh.pids[name]], placement.AROUND)
            await _known(mesh, fleet)
            found.append(await _measure(mesh, rooms, replicas, fleet, seconds))
    return found


async def _measure(
    mesh: Mesh, rooms: dict[str, int], replicas: int, fleet: int, seconds: float
) -> Row:
    system = System(
        name="darkbloom",
        port=mesh.wiring.ports["gateway.http"],
        api_key=mesh.api_key,
        model=models.SCRIPTED,
        processes=rooms,
        stores=("postgres", "valkey"),
    )
    clock = SystemClock()
    before, began = system.cpu(), clock.monotonic()
    await clock.sleep(seconds)
    idle_s = clock.monotonic() - began
    idle = {name: spent / idle_s for name, spent in placement.spent(before, system.cpu()).items()}
    began = clock.monotonic()
    sample = await measure.measure(system, timed(LOAD, seconds))
    took_s = clock.monotonic() - began
    requests = sample.seen["requests_total"]
    cpu_us: dict[str, float] = {}
    cores: dict[str, float] = {}
    for name, spent in sample.cpu_s.items():
        room = _ROUTERS if name.startswith(_ROUTERS) else name
        busy_s = max(0.0, spent - idle[name] * took_s)
        cpu_us[room] = cpu_us.get(room, 0.0) + busy_s * 1e6 / requests
        cores[room] = cores.get(room, 0.0) + idle[name]
    return Row(
        replicas=replicas,
        providers=fleet,
        cpu_us=cpu_us,
        idle_cores=cores,
        p50_ms=sample.figure("p50_ms"),
        ttft_p50_ms=sample.figure("ttft_p50_ms"),
        failures=sum(sample.seen["failures"].values()),
    )


async def _known(mesh: Mesh, count: int) -> None:
    """Return once each replica would offer so many providers."""
    clock = SystemClock()
    end = clock.monotonic() + _KNOWN_S
    for name in mesh.wiring.router_names:
        while (found := await _routable(mesh, name)) < count:
            if clock.monotonic() > end:
                raise LoadError(f"{name} knows {found} of {count} providers")
            await clock.sleep(0.5)
    await mesh.reachable()


async def _routable(mesh: Mesh, name: str) -> int:
    stub = FleetServiceStub(mesh.channel(f"{name}.internal"))
    found, token = 0, ""
    while True:
        answer = await stub.ListProviders(
            fleet_service_pb2.ListProvidersRequest(
                page=PageRequest(page_size=1000, page_token=token)
            ),
            timeout=_CALL_S,
            wait_for_ready=True,
        )
        found += sum(row.status == "online" and row.HasField("verdict") for row in answer.providers)
        token = answer.next_page_token
        if not token:
            return found


def table(rows: Sequence[Row]) -> str:
    """Return the rows for a person."""
    if not rows:
        return ""
    first = rows[0]
    lines = [
        "",
        (
            "| Replicas | Providers | Router, CPU µs a request | Gateway | Router / first row |"
            " p50 ms | First byte p50 ms | Router at rest, % of a core |"
        ),
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        router, base = row.cpu_us["router"], first.cpu_us["router"]
        lines.append(
            f"| {row.replicas} | {row.providers:,} | {router:,.0f} | {row.cpu_us['gateway']:,.0f} |"
            f" {router / base:.2f} | {row.p50_ms:.1f} | {row.ttft_p50_ms:.1f} |"
            f" {100 * row.idle_cores['router']:.1f} |"
        )
    return "\n".join(lines) + "\n"


def summary(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return the rows for a program."""
    return [
        {
            "replicas": row.replicas,
            "providers": row.providers,
            "cpu_us": {name: round(value, 1) for name, value in row.cpu_us.items()},
            "idle_cores": {name: round(value, 4) for name, value in row.idle_cores.items()},
            "p50_ms": round(row.p50_ms, 2),
            "ttft_p50_ms": round(row.ttft_p50_ms, 2),
            "failures": row.failures,
        }
        for row in rows
    ]
