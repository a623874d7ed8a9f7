"""An account is frozen, its key revoked, an operator's token ended; everybody else is answered."""

from collections.abc import Awaitable, Callable

from darkbloom_local.mesh import Mesh

from tests.drills.desk import Desk
from tests.drills.drill import Drill, Outcome
from tests.drills.load import grown, steady
from tests.drills.stage import Stage
from tests.drills.toll import Ledger
from tests.mesh.harness import Books, Consumer, until

_CLIENTS = 4
_GRANT_MICROS = 5_000_000
_ACCOUNT = "acct_nuisance"
_FROZEN = 403
_DEAD = 401


async def play(stage: Stage) -> Outcome:
    """Freeze under load of somebody else, let go again, revoke the key, look who did what."""
    odd: list[str] = []
    async with stage.mesh() as mesh:
        desk = await Desk(mesh, stage.home).register("ada", "grace")
        secret, key_id = await Books(mesh).new_account(_ACCOUNT, grant_micros=_GRANT_MICROS)
        spare, _ = await Books(mesh).new_account("acct_neighbour", grant_micros=_GRANT_MICROS)
        if await _answer(mesh, secret) != 200:
            odd.append("the account is not answered before anything happens to it")
        ledger = await Ledger.begin(mesh)
        async with steady(mesh, clients=_CLIENTS, tokens=16) as load:
            await until(grown(load, _CLIENTS), "answers before")
            shown = await desk.does("ada", "accounts", "show", _ACCOUNT)
            if _ACCOUNT not in str(shown):
                odd.append("`accounts show` does not show the account")
            dry = await desk.does("ada", "accounts", "freeze", _ACCOUNT, "--dry-run")
            if await _answer(mesh, secret) != 200:
                odd.append(f"a dry run did something: {dry}")

            stage.progress("the account is frozen")
            began_at = stage.clock.monotonic()
            await desk.does("ada", "accounts", "freeze", _ACCOUNT)
            await until(_answers(mesh, secret, _FROZEN), "the account is refused")
            frozen_s = stage.clock.monotonic() - began_at
            if await _answer(mesh, spare) != 200:
                odd.append("another account is refused too")
            stage.progress("and let go again")
            await desk.does("ada", "accounts", "freeze", "--off", _ACCOUNT)
            await until(_answers(mesh, secret, 200), "the account is answered again")

            stage.progress("its key is revoked")
            listed = await desk.does("grace", "keys", "list", _ACCOUNT)
            if key_id not in str(listed) or secret in str(listed):
                odd.append("`keys list` shows no key id, or a secret")
            began_at = stage.clock.monotonic()
            await desk.does("grace", "keys", "revoke", key_id)
            await until(_answers(mesh, secret, _DEAD), "the key is dead")
            recovery_s = stage.clock.monotonic() - began_at
            odd += await _told(desk, key_id)

            stage.progress("an operator leaves: her token is ended")
            ended = await desk.billing("operator", "grace", "--revoke")
            after = await desk.ask("grace", "keys", "list", _ACCOUNT)
            write = await desk.ask("grace", "accounts", "freeze", _ACCOUNT)
            if ended.code or not write.code:
                odd.append(f"a revoked token still writes: {ended.err} {write.out}")
            if (await desk.ask("ada", "accounts", "list")).code:
                odd.append("the other operator cannot read any more")
            await until(grown(load, _CLIENTS), "answers afterwards")
        toll = await ledger.toll(load.answers)
    odd += [f"somebody else heard {one.refusals}" for one in load.answers if one.refusals]
    return Outcome(
        lost_requests=len(load.lost),
        lost_micros=toll.lost_micros,
        recovery_s=recovery_s,
        unexpected=[*odd, *toll.unexpected, *(one.told() for one in load.lost)],
        facts={
            **load.facts(),
            "frozen_s": round(frozen_s, 2),
            "revoked_operator_reads": after.code == 0,
        },
    )


async def _answer(mesh: Mesh, api_key: str) -> int:
    return (await Consumer(mesh, api_key).ask(tokens=1)).status_code


def _answers(mesh: Mesh, api_key: str, status: int) -> Callable[[], Awaitable[bool]]:
    async def said() -> bool:
        return await _answer(mesh, api_key) == status

    return said


async def _told(desk: Desk, key_id: str) -> list[str]:
    """Who did what, by the books."""
    odd = []
    for subject, action, name in (
        (_ACCOUNT, "account.change", "ada"),
        (key_id, "key.revoke", "grace"),
    ):
        rows = (await desk.does("ada", "audit", "actions", "--subject", subject))["actions"]
        if (action, name) not in {(row["action"], row["operator"]) for row in rows}:
            odd.append(f"`audit actions` does not say that {name} did {action}: {rows}")
    return odd


DRILL = Drill(
    name="abuse",
    claim="an account, a key and an operator are stopped within seconds, and nobody else notices",
    runbooks=("abuse", "operators", "kill-switches", "secret-leak"),
    limit_s=180,
    play=play,
)
