"""Runs the tools of the service manager; the one place where this package meets the system."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass

TIMEOUT_S = 30.0
"""Bound of one tool."""
_MAX_CHARS = 65_536
_NOT_RUN = 127


@dataclass(frozen=True, slots=True)
class Done:
    """What a tool said."""

    code: int
    output: str = ""
    errors: str = ""

    @property
    def ok(self) -> bool:
        """Whether it succeeded."""
        return self.code == 0


Runner = Callable[[Sequence[str]], Done]
"""Runs one command to its end; 127 where it cannot be run or takes too long."""


def run_tool(command: Sequence[str]) -> Done:
    """Run a tool of the system; see `Runner`."""
    try:
        done = subprocess.run(  # noqa: S603 - fixed tools, arguments that we made
            tuple(command),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="replace",
            timeout=TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.SubprocessError) as error:
        return Done(_NOT_RUN, errors=type(error).__name__)
    return Done(done.returncode, done.stdout[:_MAX_CHARS], done.stderr[:_MAX_CHARS])
