"""The region is gone; a backup and its log bring everything back as it was at a moment."""

import asyncio
import json
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
from darkbloom_local import backups
from darkbloom_local.environment import inherited
from darkbloom_local.mesh import Mesh
from darkbloom_local.stores import Postgres
from darkbloom_local.wiring import BILLING

from tests.drills.drill import Drill, Outcome
from tests.drills.load import grown, steady
from tests.drills.stage import Stage
from tests.drills.toll import Ledger, most_micros
from tests.mesh.harness import Fleet, until

_CLIENTS = 4
_TOKENS = 12
_LATE = 50
"""More answers than one client has after the moment, before the region is gone."""
_ROOMS = ("gateway", "router", "billing", "attestation", "registry")


async def play(stage: Stage) -> Outcome:
    """Answer, take a base backup, answer on, lose every room and the database, go back."""
    store = stage.home / "backups"
    async with stage.mesh(durable=True) as mesh:
        await _archived(mesh, store)
        ledger = await Ledger.begin(mesh)
        async with steady(mesh, clients=_CLIENTS, tokens=_TOKENS) as load:
            await until(grown(load, _CLIENTS), "answers that the base backup holds")
            await asyncio.to_thread(backups.base_backup, mesh._launcher.postgres, store)
            await until(grown(load, 2 * _CLIENTS), "answers that only the log holds")
        kept = await ledger.toll(load.answers)
        kept_micros = await ledger.spent()
        moment = await asyncio.to_thread(_now, mesh)
        async with steady(mesh, clients=1, tokens=_TOKENS) as late:
            await until(grown(late, 2), "answers after the moment")
        await ledger.toll([*load.answers, *late.answers])
        all_micros = await ledger.spent()
        await asyncio.to_thread(backups.archive_now, mesh._launcher.postgres)

        stage.progress("every room and the database are gone")
        begun = stage.clock.monotonic()
        for name in (*_ROOMS, "postgres"):
            mesh.kill(name)
        (mesh.state.root / "postgres").rename(stage.home / "lost")

        stage.progress(f"back to {moment.isoformat()}")
        mesh._launcher.postgres = await asyncio.to_thread(
            backups.restore, store, mesh.state.root / "postgres", to=moment
        )
        await mesh.restart("postgres")
        recovered = await asyncio.to_thread(_recover, mesh, moment)
        for name in ("registry", "attestation", "billing", "router", "gateway"):
            await mesh.restart(name)
        await Fleet(mesh).wait_routable()
        back_micros = await ledger.spent()
        async with steady(mesh, clients=_CLIENTS, tokens=_TOKENS) as after:
            await until(grown(after, 1), "an answer")
            recovery_s = stage.clock.monotonic() - begun
            await until(grown(after, 2 * _CLIENTS), "answers afterwards")
        toll = await ledger.toll([*load.answers, *after.answers])
    odd = [*kept.unexpected, *toll.unexpected]
    odd += [one.told() for one in [*load.lost, *late.lost, *after.lost]]
    if not recovered.get("sound") or recovered.get("audit", {}).get("violations"):
        odd.append(f"recover found something: {recovered}")
    if back_micros != kept_micros:
        odd.append(f"{kept_micros} micro-USD were paid at the moment, {back_micros} came back")
    return Outcome(
        lost_requests=len(load.lost) + len(after.lost),
        lost_micros=toll.lost_micros + all_micros - back_micros,
        recovery_s=recovery_s,
        unexpected=odd,
        facts={
            "answers_in_backup": len(load.answers),
            "answers_after_moment": len(late.answers),
            "answers_afterwards": len(after.answers),
            "paid_at_moment_micros": kept_micros,
            "paid_after_restore_micros": back_micros,
            "holds_voided": recovered.get("holds_voided"),
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


def _recover(mesh: Mesh, moment: datetime) -> dict[str, Any]:
    """Run the one command that follows a restore."""
    done = subprocess.run(
        BILLING.argv("recover", "--to", moment.isoformat(), "--void-all"),
        env=inherited() | mesh._launcher.room_environment(BILLING),
        capture_output=True,
        check=False,
        text=True,
        timeout=120,
    )
    assert done.stdout, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


DRILL = Drill(
    name="restore-from-backup",
    claim="a backup and its log bring back every cent up to the moment that was named",
    runbooks=("restore",),
    expected="what was answered after the moment: consumers have it, the books do not",
    allowed_micros=most_micros(_LATE, _TOKENS),
    limit_s=300,
    play=play,
)
