"""A version floor: nobody is below it, one machine is, everybody is, and it is taken back."""

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import grpc
from darkbloom.router.v1 import fleet_service_pb2
from darkbloom.router.v1.fleet_service_pb2_grpc import FleetServiceStub
from darkbloom_local import seeds
from darkbloom_local.mesh import Mesh
from darkbloom_local.models import SCRIPTED
from darkbloom_local.wiring import ROUTER

from tests.drills.desk import python
from tests.drills.drill import Drill, Outcome
from tests.drills.load import answered_since, grown, steady
from tests.drills.rooms import both, seen
from tests.drills.stage import Stage
from tests.drills.toll import Ledger
from tests.mesh.harness import CALL_S, QUICK, Books, Consumer, Fleet, gateway_ready, until

_CLIENTS = 4
_OLD = "provider-2"
_OLD_VERSION = "0.0.1"
_CHALLENGE_S = 2
_CYCLES = 4
"""So many challenges are watched before a gate is called done."""
_FLOOR = "DARKBLOOM_ROUTER_MIN_VERSION"
_GATE = "runtime_unverified"
"""What records call the gate of the version."""
_QUICK = {
    **QUICK["router"],
    "DARKBLOOM_ROUTER_CHALLENGE_INTERVAL_S": str(_CHALLENGE_S),
    # A request waits in line for a machine that comes back, by default for two minutes.
    "DARKBLOOM_ROUTER_QUEUE_WAIT_S": "3",
}


async def play(stage: Stage) -> Outcome:
    """Raise the floor by the census, then above everybody by mistake, and find that by the book."""
    odd: list[str] = []
    here = metadata.version("darkbloom-provider")
    routers = dict.fromkeys(both("router"), _QUICK)
    environment = {**routers, _OLD: {"PYTHONPATH": str(_older(stage.home / "older"))}}
    async with stage.mesh(routers=2, records=True, environment=environment) as mesh:
        fleet = Fleet(mesh)
        await seeds.code_release(mesh.channel("attestation.grpc"), await _measured(mesh))
        await mesh.start_provider(_OLD)
        probe, _ = await Books(mesh).new_account(grant_micros=1_000_000)
        ledger = await Ledger.begin(mesh)
        async with steady(mesh, clients=_CLIENTS, tokens=12, patience_s=90) as load:
            stage.progress("a floor that nobody is below: it is there and refuses nothing")
            await _floor(mesh, _OLD_VERSION)
            await until(_routed(mesh, {_OLD_VERSION, here}), "both versions are routed to")
            census = Counter(row.version for row in (await fleet.providers()).values())
            if census != {here: 1, _OLD_VERSION: 1}:
                odd.append(f"the census says {dict(census)}")

            stage.progress(f"census {dict(census)}: the floor becomes {here}")
            await _floor(mesh, here)
            await until(_routed(mesh, {here}), "the old version is not routed to")
            watched = stage.clock.monotonic()
            await stage.clock.sleep(_CHALLENGE_S * _CYCLES)
            await until(grown(load, _CLIENTS), "answers of the new version")
            if len(await _eligible(mesh)) != census[here]:
                odd.append("another number of machines is routable than the census said")
            below = [
                row.provider_id
                for row in (await fleet.providers()).values()
                if row.version == _OLD_VERSION
            ]
            if not below:
                odd.append("a machine below the floor is disconnected")
            odd += [
                "a machine below the floor answered"
                for one in load.answers
                if one.sent_at > watched and one.stream and one.stream.provider_id in below
            ]

            stage.progress("by mistake the floor rises above everybody")
            await _floor(mesh, "99.0.0")
            heard, reason, named = await _asked_why(mesh, probe)
            stage.progress(f"requests hear {heard}, and `why` says {reason}")
            odd += named

            stage.progress("that change is the incident: it is undone")
            undone_at = stage.clock.monotonic()
            await _floor(mesh, "")
            recovery_s = await answered_since(load, undone_at) - undone_at
            await until(_routed(mesh, {_OLD_VERSION, here}), "both versions are routed to again")
            await until(grown(load, 2 * _CLIENTS), "answers afterwards")
        toll = await ledger.toll(load.answers)
    return Outcome(
        lost_requests=len(load.lost),
        lost_micros=toll.lost_micros,
        recovery_s=recovery_s,
        unexpected=[*odd, *toll.unexpected, *(one.told() for one in load.lost)],
        facts={**load.facts(), "heard": heard, "why": reason},
    )


