"""A second PostgreSQL that follows the mesh's own, takes over from it, and is followed by it."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
from darkbloom_local.mesh import Mesh
from darkbloom_local.stores import DATABASE, Postgres

from tests.mesh.harness import until

NAME = "postgres-2"
_COPY_S = 120.0
_KEPT = "256MB"
_USER = "postgres"


def places(home: Path) -> tuple[Postgres, Postgres]:
    """Return the mesh's server and the one that will follow it, of a mesh that may not run yet."""
    return (
        Postgres(home / "postgres", home / "logs" / "postgres.log"),
        Postgres(home / NAME, home / "logs" / f"{NAME}.log"),
    )


def either(home: Path) -> str:
    """Return a URL of whichever of the two takes writes, as rooms are told in production."""
    hosts = ",".join(str(server.sockets) for server in places(home))
    return f"postgresql://{_USER}@/{DATABASE}?host={hosts}&target_session_attrs=read-write"


class Pair:
    """Two servers, of which one leads."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh
        self.leader, self.follower = places(mesh.state.root)
        self._names = {self.leader: "postgres", self.follower: NAME}

    async def follow(self) -> None:
        """Copy the leader, start the copy behind it, and let commits wait for both."""
        # Without what it wrote lately, a dead leader cannot be wound back.
        await self._said(self.leader, f"ALTER SYSTEM SET wal_keep_size = '{_KEPT}'")
        await self._said(self.leader, "SELECT pg_reload_conf()")
        await asyncio.to_thread(self.follower.prepare_empty)
        await asyncio.to_thread(
            self.follower.run_tool,
            "pg_basebackup",
            f"--dbname={self._line(self.leader)}",
            f"--pgdata={self.follower.data}",
            "--write-recovery-conf",
            "--checkpoint=fast",
            "--no-sync",
            timeout_s=_COPY_S,
        )
        await self._begin_to_follow()

    async def take_over(self) -> None:
        """Let the follower lead; the leader is dead."""
        await self._said(self.follower, "SELECT pg_promote(true, 60)")
        self.leader, self.follower = self.follower, self.leader

    async def rejoin(self) -> None:
        """Wind the dead server back to where the leader took over, and let it follow."""
        await asyncio.to_thread(
            self.follower.run_tool,
            "pg_rewind",
            f"--target-pgdata={self.follower.data}",
            f"--source-server={self._line(self.leader)}",
            "--write-recovery-conf",
            "--no-sync",
            timeout_s=_COPY_S,
        )
        await self._begin_to_follow()

    async def _begin_to_follow(self) -> None:
        child = self.follower.launch()
        child.command = replace(child.command, name=self._names[self.follower])
        self._mesh._children.adopt(child)
        # Asked before there is a follower, every commit would wait for one.
        await until(self._streams, "the follower streams")
        await self._said(self.leader, "ALTER SYSTEM SET synchronous_standby_names = '*'")
        await self._said(self.leader, "SELECT pg_reload_conf()")
        await until(self._in_step, "commits wait for the follower")

    async def _streams(self) -> bool:
        return await self._counted("state = 'streaming'")

    async def _in_step(self) -> bool:
        return await self._counted("sync_state = 'sync'")

    async def _counted(self, what: str) -> bool:
        asked = f"SELECT count(*) FROM pg_stat_replication WHERE {what}"  # noqa: S608 - ours
        try:
            return bool((await self._said(self.leader, asked))[0])
        except psycopg.OperationalError:
            # Asked again: a server that has just taken over may end a connection.
            return False

    def _line(self, server: Postgres) -> str:
        return f"host={server.sockets} user={_USER} dbname=postgres application_name=follower"

    async def _said(self, server: Postgres, statement: str) -> tuple[Any, ...]:
        def said() -> tuple[Any, ...]:
            url = server.url_of("postgres")
            with psycopg.connect(url, autocommit=True, connect_timeout=10) as connection:
                found = connection.execute(statement.encode())
                return (found.fetchone() or ()) if found.description else ()

        return await asyncio.to_thread(said)
