"""How this installation is started by somebody else: the words in front of a command's name."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

LAUNCHER = Path("Contents", "MacOS", "DarkbloomLauncher")
CURRENT = "current"
"""Link in the folder of updates that names the version in use."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Program:
    """What the service manager runs."""

    command: tuple[str, ...]
    """For any command of `darkbloom`."""
    agent: tuple[str, ...]
    """For the agent: `start --foreground` included."""


def program_here(app: Path, executable: Path | None = None) -> Program:
    """Return how this very installation is started again.

    Args:
        app: folder of the updates. An installation in there is started through the link that
            names the version in use, so that an update needs no new definition.
        executable: the running interpreter.
    """
    python = executable or Path(sys.executable)
    plain = _through_link(python, app)
    command = (str(plain), "-I", "-B", "-m", "darkbloom_provider")
    launcher = _launcher(plain)
    if launcher is not None:
        # Only the signed launcher may start the agent: it is the process that Apple knows.
        return Program(command=command, agent=(str(launcher),))
    return Program(command=command, agent=(*command, "start", "--foreground"))


def _through_link(python: Path, app: Path) -> Path:
    current = app / CURRENT
    try:
        inside = python.parent.resolve(strict=True) / python.name
        return current / inside.relative_to(current.resolve(strict=True))
    except (OSError, ValueError):
        return python


def _launcher(python: Path) -> Path | None:
    """Return the launcher of the application that this interpreter is part of."""
    for folder in python.parents:
        if folder.suffix == ".app" and (folder / LAUNCHER).is_file():
            return folder / LAUNCHER
    return None
