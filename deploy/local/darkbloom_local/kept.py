"""Migrated clusters that the meshes of one process begin with, where their data need not last.

The first such mesh creates and migrates its cluster, which takes the processor longer than anything
else in a start. What it has then is kept, and each later mesh copies it: the same files as if it
had migrated by itself, for the code of one process does not change under it.
"""

import atexit
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from darkbloom_local.errors import LocalError
from darkbloom_local.stores import Postgres

_COPY_S = 60.0


class KeptClusters:
    """Stopped clusters by the rooms whose schemas they hold; gone with the process."""

    def __init__(self) -> None:
        self._data: dict[frozenset[str], Path] = {}

    def give(self, rooms: frozenset[str], cluster: Postgres) -> bool:
        """Let a cluster that does not exist begin with the schemas of these rooms.

        Returns:
            Whether it does; False where no such cluster is kept.

        Raises:
            LocalError: It cannot be copied.
        """
        kept = self._data.get(rooms)
        if kept is None:
            return False
        cluster.directory.mkdir(parents=True, exist_ok=True)
        _copy(kept, cluster.data)
        return True

    def keep(self, rooms: frozenset[str], cluster: Postgres) -> None:
        """Keep a copy of a cluster that is stopped and holds the schemas of these rooms.

        Raises:
            LocalError: It cannot be copied.
        """
        home = Path(tempfile.mkdtemp(prefix="darkbloom-kept-"))
        atexit.register(shutil.rmtree, home, ignore_errors=True)
        _copy(cluster.data, home / "data")
        self._data[rooms] = home / "data"


@cache
def of_this_process() -> KeptClusters:
    """Return the clusters that this process keeps."""
    return KeptClusters()


def _copy(source: Path, target: Path) -> None:
    """Copy a tree with its owners and modes, which PostgreSQL insists on."""
    done = subprocess.run(  # noqa: S603 - our own paths, no shell
        ["/bin/cp", "-Rp", str(source), str(target)],
        capture_output=True,
        check=False,
        text=True,
        timeout=_COPY_S,
    )
    if done.returncode:
        raise LocalError(f"cannot copy a database cluster to {target}: {done.stderr.strip()}")
