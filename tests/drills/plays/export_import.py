"""The accounts' state moves to another database: out encrypted, in proven, and answers go on."""

import asyncio
import json
import subprocess
from pathlib import Path
from typing import Any

import psycopg
from darkbloom_local.environment import inherited
from darkbloom_local.mesh import Mesh
from darkbloom_local.wiring import BILLING
from pyrage.x25519 import Identity

from tests.drills.drill import Drill, Outcome
from tests.drills.load import grown, steady
from tests.drills.stage import Stage
from tests.drills.toll import Ledger
from tests.mesh.harness import until

_CLIENTS = 4
_MOVED = "darkbloom_moved"


async def play(stage: Stage) -> Outcome:
    """Stop billing, export, import elsewhere, start it there; clients wait, and are answered."""
    identity, path = Identity.generate(), stage.home / "state.age"
    async with stage.mesh() as mesh:
        ledger = await Ledger.begin(mesh)
        async with steady(mesh, clients=_CLIENTS, tokens=12, patience_s=120) as load:
            await until(grown(load, 2 * _CLIENTS), "answers before")
            stage.progress("billing stops; its state leaves, encrypted to one recipient")
            begun = stage.clock.monotonic()
            await mesh.stop("billing")
            recipient = ("--recipient", str(identity.to_public()))
            exported = await _billing(mesh, "state", "export", str(path), *recipient)

            stage.progress("an empty database takes it in and proves it")
            url = await asyncio.to_thread(_empty_database, mesh)
            key = await asyncio.to_thread(_key_file, stage.home, identity)
            await _billing(mesh, "migrate", url=url)
            moving = ("state", "import", str(path), "--identity-file", str(key))
            imported = await _billing(mesh, *moving, url=url)
            again = await _billing(mesh, *moving, url=url, refused=True)
            stage.progress("billing serves from there")
            told = dict(mesh._launcher.environment.get("billing", {}))
            await mesh.restart("billing", {**told, "DATABASE_URL": url})
            await until(grown(load, 1), "an answer", 90)
            recovery_s = stage.clock.monotonic() - begun
            await until(grown(load, 2 * _CLIENTS), "answers afterwards")
        toll = await ledger.toll(load.answers)
    odd = [*toll.unexpected, *(one.told() for one in load.lost)]
    if json.loads(exported) != json.loads(imported):
        odd.append("what was imported is not what was exported")
    if "NotEmptyError" not in again:
        odd.append(f"a database that holds accounts was filled again: {again}")
    return Outcome(
        lost_requests=len(load.lost),
        lost_micros=toll.lost_micros,
        recovery_s=recovery_s,
        unexpected=odd,
        facts={**load.facts(), "file_bytes": path.stat().st_size},
    )


async def _billing(mesh: Mesh, *arguments: str, url: str = "", refused: bool = False) -> str:
    """Run a command of billing; return what it says.

    Raises:
        AssertionError: It ended otherwise than it should.
    """
    told: dict[str, Any] = inherited() | mesh._launcher.room_environment(BILLING)
    done = await asyncio.to_thread(
        subprocess.run,
        BILLING.argv(*arguments),
        env={**told, **({"DATABASE_URL": url} if url else {})},
        capture_output=True,
        check=False,
        text=True,
        timeout=120,
    )
    assert (done.returncode != 0) == refused, done.stderr
    return done.stderr if refused else done.stdout


def _empty_database(mesh: Mesh) -> str:
    with psycopg.connect(mesh.database_url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {_MOVED}".encode())
    return mesh._launcher.postgres.url_of(_MOVED)


def _key_file(home: Path, identity: Identity) -> Path:
    path = home / "identity"
    path.write_text(f"{identity}\n")
    path.chmod(0o600)
    return path


DRILL = Drill(
    name="export-import",
    claim="the books move to another database encrypted, and every cent is where it was",
    runbooks=("state-export",),
    limit_s=300,
    play=play,
)
