"""The previous release as it is installed: wheels built from its commit, on the path first.

Third-party packages are those of this environment.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from darkbloom_local.environment import inherited

from tools.release import wheels
from tools.release.trees import Repository

RECORD = Path(__file__).with_name("PREVIOUS")
_VARIABLES = """
import json, sys
from importlib import import_module
from inspect import getmembers, isclass
from darkbloom_mesh.config import CommonConfig, describe
room = sys.argv[1]
module = import_module(f"darkbloom_{room}.config")
ours = [c for _, c in getmembers(module, isclass)
        if issubclass(c, CommonConfig) and c.__module__ == module.__name__]
print(json.dumps([row.name for row in describe(ours[0], room)]))
"""


def recorded() -> tuple[str, str]:
    """Return tag and commit of the previous release."""
    lines = RECORD.read_text().splitlines()
    (line,) = [line for line in lines if line and not line.startswith("#")]
    tag, commit = line.split()
    return tag, commit


@dataclass(frozen=True)
class Previous:
    """The previous release on this machine."""

    tag: str
    commit: str
    tree: Path
    """Its source."""
    site: Path
    """Its packages, unpacked."""

    @property
    def version(self) -> str:
        """Its version."""
        return self.tag.removeprefix("v")

    @property
    def environment(self) -> dict[str, str]:
        """What makes a process run its code."""
        return {"PYTHONPATH": str(self.site)}

    def room(self, name: str) -> list[str]:
        """Return a command line for a room.

        A room refuses variables that it does not know, and each version is rolled out with its own
        manifest; so what only today's room knows is taken away.
        """
        new = set(_variables(name, {})) - set(_variables(name, self.environment))
        unset = [part for variable in sorted(new) for part in ("-u", variable)]
        program = (sys.executable, "-m", f"darkbloom_{name}")
        return ["env", *unset, f"PYTHONPATH={self.site}", *program]

    def rooms(self, names: Sequence[str]) -> dict[str, list[str]]:
        """Return command lines by room, as `Mesh(programs=…)` takes them."""
        return {name: self.room(name) for name in names}


def previous(scratch: Callable[[], Path]) -> Previous:
    """Build the previous release, or skip by name where its commit is not in this clone.

    Args:
        scratch: Gives an empty directory.
    """
    tag, commit = recorded()
    repository = Repository()
    if not repository.has(commit):
        pytest.skip(f"the commit of {tag} is not in this clone")
    where = scratch()
    tree = repository.export(commit, where / "tree")
    seconds = repository.seconds(commit)
    made = wheels.build(tree, where / "wheels", seconds=seconds, kinds=("wheel",))
    return Previous(tag, commit, tree, wheels.unpack(made, where / "site"))


def _variables(room: str, environment: dict[str, str]) -> list[str]:
    said = subprocess.run(
        [sys.executable, "-c", _VARIABLES, room],
        env=inherited() | environment,
        capture_output=True,
        check=True,
        text=True,
        timeout=60,
    )
    return list(json.loads(said.stdout))
