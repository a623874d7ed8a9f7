"""What a hostile process is asked to do, and what it has seen; both are files.

The test writes the name of a mischief, the process reads it where it matters. So the same process
behaves again when the test says so.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

VARIABLE = "MISCHIEF_DIR"
PROVIDER_PROGRAM = (
    *(sys.executable, "-m", "tests.mesh.hostile.provider"),
    *("start", "--foreground", "--engine", "scripted"),
)
"""An agent that does as it is asked."""


class Mischief:
    """Orders and witness in one directory.

    Args:
        directory: Where; None asks the environment, as hostile processes do.
    """

    def __init__(self, directory: Path | None = None) -> None:
        self._directory = directory or Path(os.environ[VARIABLE])  # noqa: TID251 - no config here
        self._directory.mkdir(exist_ok=True)

    @property
    def environment(self) -> dict[str, str]:
        """What a hostile process must be told."""
        return {VARIABLE: str(self._directory)}

    # -- the test's side

    def order(self, name: str) -> None:
        """Ask for a mischief, again and again, until `behave`."""
        (self._directory / "order").write_text(name)

    def order_once(self, name: str) -> None:
        """Ask for a mischief once, of whoever comes first."""
        (self._directory / f"once-{name}").touch()

    def behave(self) -> None:
        """Ask for none any more."""
        for path in self._directory.glob("o*"):
            path.unlink(missing_ok=True)

    def seen(self, event: str) -> list[dict[str, Any]]:
        """Return what the hostile process noted about an event."""
        try:
            lines = (self._directory / "seen").read_text().splitlines()
        except FileNotFoundError:
            return []
        return [note for note in map(json.loads, lines) if note["event"] == event]

    # -- the hostile side

    def wanted(self, name: str) -> bool:
        """Say whether to do this now; a single order is used up by asking."""
        try:
            (self._directory / f"once-{name}").unlink()
        except FileNotFoundError:
            pass
        else:
            return True
        try:
            return (self._directory / "order").read_text() == name
        except FileNotFoundError:
            return False

    def note(self, event: str, **facts: Any) -> None:
        """Tell the test what happened."""
        with (self._directory / "seen").open("a") as file:
            file.write(json.dumps({"event": event, "pid": os.getpid(), **facts}) + "\n")
