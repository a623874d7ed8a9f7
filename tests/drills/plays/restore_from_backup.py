"""The region is gone; a backup and its log bring everything back as it was at a moment.

All that is left are the backups and what lies beside them: copies of the sealed heads, and records
of erasures. One account is erased after the moment: the restore brings it back, `recover` does not
leave it there.
"""

import asyncio
import hashlib
import secrets
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

import psycopg
from darkbloom_local import backups
from darkbloom_local.mesh import Mesh
from darkbloom_local.stores import Postgres

from tests.drills.drill import Drill, Outcome
from tests.drills.load import grown, steady
from tests.drills.outside import SEAL_S, Leaver, Outside, deviations, recover, undone
from tests.drills.stage import Stage
from tests.drills.toll import Ledger, most_micros
from tests.mesh.harness import Fleet, until

_CLIENTS = 4
_TOKENS = 12
_LATE = 50
"""More answers than one client has after the moment, before the region is gone."""
_OK = 200
_ROOMS = ("gateway", "router", "billing", "attestation", "registry")


async def play(stage: Stage) -> Outcome:
    """Answer, take a base backup, answer on, lose every room and the database, go back."""
    store, outside = stage.home / "backups", Outside.made(stage.home)
    async with stage.mesh(durable=True, environment={"billing": outside.environment()}) as mesh:
        await _archived(mesh, store)
        leaver = await _leaver(mesh)
        ledger = await Ledger.begin(mesh)
        async with steady(mesh, clients=_CLIENTS, tokens=_TOKENS) as load:
            await until(grown(load, _CLIENTS), "answers that the base backup holds")
            await asyncio.to_thread(backups.base_backup, mesh._launcher.postgres, store)
            await until(grown(load, 2 * _CLIENTS), "answers that only the log holds")
        kept = await ledger.toll(load.answers)
        kept_micros = await ledger.spent()
        stage.progress("waiting for the first sealed head: an event is a minute old by then")
        await until(_more(outside, 0), "a copy of a sealed head", SEAL_S)
        before = len(outside.sealed())
        moment = await asyncio.to_thread(_now, mesh)
        async with steady(mesh, clients=1, tokens=_TOKENS) as late:
            await until(grown(late, 2), "answers after the moment")
        await ledger.toll([*load.answers, *late.answers])
        all_micros = await ledger.spent()
        await leaver.erase(stage.home)
        gone = (await leaver.logins(), await leaver.status())
        # Billing seals what was settled before the moment, which only now is old enough.
        await until(_more(outside, before), "a sealed head after the moment", SEAL_S)
        await asyncio.to_thread(backups.archive_now, mesh._launcher.postgres)

        begun = stage.clock.monotonic()
        await _lost_and_restored(stage, mesh, store, moment)
        came_back = await leaver.logins()
        recovered = await asyncio.to_thread(recover, mesh, outside, moment, outside.heads)
        mesh._launcher.environment["billing"] = {
            **mesh._launcher.environment["billing"],
            **outside.environment(restored=True),
        }
        for name in ("registry", "attestation", "billing", "router", "gateway"):
            await mesh.restart(name)
        await Fleet(mesh).wait_routable()
        back_micros = await ledger.spent()
        async with steady(mesh, clients=_CLIENTS, tokens=_TOKENS) as again:
            await until(grown(again, 1), "an answer")
            recovery_s = stage.clock.monotonic() - begun
            await until(grown(again, 2 * _CLIENTS), "answers afterwards")
        toll = await ledger.toll([*load.answers, *again.answers])
        stays = (await leaver.logins(), await leaver.status())
        forged = await asyncio.to_thread(
            recover, mesh, outside, moment, outside.forged(stage.home / "heads-forged")
        )
    odd = [*kept.unexpected, *toll.unexpected]
    odd += [one.told() for one in [*load.lost, *late.lost, *again.lost]]
    odd += deviations(recovered, before=before, after=len(outside.sealed()))
    odd += undone(gone=gone, came_back=came_back, stays=stays)
    # Later heights differ as well by now: what is sealed since has taken those that were given up.
    if forged["sound"] or not forged["exit"] or 1 not in forged["heads_differ"]:
        odd.append(f"a copy of another history passed: {forged}")
    if back_micros != kept_micros:
        odd.append(f"{kept_micros} micro-USD were paid at the moment, {back_micros} came back")
    return Outcome(
        lost_requests=len(load.lost) + len(again.lost),
        lost_micros=toll.lost_micros + all_micros - back_micros,
        recovery_s=recovery_s,
        unexpected=odd,
        facts={
            "answers_in_backup": len(load.answers),
            "answers_after_moment": len(late.answers),
            "answers_afterwards": len(again.answers),
            "paid_at_moment_micros": kept_micros,
            "paid_after_restore_micros": back_micros,
            "holds_voided": recovered["holds_voided"],
            "heads_equal": recovered["heads_equal"],
            "heads_given_up": len(recovered["heads_given_up"]),
            "erasures": recovered["erasures"],
            "logins_that_came_back": came_back,
            "logins_after_recover": stays[0],
            "key_answered_after_recover": stays[1],
            "forged_head_refused": 1 in forged["heads_differ"],
        },
    )


async def _archived(mesh: Mesh, store: Path) -> None:
    """Let the cluster archive its log from now on."""
    server = Postgres(
        mesh.state.root / "postgres", mesh.log("postgres"), settings=backups.archiving(store)
    )
    backups.prepare_archive(server, store)
    mesh._launcher.postgres = server
    await mesh.restart("postgres")
    await mesh.reachable()


def _now(mesh: Mesh) -> datetime:
    with psycopg.connect(mesh.database_url) as connection:
        row = connection.execute("SELECT clock_timestamp()").fetchone()
    assert row is not None
    return datetime.fromisoformat(str(row[0])).astimezone(UTC)


async def _lost_and_restored(stage: Stage, mesh: Mesh, store: Path, moment: datetime) -> None:
    """Lose every room and the database; go back to the moment, with nothing but PostgreSQL."""
    stage.progress("every room and the database are gone")
    for name in (*_ROOMS, "postgres"):
        mesh.kill(name)
    (mesh.state.root / "postgres").rename(stage.home / "lost")
    stage.progress(f"back to {moment.isoformat()}")
    mesh._launcher.postgres = await asyncio.to_thread(
        backups.restore, store, mesh.state.root / "postgres", to=moment
    )
    await mesh.restart("postgres")


async def _leaver(mesh: Mesh) -> Leaver:
    """Return somebody whom the base backup knows and whose key works."""
    api_key = f"sk-db-{secrets.token_hex(32)}"
    leaver = await Leaver.signed_in(mesh, api_key, hashlib.sha256(api_key.encode()).digest())

    async def known() -> bool:
        return await leaver.status() == _OK

    await until(known, "the key of whoever is erased later")
    assert await leaver.logins() == 1
    return leaver


def _more(outside: Outside, than: int) -> Callable[[], Awaitable[bool]]:
    async def grown_on() -> bool:
        return len(await asyncio.to_thread(outside.sealed)) > than

    return grown_on


DRILL = Drill(
    name="restore-from-backup",
    claim="a backup and its log bring back every cent up to the moment that was named, and nobody"
    " who was erased since",
    runbooks=("erasure", "restore"),
    expected="what was answered after the moment: consumers have it, the books do not",
    allowed_micros=most_micros(_LATE, _TOKENS),
    limit_s=300,
    play=play,
)
