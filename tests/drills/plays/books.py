"""Two operators move money, one alone cannot; a difference that is planted is found and named."""

from typing import Any

import psycopg

from tests.drills.desk import Desk
from tests.drills.drill import Drill, Outcome
from tests.drills.load import grown, steady
from tests.drills.stage import Stage
from tests.drills.toll import Ledger
from tests.mesh.harness import Books, Consumer, until

_CLIENTS = 3
_ACCOUNT = "acct_credited"
_CREDIT = 1_500_000
_PLANT = "UPDATE ledger.account SET cr = cr + %s WHERE path = 'user:acct_credited:promo'"


async def play(stage: Stage) -> Outcome:
    """Fund a budget, credit an account, plant a cent as a superuser, find it, take it out again."""
    odd: list[str] = []
    async with stage.mesh() as mesh:
        desk = await Desk(mesh, stage.home).register("ada", "grace")
        secret, _ = await Books(mesh).new_account(_ACCOUNT)
        account = Consumer(mesh, secret)
        ledger = await Ledger.begin(mesh)
        async with steady(mesh, clients=_CLIENTS, tokens=16) as load:
            await until(grown(load, _CLIENTS), "answers before")
            stage.progress("one operator proposes, the same one may not approve")
            for budget in ("capital", "promo"):
                asked = await desk.does("ada", "budgets", "propose", budget, "--usd", "3.00")
                proposed = asked["funding"]["funding_id"]
                alone = await desk.ask("ada", "budgets", "approve", proposed)
                if alone.code == 0:
                    odd.append(f"one operator alone funded {budget}")
                await desk.does("grace", "budgets", "approve", proposed)

            stage.progress("an account is credited, once")
            words = ("credit", _ACCOUNT, "--usd", "1.50", "--request-id", "drill-credit")
            await desk.does("ada", *words)
            await desk.does("ada", *words)
            if (balance := await account.balance()) != _CREDIT:
                odd.append(f"a credit of {_CREDIT} micro-USD, twice sent, is {balance}")
            beyond = await desk.ask("ada", "credit", _ACCOUNT, "--usd", "1.51")
            if beyond.code == 0:
                odd.append("a credit beyond its budget was given")

            stage.progress("a superuser edits a balance")
            clean = await desk.ask("grace", "audit", "run")
            head = await desk.ask("grace", "seal", "head")
            planted_at = stage.clock.monotonic()
            _plant(mesh.database_url, 1)
            found = await desk.ask("grace", "audit", "run")
            found_s = stage.clock.monotonic() - planted_at
            named = _violations(found)
            if clean.code or _violations(clean):
                odd.append(f"the books were not clean before: {clean.out}")
            if found.code != 1 or not named:
                odd.append(f"the audit did not find it: {found.code} {found.out} {found.err}")
            if not any(_ACCOUNT in str(one) for one in named):
                odd.append(f"the audit does not name the account: {named}")
            await until(grown(load, _CLIENTS), "answers go on meanwhile")

            stage.progress(f"found after {found_s:.1f} s; it is taken out again")
            _plant(mesh.database_url, -1)
            again = await desk.ask("grace", "audit", "run")
            recovery_s = stage.clock.monotonic() - planted_at
            if again.code or _violations(again):
                odd.append(f"the books are not clean afterwards: {again.out}")
            if head.code and "nothing is sealed" not in head.err + head.out:
                odd.append(f"`seal head` ends with {head.code}: {head.err}")
            await until(grown(load, _CLIENTS), "answers afterwards")
        toll = await ledger.toll(load.answers)
    return Outcome(
        lost_requests=len(load.lost),
        lost_micros=toll.lost_micros,
        recovery_s=recovery_s,
        unexpected=[*odd, *toll.unexpected, *(one.told() for one in load.lost)],
        facts={**load.facts(), "found_s": round(found_s, 2), "named": len(named)},
    )


def _violations(said: Any) -> list[Any]:
    """Return what an audit found; it prints that whatever its code is."""
    return list(said.json["violations"]) if said.out else []


def _plant(url: str, micros: int) -> None:
    """Edit a balance as nobody may: as a superuser, with the triggers off."""
    with psycopg.connect(url) as connection:
        connection.execute("SET session_replication_role = replica")
        done = connection.execute(_PLANT, (micros,))
        assert done.rowcount == 1


DRILL = Drill(
    name="books",
    claim="money takes two operators, and an edited balance is named by the next audit",
    runbooks=("money", "operators"),
    limit_s=180,
    play=play,
)
