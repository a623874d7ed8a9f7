"""The rooms' certificates change under load, their authority too, and one runs out."""

from collections.abc import Awaitable, Callable
from datetime import timedelta

import grpc
from darkbloom_local.authority import LocalAuthority, operator_paths
from darkbloom_local.errors import LocalError
from darkbloom_local.mesh import Mesh
from darkbloom_mesh.callers import ROOMS
from darkbloom_mesh.channel import channel
from darkbloom_mesh.tls import TlsFiles
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.drills.drill import Drill, Outcome
from tests.drills.load import grown, steady
from tests.drills.rooms import seen
from tests.drills.stage import Stage
from tests.drills.toll import Ledger
from tests.mesh.harness import CALL_S, gateway_ready, metric, metrics_of, until

_CLIENTS = 8
_PROVIDERS = 2
_RUNNING = ("registry", "attestation", "billing", "router", "router-2", "gateway")
_SHORT = timedelta(seconds=12)
_REFUSED = "the certificate does not hold: certificate has expired"
_TAKEN = 'darkbloom_tls_reloads{result="taken"}'


async def rotation(stage: Stage) -> Outcome:
    """Renew every certificate, then replace the authority in the three steps of the runbook."""
    async with stage.mesh(providers=_PROVIDERS, routers=2, mtls=True) as mesh:
        ledger, lanes = await Ledger.begin(mesh), await _ended_lanes(mesh)
        async with steady(mesh, clients=_CLIENTS, tokens=60) as load:
            await until(grown(load, _CLIENTS), "answers before the change")
            began_at = stage.clock.monotonic()
            old = mesh.authority
            new = LocalAuthority(old.directory, stage.clock)
            steps: tuple[tuple[str, Callable[[], None]], ...] = (
                ("every certificate is renewed", lambda: old.issue(ROOMS)),
                ("two authorities are believed", lambda: new.believe(old.pem, new.pem)),
                ("the new one signs", lambda: new.issue(ROOMS)),
                ("the old one is forgotten", lambda: new.believe(new.pem)),
            )
            slowest_s = 0.0
            for what, change in steps:
                stage.progress(f"{what}, under {load.flowing} streams")
                changed_at = stage.clock.monotonic()
                await _taken_by_all(mesh, change)
                await until(grown(load, _CLIENTS), "answers afterwards")
                slowest_s = max(slowest_s, stage.clock.monotonic() - changed_at)
            took_s = stage.clock.monotonic() - began_at
            dropped = await _ended_lanes(mesh) - lanes
        toll = await ledger.toll(load.answers)
        # Whoever starts now has met the new authority only.
        mesh.kill("billing")
        await mesh.restart("billing")
        await gateway_ready(mesh)
    return Outcome(
        lost_requests=len(load.lost),
        lost_micros=toll.lost_micros,
        recovery_s=slowest_s,
        unexpected=[
            *toll.unexpected,
            *(one.told() for one in load.lost),
            *([f"{dropped:.0f} lanes were dropped"] if dropped else ()),
        ],
        facts={"changes": len(steps), "took_s": round(took_s, 1), **load.facts()},
    )


async def expiry(stage: Stage) -> Outcome:
    """Let the certificates of attestation and billing run out, then give them new ones."""
    wrong: list[str] = []
    async with stage.mesh(providers=_PROVIDERS, mtls=True) as mesh:
        ledger = await Ledger.begin(mesh)
        async with steady(mesh, clients=_CLIENTS, tokens=60) as load:
            await until(grown(load, _CLIENTS), "answers before")
            ends_at = stage.clock.now() + _SHORT
            await _taken_by_all(
                mesh,
                lambda: mesh.authority.issue(("attestation", "billing"), _SHORT),
                ("attestation", "billing"),
            )
            pid = mesh.pids["attestation"]

            async def over() -> bool:
                return stage.clock.now() > ends_at

            await until(over, "the certificates run out")
            stage.progress("they have run out; what is connected goes on")
            await until(grown(load, 2 * _CLIENTS), "answers over connections that are open")
            if heard := [why for one in load.answers for why in one.refusals]:
                wrong.append(f"refused while everybody was connected: {heard}")
            if (said := await _asked_anew(mesh)) is None:
                wrong.append("a new connection believed a certificate that has run out")
            stage.progress(f"a new connection is refused: {said}")

            mesh.kill("billing")
            try:
                await mesh.restart("billing")
                wrong.append("billing started with a certificate that has run out")
            except LocalError as error:
                if _REFUSED not in str(error):
                    wrong.append(f"billing does not say why it refuses to start: {error}")
            stage.progress("billing does not start with it, and says why; new ones are issued")

            renewed_at = stage.clock.monotonic()
            mesh.authority.issue(("attestation", "billing"))
            await mesh.restart("billing")

            async def believed() -> bool:
                return await _asked_anew(mesh) is None

            await until(believed, "attestation shows its new certificate")
            await gateway_ready(mesh)
            await until(grown(load, _CLIENTS), "answers afterwards")
            recovery_s = stage.clock.monotonic() - renewed_at
            if mesh.pids["attestation"] != pid:
                wrong.append("attestation was restarted")
        toll = await ledger.toll(load.answers)
        if len(await seen(mesh, "router")) != _PROVIDERS:
            wrong.append("a provider is gone")
    return Outcome(
        lost_requests=len(load.lost),
        lost_micros=toll.lost_micros,
        recovery_s=recovery_s,
        unexpected=[*toll.unexpected, *wrong, *(one.told() for one in load.lost)],
        facts={"refusal": said, **load.facts()},
    )


async def _taken_by_all(
    mesh: Mesh, change: Callable[[], None], names: tuple[str, ...] = _RUNNING
) -> None:
    """Change files; return once each process has taken the new set."""
    before = {name: await metric(mesh, name, _TAKEN) for name in names}
    change()
    for name in names:
        await until(_more(mesh, name, before[name]), f"{name} takes the files")


def _more(mesh: Mesh, name: str, before: float) -> Callable[[], Awaitable[bool]]:
    async def more() -> bool:
        return await metric(mesh, name, _TAKEN) > before

    return more


async def _ended_lanes(mesh: Mesh) -> float:
    """Return how many lanes have ended anywhere."""
    pages = [await metrics_of(mesh, name) for name in ("gateway", "router", "router-2")]
    return sum(
        float(line.rpartition(" ")[2])
        for page in pages
        for line in page.splitlines()
        if line.startswith("darkbloom_lane_ends_total{")
    )


async def _asked_anew(mesh: Mesh) -> str | None:
    """Ask attestation on a new connection; return why it fails, None where it does not."""
    directory = mesh.wiring.tls
    assert directory is not None
    async with channel(
        mesh.wiring.address("attestation.grpc"),
        mesh_token=None,
        room="drill",
        tls=TlsFiles(operator_paths(directory)),
        peer="attestation",
    ) as opened:
        try:
            await health_pb2_grpc.HealthStub(opened).Check(
                health_pb2.HealthCheckRequest(), timeout=CALL_S
            )
        except grpc.aio.AioRpcError as error:
            return str(error.details())
    return None


DRILLS = (
    Drill(
        name="certificate-rotation",
        claim="certificates and their authority are replaced under load, and no lane drops",
        runbooks=("certificates",),
        play=rotation,
        limit_s=300,
    ),
    Drill(
        name="certificate-expiry",
        claim="what is connected goes on, new connections are refused, a new file is enough",
        runbooks=("certificates",),
        play=expiry,
        limit_s=300,
    ),
)
