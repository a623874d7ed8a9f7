"""A person is erased while everybody else is answered, and a stranger can check the proof."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from darkbloom_local.mesh import Mesh

from tests.drills.desk import BIN, Desk, Said, ran
from tests.drills.drill import Drill, Outcome
from tests.drills.load import grown, steady
from tests.drills.stage import Stage
from tests.drills.toll import Ledger
from tests.mesh.harness import QUICK, Books, Consumer, until

_CLIENTS = 4
_GRACE_S = 12
_GRANT_MICROS = 1_000_000
_DEAD = (401, 403)
_LEAVER, _WAVERER = "acct_leaver", "acct_waverer"


async def play(stage: Stage) -> Outcome:
    """Plan, confirm, prove it to a stranger; take another one back within its grace."""
    odd: list[str] = []
    heads, records = stage.home / "heads", stage.home / "erasures"
    heads.mkdir()
    records.mkdir()
    billing = {
        **QUICK["billing"],
        "DARKBLOOM_BILLING_ERASURE_GRACE_S": str(_GRACE_S),
        "DARKBLOOM_BILLING_ERASURE_PERIOD_S": "0.5",
        "DARKBLOOM_BILLING_ERASURE_DIRECTORY": str(records),
        "DARKBLOOM_BILLING_SEAL_DIRECTORY": str(heads),
        "DARKBLOOM_BILLING_AUDIT_PERIOD_S": "2",
    }
    async with stage.mesh(environment={"billing": billing}) as mesh:
        desk = await Desk(mesh, stage.home).register("ada", "grace")
        leaver, _ = await Books(mesh).new_account(_LEAVER, grant_micros=_GRANT_MICROS)
        waverer, _ = await Books(mesh).new_account(_WAVERER, grant_micros=_GRANT_MICROS)
        odd += [
            "an account is not answered before"
            for secret in (leaver, waverer)
            if await _answer(mesh, secret) != 200
        ]
        await Books(mesh).quiet()
        ledger = await Ledger.begin(mesh)
        async with steady(mesh, clients=_CLIENTS, tokens=12) as load:
            await until(grown(load, _CLIENTS), "answers before")
            stage.progress("it is planned: nothing changes")
            plan = await desk.does("ada", "erase", "plan", _LEAVER)
            if await _answer(mesh, leaver) != 200:
                odd.append("a plan changed something")
            name = plan["erasure"]["erasure_id"]
            if not (await desk.ask("ada", "erase", "confirm", name, "wrong")).code:
                odd.append("an erasure was confirmed without the plan's token")

            stage.progress("it is confirmed: credentials die now, data after the grace")
            begun = stage.clock.monotonic()
            name = await until(
                _confirmed(desk, _LEAVER), "its last answer is paid, it is confirmed"
            )
            await until(_refused(mesh, leaver), "the key of whoever left is dead")
            dead_s = stage.clock.monotonic() - begun
            await until(_state(desk, name, "erased"), "the data is gone after the grace")
            recovery_s = stage.clock.monotonic() - begun

            stage.progress("another one is taken back within the grace")
            odd += await _taken_back(desk, mesh, waverer)
            if not any(name in path.read_text() for path in records.iterdir()):
                odd.append("the erasure is not written down outside the database")

            stage.progress("a stranger checks the proof")
            proof = stage.home / "proof.json"
            odd += await _proven(desk, name, proof, heads)
            await until(grown(load, _CLIENTS), "answers afterwards")
        toll = await ledger.toll(load.answers)
    return Outcome(
        lost_requests=len(load.lost),
        lost_micros=toll.lost_micros,
        recovery_s=recovery_s,
        unexpected=[*odd, *toll.unexpected, *(one.told() for one in load.lost)],
        facts={**load.facts(), "credentials_dead_s": round(dead_s, 2)},
    )


async def _answer(mesh: Mesh, api_key: str) -> int:
    return (await Consumer(mesh, api_key).ask(tokens=1)).status_code


def _refused(mesh: Mesh, api_key: str) -> Callable[[], Awaitable[bool]]:
    async def dead() -> bool:
        return await _answer(mesh, api_key) in _DEAD

    return dead


def _state(desk: Desk, name: str, state: str) -> Callable[[], Awaitable[bool]]:
    async def reached() -> bool:
        rows = (await desk.does("ada", "erase", "list"))["erasures"]
        return any((row["erasure_id"], row["state"]) == (name, state) for row in rows)

    return reached


def _confirmed(desk: Desk, account: str) -> Callable[[], Awaitable[str]]:
    """Return what plans and confirms; it is refused as long as a hold of the account is open."""

    async def done() -> str:
        plan = await desk.does("ada", "erase", "plan", account)
        name: str = plan["erasure"]["erasure_id"]
        words = ("erase", "confirm", name, plan["confirm_token"], "--forfeit")
        return "" if (await desk.ask("grace", *words)).code else name

    return done


async def _taken_back(desk: Desk, mesh: Mesh, api_key: str) -> list[str]:
    """Confirm, cancel at once; the data stays, the credentials stay dead."""
    name = await until(_confirmed(desk, _WAVERER), "the other one is confirmed")
    cancelled = await desk.ask("ada", "erase", "cancel", name)
    if cancelled.code:
        return [f"it could not be taken back within the grace: {cancelled.err}"]
    odd = []
    if await _answer(mesh, api_key) not in _DEAD:
        odd.append("credentials came back with a cancelled erasure")
    if (await desk.ask("ada", "accounts", "show", _WAVERER)).code:
        odd.append("the account of a cancelled erasure is gone")
    return odd


async def _proven(desk: Desk, name: str, proof: Path, heads: Path) -> list[str]:
    """Print the proof as soon as it is sealed, check it, then alter it and check it again."""

    async def sealed() -> Said | None:
        said = await desk.billing("erasure-proof", name)
        return said if said.code == 0 else None

    said: Said = await until(sealed, "the erasure is sealed", 60)
    await asyncio.to_thread(proof.write_text, said.out)

    async def verified() -> bool:
        return (await _verify(proof, heads)).code == 0

    await until(verified, "a stranger finds the proof good")
    changed: dict[str, Any] = json.loads(said.out)
    changed["statement"]["account_id"] = "acct_somebody_else"
    await asyncio.to_thread(proof.write_text, json.dumps(changed))
    forged = await _verify(proof, heads)
    return [] if forged.code == 1 else [f"an altered proof ends with {forged.code}: {forged.out}"]


async def _verify(proof: Path, heads: Path) -> Said:
    """Check as a stranger does: without the mesh, its database, or a token."""
    words = ("erase", "verify", str(proof), "--heads", str(heads))
    return await ran({}, str(BIN / "darkbloom-admin"), *words)


DRILL = Drill(
    name="erasure",
    claim="credentials die at once, data after the grace, and a stranger can check the proof",
    runbooks=("erasure", "operators"),
    limit_s=180,
    play=play,
)
