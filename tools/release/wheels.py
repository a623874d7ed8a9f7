"""Wheels and source archives that come out the same, byte for byte, whoever builds them when.

They are built from an export of a commit, in a child whose clock, for archives, is the commit's.
The backend is the pinned hatchling of this environment: nothing is fetched.
"""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Collection
from pathlib import Path

from tools.release.errors import ReleaseError
from tools.release.rooms import ROOT, rooms

_TIMEOUT_S = 300
_BUILD = """
import sys
from hatchling.builders.sdist import SdistBuilder
from hatchling.builders.wheel import WheelBuilder
builders = {"wheel": WheelBuilder, "sdist": SdistBuilder}
kinds, out, *rooms = sys.argv[1:]
for room in rooms:
    for kind in kinds.split(","):
        for path in builders[kind](room).build(directory=out):
            print(path)
"""


def build(
    tree: Path,
    out: Path,
    *,
    seconds: int,
    only: Collection[str] = (),
    kinds: Collection[str] = ("wheel", "sdist"),
) -> list[Path]:
    """Build every room of a tree.

    Args:
        tree: An export; what lies in it goes in.
        out: Where the files go.
        seconds: Time of everything inside, since the epoch.
        only: Names of distributions; empty means all.
        kinds: `wheel`, `sdist`.

    Raises:
        ReleaseError: A room cannot be built; the message carries the backend's last line.
    """
    wanted = [room for room in rooms(tree) if not only or room.name in only]
    out.mkdir(parents=True, exist_ok=True)
    directories = [str((tree / room.path).resolve()) for room in wanted]
    made = subprocess.run(
        [sys.executable, "-c", _BUILD, ",".join(sorted(kinds)), str(out.resolve()), *directories],
        cwd=ROOT,
        env={"SOURCE_DATE_EPOCH": str(seconds), "LC_ALL": "C.UTF-8", "TZ": "UTC"},
        capture_output=True,
        text=True,
        check=False,
        timeout=_TIMEOUT_S,
    )
    if made.returncode:
        last = made.stderr.strip().rpartition("\n")[2]
        raise ReleaseError(f"a room could not be built: {last}")
    return [Path(line) for line in made.stdout.splitlines()]


def unpack(wheels: Collection[Path], site: Path) -> Path:
    """Make a directory for PYTHONPATH out of wheels, with their metadata, and return it."""
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(site)
    return site
