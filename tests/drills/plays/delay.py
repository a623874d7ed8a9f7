"""The way between agents and router becomes long, as over a satellite, and short again."""

from collections.abc import Awaitable, Callable
from statistics import median

from tests.drills.drill import Drill, Outcome
from tests.drills.load import Answer, Load, grown, steady
from tests.drills.stage import Stage
from tests.drills.toll import Ledger
from tests.mesh.harness import Fleet, until
from tests.mesh.valves import to_port, valve

_CLIENTS = 6
_DELAY_S = 0.4
_ROUND_S = 2 * _DELAY_S
_ANSWERS = 18


async def play(stage: Stage) -> Outcome:
    """Put 0.4 s on each way between the only machine and the router."""
    async with (
        stage.mesh(providers=0) as mesh,
        valve(to_port(mesh.wiring.address("router.public"))) as link,
    ):
        mesh._launcher.environment["provider"] = {
            "DARKBLOOM_PROVIDER_COORDINATOR": f"127.0.0.1:{link.port}"
        }
        await mesh.start_provider(engine="scripted")
        await Fleet(mesh).wait_routable()
        ledger = await Ledger.begin(mesh)
        async with steady(mesh, clients=_CLIENTS, tokens=20) as load:
            await until(grown(load, _ANSWERS), "answers over a short way")
            near = _first_s(load.answers)
            stage.progress(f"{_DELAY_S} s more, each way")
            at, link.delay_s = len(load.answers), _DELAY_S
            await until(grown(load, _ANSWERS + _CLIENTS), "answers over a long way")
            far = _first_s(load.answers[at + _CLIENTS :])
            stage.progress("the way is short again")
            begun, link.delay_s = stage.clock.monotonic(), 0.0
            await until(_as_before(load, begun, near), "an answer that begins as soon as before")
            recovery_s = stage.clock.monotonic() - begun
        toll = await ledger.toll(load.answers)
    odd = [*toll.unexpected, *(one.told() for one in load.lost)]
    if not near + _ROUND_S * 0.9 <= far <= near + _ROUND_S * 3:
        odd.append(f"first content after {far:.2f} s, {near:.2f} s without the delay")
    return Outcome(
        lost_requests=len(load.lost),
        lost_micros=toll.lost_micros,
        recovery_s=recovery_s,
        unexpected=odd,
        facts={
            **load.facts(),
            "first_content_s": round(near, 3),
            "first_content_delayed_s": round(far, 3),
        },
    )


def _first_s(answers: list[Answer]) -> float:
    """Return the median time to first content."""
    return median(one.first_at - one.asked_at for one in answers if one.first_at is not None)


def _as_before(load: Load, since: float, near: float) -> Callable[[], Awaitable[bool]]:
    async def found() -> bool:
        return any(
            one.first_at is not None and one.first_at - one.asked_at < near + _DELAY_S
            for one in load.answers
            if one.asked_at > since
        )

    return found


DRILL = Drill(
    name="delay",
    claim="a long way to the machines costs its round trip once and nothing else",
    runbooks=("slow-answers",),
    limit_s=300,
    play=play,
)
