"""A new release of the agent: not known, then known beside the old one, then bad and taken back."""

import shutil
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import darkbloom_provider
import grpc
from darkbloom.attestation.v1 import attestation_service_pb2 as rpc
from darkbloom.attestation.v1.attestation_service_pb2_grpc import AttestationServiceStub
from darkbloom_local import seeds
from darkbloom_local.mesh import Mesh

from tests.drills.drill import Drill, Outcome
from tests.drills.load import End, grown, steady
from tests.drills.stage import Stage
from tests.drills.toll import Ledger
from tests.mesh.harness import CALL_S, Fleet, until

_CLIENTS = 6
_NEW = "provider-2"


async def play(stage: Stage) -> Outcome:
    """Run a machine with changed code beside one with the old, bless the change, take it back."""
    odd: list[str] = []
    tree = _changed(stage.home / "tree")
    environment = {
        _NEW: {"PYTHONPATH": str(tree)},
        # A machine is asked again within seconds, not minutes.
        "router": {"DARKBLOOM_ROUTER_CHALLENGE_INTERVAL_S": "3"},
    }
    async with stage.mesh(environment=environment) as mesh:
        ledger, fleet = await Ledger.begin(mesh), Fleet(mesh)
        old = str(mesh.ready("provider")["provider_id"])
        async with steady(mesh, clients=_CLIENTS, tokens=20) as load:
            await until(grown(load, _CLIENTS), "answers of the old release")
            stage.progress("a machine of a release that nobody has blessed")
            await mesh.start_provider(_NEW, routable=False)
            new = str(mesh.ready(_NEW)["provider_id"])

            async def connected() -> bool:
                return new in await fleet.providers()

            await until(connected, "the new machine is connected")
            await until(grown(load, 2 * _CLIENTS), "answers meanwhile")
            if (await fleet.explain(new)).eligible:
                odd.append("code that nobody has blessed is routed to")

            stage.progress("the release is registered: both are routed to")
            measured = await _measured(mesh)
            await seeds.code_release(mesh.channel("attestation.grpc"), measured)
            await until(_routable(fleet, new), "the new release is routable")
            if not (await fleet.explain(old)).eligible:
                odd.append("registering a release took the one before out of routing")
            await until(grown(load, 3 * _CLIENTS), "answers of both releases")

            stage.progress("the release is bad: it is taken back")
            begun = stage.clock.monotonic()
            attestation = AttestationServiceStub(mesh.channel("attestation.grpc"))
            request = rpc.DeactivateCodeReleaseRequest(code_release=measured["code_release"])
            await attestation.DeactivateCodeRelease(request, timeout=CALL_S)
            await until(_routable(fleet, new, expected=False), "the bad release is out of routing")
            recovery_s = stage.clock.monotonic() - begun
            if not (await fleet.explain(old)).eligible:
                odd.append("taking a release back took the one before out of routing")
            await until(grown(load, 2 * _CLIENTS), "answers of the old release alone")
            odd += await _returned(mesh, measured)
        toll = await ledger.toll(load.answers)
    by_new = [one for one in load.answers if one.stream and one.stream.provider_id == new]
    if not any(one.end is End.WHOLE for one in by_new):
        odd.append("the blessed new release never answered")
    for one in load.lost:
        begun_there = one in by_new and one.end is End.BROKEN and one.words > 0
        if not (begun_there and one.sent_at <= begun + recovery_s and one.ended_at >= begun):
            odd.append(one.told())
    return Outcome(
        lost_requests=len(load.lost),
        lost_micros=toll.lost_micros,
        recovery_s=recovery_s,
        unexpected=[*odd, *toll.unexpected],
        facts={**load.facts(), **toll.facts(), "answered_by_the_new": len(by_new)},
    )


def _changed(tree: Path) -> Path:
    """Copy the agent and change a line that nobody runs."""
    source = Path(str(darkbloom_provider.__file__)).parent
    copy = shutil.copytree(source, tree / source.name, ignore=shutil.ignore_patterns("__pycache__"))
    with (copy / "app.py").open("a") as module:
        module.write("# a release of its own\n")
    return tree


async def _measured(mesh: Mesh) -> Mapping[str, Any]:
    """Return what the changed tree measures of itself."""
    setup = mesh._provider(_NEW)
    return await setup.code_release(mesh._launcher.provider_environment(setup))


def _routable(
    fleet: Fleet, provider_id: str, *, expected: bool = True
) -> Callable[[], Awaitable[bool]]:
    async def found() -> bool:
        return (await fleet.explain(provider_id)).eligible is expected

    return found


async def _returned(mesh: Mesh, measured: Mapping[str, Any]) -> list[str]:
    """A release that was taken back never returns, whoever asks."""
    stub = AttestationServiceStub(mesh.channel("attestation.grpc"))
    request = rpc.ActivateCodeReleaseRequest(code_release=measured["code_release"])
    try:
        await stub.ActivateCodeRelease(request, timeout=CALL_S)
    except grpc.aio.AioRpcError as error:
        refused = error.code() is grpc.StatusCode.FAILED_PRECONDITION
        return [] if refused else [f"activating it again ended with {error.code().name}"]
    return ["a release that was taken back is blessed again"]


DRILL = Drill(
    name="bad-release",
    claim="releases are blessed side by side, and one is taken back without touching the other",
    runbooks=("provider-release", "trust-incident"),
    expected="answers that had begun on machines of the release that is taken back",
    limit_s=300,
    play=play,
)
