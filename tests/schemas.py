"""What each room's schema is after all migrations, as SQL: `python -m tests.schemas` writes it.

A change of a migration is seen in review as a change of the schema that it leaves.
"""

import re
import subprocess
from pathlib import Path

from darkbloom_local import stores
from darkbloom_mesh.config import Secret
from darkbloom_mesh.migrate import migrate

from tests.stores import Postgres, postgres

FOLDER = Path(__file__).parent / "contract" / "schemas"
ROOMS = {
    "attestation": "attestation",
    "billing": "billing",
    "registry": "registry",
    "router": "routing",
}
"""Rooms with a store, and their own schema; migrations may make others beside it."""
_NOISE = re.compile(r"(--|SET |SELECT pg_catalog\.set_config|\\(un)?restrict)")
_BLANKS = re.compile(r"\n{3,}")


def dump(cluster: Postgres, room: str, tool: Path) -> str:
    """Return the schema of a room; who owns what is the deployment's affair."""
    with cluster.database() as url:
        migrate(Secret(url), package=f"darkbloom_{room}", schema=ROOMS[room])
        done = subprocess.run(
            [tool, "--schema-only", "--no-owner", "--no-privileges", "--dbname", url],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
    kept = "\n".join(line for line in done.stdout.splitlines() if not _NOISE.match(line))
    return _BLANKS.sub("\n\n", kept).strip() + "\n"


def pg_dump() -> Path:
    """Return the tool that came with the server."""
    return stores._program("pg_dump")


def main() -> None:
    """Write all of them."""
    FOLDER.mkdir(exist_ok=True)
    with postgres() as cluster:
        for room in ROOMS:
            (FOLDER / f"{room}.sql").write_text(dump(cluster, room, pg_dump()))


if __name__ == "__main__":
    main()
