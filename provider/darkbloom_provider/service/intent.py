"""Whether the owner wants the agent to run, kept across crashes and reboots."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from darkbloom_provider.service.files import write_private

MAX_BYTES = 65_536
Wanted = Literal["running", "stopped"]


class Intent(msgspec.Struct, frozen=True, kw_only=True):
    """What `start` and `stop` said last."""

    wanted: Wanted = "stopped"
    arguments: tuple[str, ...] = ()
    """What follows `start --foreground` in the service, recorded for `restart`."""
    since: str = ""
    """When it was said, UTC."""


def read_intent(path: Path) -> Intent:
    """Return the last word; a missing or damaged file says that nothing was wanted."""
    try:
        with path.open("rb") as file:
            return msgspec.json.decode(file.read(MAX_BYTES), type=Intent)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return Intent()


def write_intent(path: Path, intent: Intent) -> None:
    """Keep the owner's word."""
    write_private(path, msgspec.json.encode(intent))
