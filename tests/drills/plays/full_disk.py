"""Three disks fill up in turn: the logs', a machine's models', PostgreSQL's; then there is room."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import psycopg
from darkbloom_local.mesh import Mesh
from darkbloom_local.models import SCRIPTED

from tests.drills.drill import Drill, Outcome
from tests.drills.inside import MOUNTS, in_namespaces, run
from tests.drills.load import grown, steady
from tests.drills.needs import LINUX, MOUNT_NAMESPACE, ROOT, program
from tests.drills.stage import Stage
from tests.drills.toll import Ledger
from tests.fakes.file_server import file_server
from tests.mesh.harness import Consumer, Fleet, provider_state, until
from tests.mesh.test_models import FIRST, PROVIDER, point, publish

_CLIENTS = 4
_SIZES = {"logs": "8m", "models": "2m", "postgres": "200m"}
_BLOCK = bytes(1 << 16)


async def play(stage: Stage) -> Outcome:
    """Play it with mounts of its own."""
    return await in_namespaces(stage, __name__, (MOUNTS,))


async def inside(stage: Stage) -> Outcome:
    """Fill each disk under load, look, and make room again."""
    for name, size in _SIZES.items():
        (stage.home / "mesh" / name).mkdir(parents=True)
        disk = str(stage.home / "mesh" / name)
        run("mount", "-t", "tmpfs", "-o", f"size={size},mode=755", "tmpfs", disk)
    odd: list[str] = []
    environment = {"provider": PROVIDER}
    async with (
        file_server() as store,
        stage.mesh(environment=environment, durable=True) as mesh,
    ):
        ledger = await Ledger.begin(mesh)
        async with steady(mesh, clients=_CLIENTS, tokens=12, patience_s=60) as load:
            await until(grown(load, _CLIENTS), "answers before")
            stage.progress("the disk of the logs is full")
            ballast = _fill(mesh.state.root / "logs")
            await until(grown(load, 4 * _CLIENTS), "answers without logs")
            ballast.unlink()

            stage.progress("a machine's disk is full")
            ballast = _fill(mesh.state.root / "models")
            await publish(mesh, store, FIRST, "v1")
            await point(mesh, FIRST, previous=SCRIPTED)
            odd += await _has_no_room(mesh)
            await until(grown(load, _CLIENTS), "answers of what the machine has")
            ballast.unlink()

            stage.progress("the disk of PostgreSQL is full")
            ballast = _fill(mesh.state.root / "postgres")
            await asyncio.to_thread(_write_log, mesh)
            refused = await until(_refused(mesh), "a new request is refused", 60)
            if refused != 503:
                odd.append(f"with a full database a request ends with {refused}, not 503")
            stage.progress("there is room again")
            begun = stage.clock.monotonic()
            ballast.unlink()
            if not await asyncio.to_thread(_alive, mesh):
                stage.progress("PostgreSQL had stopped and is started")
                await mesh.restart("postgres")
            await until(grown(load, 2 * _CLIENTS), "answers afterwards", 60)
            recovery_s = stage.clock.monotonic() - begun
        await Fleet(mesh).wait_routable()
        toll = await ledger.toll(load.answers)
    return Outcome(
        lost_requests=len(load.lost),
        lost_micros=toll.lost_micros,
        recovery_s=recovery_s,
        unexpected=[*odd, *toll.unexpected, *(one.told() for one in load.lost)],
        facts=load.facts(),
    )


def _fill(disk: Path) -> Path:
    """Write until there is no room; return the file to remove."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while file.write(_BLOCK):
                pass
        except OSError:
            pass
    free = os.statvfs(disk)
    assert free.f_bavail * free.f_frsize < len(_BLOCK)
    return ballast


async def _has_no_room(mesh: Mesh) -> list[str]:
    """A wished build is refused by name, and nothing half of it stays."""

    async def told() -> bool:
        wanted = provider_state(mesh).get("downloads", ())
        return any(row.get("reason") == "disk_full" for row in wanted)

    await until(told, "the machine says that its disk is full")
    left = [path.name for path in (mesh.state.root / "models").rglob("*v1.part*")]
    return [f"{name} was left behind" for name in left]


def _write_log(mesh: Mesh) -> None:
    """Make PostgreSQL need room for its log at once, not after megabytes of requests."""
    try:
        with psycopg.connect(mesh.database_url, autocommit=True) as connection:
            for _ in range(8):
                connection.execute("SELECT pg_switch_wal()")
                connection.execute("CREATE TABLE IF NOT EXISTS public.drill_room (x int)")
                connection.execute("INSERT INTO public.drill_room SELECT generate_series(1, 99)")
    except psycopg.Error:
        return


def _refused(mesh: Mesh) -> Callable[[], Awaitable[int | None]]:
    async def status() -> int | None:
        said = (await Consumer(mesh).ask(tokens=2)).status_code
        return None if said == 200 else said

    return status


def _alive(mesh: Mesh) -> bool:
    """Whether the database answers, after a crash recovery too."""
    try:
        with psycopg.connect(mesh.database_url, connect_timeout=5) as connection:
            return connection.execute("SELECT 1").fetchone() == (1,)
    except psycopg.Error:
        return False


DRILL = Drill(
    name="full-disk",
    claim="a full disk refuses what needs room with one clear error, and loses nothing",
    runbooks=("database", "models"),
    needs=(LINUX, ROOT, program("mount"), MOUNT_NAMESPACE),
    limit_s=300,
    play=play,
)
