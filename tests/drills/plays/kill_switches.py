"""Everything new is stopped at once and opened again; then one build is, by a setting."""

from collections.abc import Mapping
from typing import Any

import httpx
from darkbloom_local.mesh import Mesh
from darkbloom_local.models import SCRIPTED

from tests.drills.drill import Drill, Outcome
from tests.drills.load import Load, answered_since, grown, steady
from tests.drills.rooms import both, gateways, well
from tests.drills.stage import Stage
from tests.drills.toll import Ledger
from tests.mesh.harness import CALL_S, QUICK, Books, Consumer, script, until

_CLIENTS = 6
_PROVIDERS = 2
_TOKENS = 20
_DRAIN = "/v1/admin/drain"
_SHUT = (429, "3")
"""What a client hears of a drained mesh: the status, and when to ask again."""


async def play(stage: Stage) -> Outcome:
    """Drain, take Valkey and a gateway away meanwhile, open; reject one build, and take it back."""
    odd: list[str] = []
    async with stage.mesh(routers=2, replicas=2, providers=_PROVIDERS) as mesh:
        await well(mesh, _PROVIDERS)
        # Whoever tries the switch pays for what gets through: apart from the load's books.
        probe, _ = await Books(mesh).new_account(grant_micros=1_000_000)
        first, second = gateways(mesh)
        ledger = await Ledger.begin(mesh)
        async with steady(
            mesh, clients=_CLIENTS, urls=(first, second), tokens=_TOKENS, patience_s=90
        ) as load:
            await until(grown(load, _CLIENTS), "answers before the switch")
            stage.progress("all new inference is stopped at one gateway")
            pulled_at = stage.clock.monotonic()
            assert await _drain(mesh, first) == {"draining": False}
            await _drain(mesh, first, draining=True)
            for url in (first, second):

                async def shut(url: str = url) -> bool:
                    return await _refusal(mesh, probe, url) == _SHUT

                await until(shut, f"{url} refuses new work", CALL_S)
            stopped_s = stage.clock.monotonic() - pulled_at
            await until(_no_stream(load), "what had begun ends whole")
            odd += await _stays_open(second)

            stage.progress("valkey starts again, and a gateway: the switch stays")
            await mesh.restart("valkey")
            await mesh.restart("gateway-2")
            for url in (first, second):
                if (heard := await _refusal(mesh, probe, url)) != _SHUT:
                    odd.append(f"after a restart a drained gateway answers {heard}")
            opened_at = stage.clock.monotonic()
            await _opened(mesh, first)
            stage.progress("it is opened again")
            recovery_s = await answered_since(load, opened_at) - opened_at
            await until(grown(load, _CLIENTS), "answers afterwards")

            stage.progress("one build is rejected, router after router, and taken back")
            await _set(mesh, {"DARKBLOOM_ROUTER_REJECT_MODELS": SCRIPTED})
            if (heard := await _refusal(mesh, probe, first))[0] in {0, 200}:
                odd.append("a build that is rejected is answered")
            back_at = stage.clock.monotonic()
            await _set(mesh, {})
            slowest_s = await answered_since(load, back_at) - back_at
            await until(grown(load, _CLIENTS), "answers of the build")
        toll = await ledger.toll(load.answers)
    return Outcome(
        lost_requests=len(load.lost),
        lost_micros=toll.lost_micros,
        recovery_s=recovery_s,
        unexpected=[*odd, *toll.unexpected, *(one.told() for one in load.lost)],
        facts={
            **load.facts(),
            "stopped_s": round(stopped_s, 2),
            "build_back_s": round(slowest_s, 2),
            "heard_of_the_build": heard[0],
        },
    )


async def _drain(mesh: Mesh, url: str, **body: Any) -> Mapping[str, Any]:
    """Read the switch, or set it; return whether it is pulled."""
    headers = {"authorization": f"Bearer {mesh.admin_key}"}
    async with httpx.AsyncClient(timeout=CALL_S, headers=headers) as http:
        said = await (http.post(url + _DRAIN, json=body) if body else http.get(url + _DRAIN))
    assert said.status_code == 200, said.text
    return {"draining": said.json()["draining"]}


async def _opened(mesh: Mesh, url: str) -> None:
    """Open again; a 503 says that Valkey did not confirm, and the runbook says to repeat."""

    async def done() -> bool:
        headers = {"authorization": f"Bearer {mesh.admin_key}"}
        async with httpx.AsyncClient(timeout=CALL_S, headers=headers) as http:
            said = await http.post(url + _DRAIN, json={"draining": False})
        return said.status_code == 200 and said.json()["draining"] is False

    await until(done, "the mesh is open again")


async def _refusal(mesh: Mesh, api_key: str, url: str) -> tuple[int, str]:
    """Ask a question that costs one word; return the status and `Retry-After`."""
    body = {"model": SCRIPTED, "messages": script(tokens=1), "max_tokens": 1}
    async with Consumer(mesh, api_key).client() as http:
        answer = await http.post(f"{url}/v1/chat/completions", json=body)
    return answer.status_code, answer.headers.get("retry-after", "")


def _no_stream(load: Load) -> Any:
    async def none() -> bool:
        return load.flowing == 0

    return none


async def _stays_open(url: str) -> list[str]:
    """A drained gateway is no broken one: its pod stays ready and says what is the matter."""
    async with httpx.AsyncClient(timeout=CALL_S) as http:
        ready = await http.get(f"{url}/readyz")
        console = await http.get(f"{url}/console/")
    odd = []
    if (ready.status_code, ready.json().get("draining")) != (200, True):
        odd.append(f"/readyz of a drained gateway: {ready.status_code} {ready.text}")
    if console.status_code != 200:
        odd.append(f"the console of a drained gateway answers {console.status_code}")
    return odd


async def _set(mesh: Mesh, change: Mapping[str, str]) -> None:
    """Roll both routers with a setting, as a ConfigMap's change does."""
    for name in both("router"):
        await mesh.restart(name, {**QUICK["router"], **change})
        await well(mesh, _PROVIDERS)


DRILL = Drill(
    name="kill-switches",
    claim="one call stops all new work within seconds, outlasts restarts, and cuts no answer",
    runbooks=("kill-switches",),
    limit_s=300,
    play=play,
)
