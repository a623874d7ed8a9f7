"""How this installation is started by somebody else: the words in front of a command's name."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

LAUNCHER = Path("Contents", "MacOS", "DarkbloomLauncher")
CURRENT = "current"
"""Link in the folder of updates that names the version in use."""
PROVEN = "proven"
"""Link in the same folder that names the last version that ran well."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Program:
    """What the service manager runs."""

    command: tuple[str, ...]
    """For any command of `darkbloom`."""
    agent: tuple[str, ...]
    """For the agent: `start --foreground` included."""
    watchdog: tuple[str, ...]
    """For the watchdog: it runs the last version that has proven itself, so that one that is broken
    does not take its own physician along."""


def program_here(app: Path, executable: Path | None = None) -> Program:
    """Return how this very installation is started again.

    Args:
        app: folder of the updates. An installation in there is started through the link that
            names the version in use, so that an update needs no new definition.
        executable: the running interpreter.
    """
    python = executable or Path(sys.executable)
    plain = _through_link(python, app)
    command = _module(plain)
    watchdog = (*_module(_through_link(python, app, PROVEN)), "watchdog")
    launcher = _launcher(plain)
    if launcher is not None:
        # Only the signed launcher may start the agent: it is the process that Apple knows.
        return Program(command=command, agent=(str(launcher),), watchdog=watchdog)
    return Program(command=command, agent=(*command, "start", "--foreground"), watchdog=watchdog)


def _module(python: Path) -> tuple[str, ...]:
    return (str(python), "-I", "-B", "-m", "darkbloom_provider")


def _through_link(python: Path, app: Path, link: str = CURRENT) -> Path:
    """Return the interpreter of the version that a link names, where this is one of its like."""
    try:
        inside = python.parent.resolve(strict=True) / python.name
        versions = (app / "versions").resolve(strict=True)
        place = Path(*inside.relative_to(versions).parts[1:])
    except (OSError, ValueError):
        return python
    named = app / link / place
    if link == PROVEN and not named.exists():
        return _through_link(python, app)
    return named


def _launcher(python: Path) -> Path | None:
    """Return the launcher of the application that this interpreter is part of."""
    for folder in python.parents:
        if folder.suffix == ".app" and (folder / LAUNCHER).is_file():
            return folder / LAUNCHER
    return None
