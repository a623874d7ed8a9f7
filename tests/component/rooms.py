"""A room as it is deployed: its schema in a database, its program in a process."""

import asyncio
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from darkbloom_mesh.config import Secret
from darkbloom_mesh.migrate import migrate

from tests.stores import Postgres

TOKEN = "t" * 40


@contextmanager
def migrated(cluster: Postgres, room: str) -> Iterator[str]:
    """Yield the URL of a database with the room's schema, for others to be copied from."""
    with cluster.database() as url:
        migrate(Secret(url), package=f"darkbloom_{room}", schema=room)
        yield url


def environment(room: str, database_url: str, directory: Path, **changes: str) -> dict[str, str]:
    """Return what a room's process is told, with a mesh token of its own."""
    token = directory / "token"
    token.write_text(TOKEN)
    return {
        "PATH": os.environ["PATH"],  # noqa: TID251 - a child needs it
        "DATABASE_URL": database_url,
        "DARKBLOOM_MESH_TOKEN_FILE": str(token),
        f"DARKBLOOM_{room.upper()}_LISTEN": "127.0.0.1:0",
        **changes,
    }


async def start(room: str, env: dict[str, str], *arguments: str) -> asyncio.subprocess.Process:
    """Start the room's program; its two outputs are pipes."""
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", f"darkbloom_{room}", *arguments),
        env=env,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def listener(process: asyncio.subprocess.Process) -> str:
    """Wait for the log event that names the bound address."""
    assert process.stdout is not None
    async with asyncio.timeout(60):
        async for line in process.stdout:
            event = json.loads(line)
            if event.get("msg", event.get("event")) == "serving":
                return str(event["listeners"]["grpc"])
    raise AssertionError("the room ended before it served")