def _older(site: Path) -> Path:
    """Make a directory in which the agent's distribution is of an older version."""
    told = site / f"darkbloom_provider-{_OLD_VERSION}.dist-info"
    told.mkdir(parents=True)
    head = "Metadata-Version: 2.1\nName: darkbloom-provider"
    (told / "METADATA").write_text(f"{head}\nVersion: {_OLD_VERSION}\n")
    return site


async def _measured(mesh: Mesh) -> Mapping[str, Any]:
    """Return what the older agent measures of itself."""
    setup = mesh._provider(_OLD)
    return await setup.code_release(mesh._launcher.provider_environment(setup))


async def _floor(mesh: Mesh, version: str) -> None:
    """Roll both routers with a floor; each is known to machines again before the next goes."""
    for name in both("router"):
        await mesh.restart(name, {**_QUICK, _FLOOR: version})
        await until(_knows(mesh, name), f"{name} knows both machines")
    await gateway_ready(mesh)


def _knows(mesh: Mesh, router: str) -> Callable[[], Awaitable[bool]]:
    async def both_machines() -> bool:
        return len(await seen(mesh, router)) == len((_OLD, "provider"))

    return both_machines


async def _eligible(mesh: Mesh) -> set[str]:
    """Return the versions of the machines that some router would offer a request.

    A router explains the machines that are connected to it, so each is asked.
    """
    found: set[str] = set()
    for name in both("router"):
        stub = FleetServiceStub(mesh.channel(f"{name}.internal"))
        rows = await stub.ListProviders(
            fleet_service_pb2.ListProvidersRequest(), timeout=CALL_S, wait_for_ready=True
        )
        for row in rows.providers:
            request = fleet_service_pb2.ExplainProviderRequest(
                provider=row.provider_id, build=SCRIPTED
            )
            try:
                told = await stub.ExplainProvider(request, timeout=CALL_S)
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.NOT_FOUND:
                    raise
                continue
            if told.explanations[0].eligible:
                found.add(row.version)
    return found


def _routed(mesh: Mesh, versions: set[str]) -> Callable[[], Awaitable[bool]]:
    async def exactly() -> bool:
        return await _eligible(mesh) == versions

    return exactly


async def _asked_why(mesh: Mesh, api_key: str) -> tuple[int, str, list[str]]:
    """Ask under a floor that is too high; return the status, the recorded reason, what is odd."""
    odd = []
    probe = Consumer(mesh, api_key)
    refused = await probe.ask(tokens=1)
    if refused.status_code == 200:
        odd.append("a machine below the floor answered")
    why = await _why(mesh)
    if why.get("gates", {}).get(_GATE, 0) < 1:
        odd.append(f"`why` does not name the gate: {why}")
    if await _eligible(mesh):
        odd.append("ExplainProvider says that a machine below the floor is eligible")
    sums = await probe.get("/v1/models/capacity")
    if sums.status_code != 200:
        odd.append(f"/v1/models/capacity answers {sums.status_code}")
    return refused.status_code, str(why.get("reason", "")), odd


async def _why(mesh: Mesh) -> Mapping[str, Any]:
    """Return what `why` says of the last refusal; records are a second late."""
    environment = mesh._launcher.room_environment(ROUTER)

    async def told() -> Mapping[str, Any] | None:
        said = await python(
            environment, "-m", "darkbloom_router", "why", "--build", SCRIPTED, "--json"
        )
        rows = said.json["refusals"] if said.code == 0 else []
        return next((row for row in rows if row["gates"]), None)

    found: Mapping[str, Any] = await until(told, "`why` knows of the request")
    return found


DRILL = Drill(
    name="version-floor",
    claim="a floor shuts out whom the census named; one too high is named by `why`, and undone",
    runbooks=("version-floor", "gates", "no-capacity", "requests-fail"),
    limit_s=300,
    play=play,
)
