"""Every room has its own idea of the time; then one machine's clock is an hour wrong."""

from collections import Counter

from darkbloom_local.errors import NotReadyError
from darkbloom_local.mesh import Mesh

from tests.drills.drill import Drill, Outcome
from tests.drills.load import Load, grown, steady
from tests.drills.stage import Stage
from tests.drills.toll import Ledger
from tests.mesh.harness import Consumer, Fleet, until

_OFFSET = "DARKBLOOM_CLOCK_OFFSET_S"
_TOLERATED = {
    "gateway": 59,
    "router": -59,
    "attestation": 59,
    "billing": -59,
    "registry": 20,
    "provider": 59,
    "provider-2": -59,
}
"""Seconds; every document allows two minutes between any two, and requests take a moment."""
_HOUR_S = 3600
_SETTLE_S = 10.0
_CLIENTS = 6
_WRONG = "provider-2"
_DISTRUST = "untrusted: stale"
"""What its answers to challenges are to everybody else."""


async def play(stage: Stage) -> Outcome:
    """Answer, charge and prove with skewed clocks; then lose a machine to its clock, regain it."""
    wrong: list[str] = []
    verdicts: dict[str, str] = {}
    environment = {name: {_OFFSET: str(seconds)} for name, seconds in _TOLERATED.items()}
    async with stage.mesh(providers=2, environment=environment) as mesh:
        ledger = await Ledger.begin(mesh)
        async with steady(mesh, clients=_CLIENTS, tokens=20) as load:
            await until(grown(load, 4 * _CLIENTS), "answers while everybody is a little wrong")
            if load.asked_again():
                wrong.append(f"refused within the tolerance: {load.asked_again()}")
            wrong += await _unproven(mesh, load)

            for seconds in (_HOUR_S, -_HOUR_S):
                stage.progress(f"the clock of {_WRONG} is set {seconds} s off")
                await _set(mesh, seconds)
                verdict = verdicts[f"{seconds:+d} s"] = await _verdict(mesh)
                if _DISTRUST not in verdict:
                    wrong.append(f"a machine {seconds:+d} s off: {verdict}")
                before = len(load.answers)
                await until(grown(load, 4 * _CLIENTS), "answers while a machine is an hour wrong")
                if len(served := _served(load, before)) != 1:
                    wrong.append(f"with a machine {seconds:+d} s off answered {dict(served)}")

            right_at = stage.clock.monotonic()
            stage.progress(f"the clock of {_WRONG} is right again")
            await _set(mesh, 0)
            await Fleet(mesh).wait_routable(2)
            recovery_s = stage.clock.monotonic() - right_at
            before = len(load.answers)

            async def both_serve() -> bool:
                return len(_served(load, before)) == 2

            await until(both_serve, "both machines serve again")
        toll = await ledger.toll(load.answers)
    return Outcome(
        lost_requests=len(load.lost),
        lost_micros=toll.lost_micros,
        recovery_s=recovery_s,
        unexpected=[*toll.unexpected, *wrong, *(one.told() for one in load.lost)],
        facts={**load.facts(), "a_machine_off_by": verdicts},
    )


async def _set(mesh: Mesh, seconds: int) -> None:
    """Restart the machine with another clock; return once it is there, trusted or not."""
    await mesh.stop(_WRONG)
    mesh._launcher.environment[_WRONG] = {_OFFSET: str(seconds)}
    await mesh.start_provider(_WRONG, routable=False)


async def _verdict(mesh: Mesh) -> str:
    """Return whether the router would use the machine, and if not, why."""
    try:
        await mesh.routable(_WRONG, _SETTLE_S)
    except NotReadyError as error:
        return str(error)
    return "routed"


def _served(load: Load, since: int) -> Counter[str]:
    """Return who answered."""
    return Counter(one.stream.provider_id for one in load.answers[since:] if one.stream)


async def _unproven(mesh: Mesh, load: Load) -> list[str]:
    """Return what does not hold of the newest receipt."""
    stream = load.answers[-1].stream
    if stream is None:
        return ["no answer to prove"]
    report = await Consumer(mesh).verify(stream.receipt, answer=stream.text)
    return [] if report.ok else [f"a receipt does not hold: {report}"]


DRILL = Drill(
    name="clock-skew",
    claim="rooms 118 s apart answer, charge and prove; a machine an hour off gets no request",
    runbooks=("trust-incident",),
    play=play,
    limit_s=300,
)
