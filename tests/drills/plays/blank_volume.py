"""Volumes come back blank: registry's, attestation's, decision records, router, gateway, Valkey.

A blank database is its room's schema renamed away: the room finds a server that knows nothing. The
original's whole fleet was demoted by one such volume.
"""

import asyncio
import shutil
import subprocess
from collections.abc import Sequence

import psycopg
import redis
from darkbloom_local.environment import inherited
from darkbloom_local.errors import LocalError
from darkbloom_local.mesh import Mesh
from psycopg import sql

from tests.drills.drill import Drill, Outcome
from tests.drills.load import End, Load, grown, steady
from tests.drills.stage import Stage
from tests.drills.toll import Ledger, most_micros
from tests.mesh.harness import Consumer, Fleet, until

_CLIENTS = 4
_TOKENS = 12
_LEASES = {
    "billing": {"DARKBLOOM_BILLING_HOLD_LEASE_S": "25"},
    "router": {"DARKBLOOM_ROUTER_HOLD_LEASE_S": "25", "DARKBLOOM_ROUTER_RENEW_INTERVAL_S": "2"},
}
"""What nobody settles lapses within the drill, and not before a room is back."""
_ROOMS = ("registry", "attestation")
_RECORDS = "routing"
"""Schema of the router, which goes on without it."""
_ENDS = {"router": End.BROKEN, "gateway": End.CUT}
"""How what had begun ends when one of these comes back without a memory."""


async def play(stage: Stage) -> Outcome:
    """Take each memory away in turn, see nobody demoted, give it back."""
    odd: list[str] = []
    async with stage.mesh(environment=_LEASES, records=True) as mesh:
        ledger = await Ledger.begin(mesh)
        async with steady(mesh, clients=_CLIENTS, tokens=_TOKENS) as load:
            await until(grown(load, _CLIENTS), "answers before")
            stage.progress("decision records are blank")
            await asyncio.to_thread(_rename, mesh, _RECORDS, f"{_RECORDS}_lost")
            odd += [*await _not_filled(mesh, "router"), *await _unharmed(mesh, load, _RECORDS)]
            for room in _ROOMS:
                stage.progress(f"the volume of {room} is blank")
                mesh.kill(room)
                await asyncio.to_thread(_rename, mesh, room, f"{room}_lost")
                odd += [*await _refused(mesh, room), *await _unharmed(mesh, load, room)]
            stage.progress("registry is filled as a new mesh, against all advice")
            filled = await asyncio.to_thread(_migrate, mesh, "registry", "development")
            assert filled.returncode == 0, filled.stderr
            await mesh.restart("registry")
            odd += await _unharmed(mesh, load, "a registry that nobody ever wrote to")
            await mesh.stop("registry")
            await asyncio.to_thread(_drop, mesh, "registry")

            stage.progress("the volumes are found again")
            begun = stage.clock.monotonic()
            await asyncio.to_thread(_rename, mesh, f"{_RECORDS}_lost", _RECORDS)
            for room in _ROOMS:
                await asyncio.to_thread(_rename, mesh, f"{room}_lost", room)
                await mesh.restart(room)
            await Fleet(mesh).wait_routable()
            recovery_s = stage.clock.monotonic() - begun

            stage.progress("Valkey, the router and the gateway come back without a memory")
            odd += [f"before any gateway was touched: {one.told()}" for one in load.lost]
            kills: dict[str, float] = {}
            await asyncio.to_thread(redis.Redis.from_url(mesh.redis_url).flushall)
            for room in ("router", "gateway"):
                kills[room] = stage.clock.monotonic()
                mesh.kill(room)
                shutil.rmtree(mesh.state.root / room)
                mesh.state.directory(room)
                await mesh.restart(room)
                # One after the other: a gateway hands in what a lost router had not settled.
                await Fleet(mesh).wait_routable()
                await until(grown(load, 2 * _CLIENTS), "answers afterwards")
        toll = await ledger.toll(load.answers)
    odd += [
        one.told()
        for one in load.lost
        if not any(
            one.end is _ENDS[room] and one.broken_at(moment) for room, moment in kills.items()
        )
    ]
    return Outcome(
        lost_requests=len(load.lost),
        lost_micros=toll.lost_micros,
        recovery_s=recovery_s,
        unexpected=[*odd, *toll.unexpected],
        facts={**load.facts(), **toll.facts()},
    )


def _migrate(mesh: Mesh, name: str, environment: str) -> subprocess.CompletedProcess[str]:
    """Run a room's migration as if its mesh were in that environment."""
    room = next(room for room in mesh._rooms if room.name == name)
    told = {**inherited(), **mesh._launcher.room_environment(room), "DARKBLOOM_ENV": environment}
    return subprocess.run(
        room.argv("migrate"), env=told, capture_output=True, check=False, text=True, timeout=60
    )


async def _refused(mesh: Mesh, room: str) -> Sequence[str]:
    """The room does not start, and nothing fills its database."""
    odd = []
    try:
        await mesh.restart(room)
        odd.append(f"{room} serves from a blank database")
    except LocalError:
        if f"the database has no schema {room}" not in mesh.log(room).read_text():
            odd.append(f"{room} does not say that its database is blank")
    return [*odd, *await _not_filled(mesh, room)]


async def _not_filled(mesh: Mesh, room: str) -> Sequence[str]:
    """Nothing fills a room's database in production without being told that the mesh is new."""
    done = await asyncio.to_thread(_migrate, mesh, room, "production")
    if done.returncode == 0 or "migrate --new" not in done.stderr + done.stdout:
        return [f"{room}: a blank database was filled in production: {done.stderr[-300:]}"]
    return []


async def _unharmed(mesh: Mesh, load: Load, what: str) -> Sequence[str]:
    """Answers go on, the model is offered, the machine is routable."""
    await until(grown(load, 2 * _CLIENTS), f"answers without {what}")
    listed = (await Consumer(mesh).get("/v1/models")).json()
    odd = []
    if not listed["data"]:
        odd.append(f"without {what} the model is offered no more")
    if await Fleet(mesh).routable() != 1:
        odd.append(f"without {what} the machine is demoted")
    return odd


def _rename(mesh: Mesh, old: str, new: str) -> None:
    with psycopg.connect(mesh.database_url, autocommit=True) as connection:
        connection.execute(
            sql.SQL("ALTER SCHEMA {} RENAME TO {}").format(sql.Identifier(old), sql.Identifier(new))
        )


def _drop(mesh: Mesh, schema: str) -> None:
    with psycopg.connect(mesh.database_url, autocommit=True) as connection:
        connection.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(sql.Identifier(schema)))


DRILL = Drill(
    name="blank-volume",
    claim="a room refuses a blank database, and nobody else forgets what it knew",
    runbooks=("migration", "restore", "trust-incident"),
    expected="answers that had begun when router or gateway came back blank break, paid for what"
    " came but for what the gateway had not yet reported",
    allowed_micros=most_micros(_CLIENTS, _TOKENS),
    limit_s=300,
    play=play,
)
