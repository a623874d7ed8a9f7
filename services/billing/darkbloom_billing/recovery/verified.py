"""When a backup was last found sound: a small file for each time, beside the heads that proved it.

Not in the database: a restored one would tell of itself, and a lost one of nothing.
"""

import asyncio
import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog
from darkbloom_mesh.clock import Clock

from darkbloom_billing.kept import torn, write_once

_PREFIX, _SUFFIX = "verified-", ".json"
_STAMP = "%Y%m%dT%H%M%SZ"
_LOOK_S = 60.0
_READ_S = 20.0
_log = structlog.get_logger()


def note(directory: Path, at: datetime, told: Mapping[str, Any]) -> Path:
    """Write down that a backup was sound; returns the file, which is never overwritten.

    Args:
        directory: Where copies of heads are; on a file system with hard links.
        at: When the restore began.
        told: What was found, as JSON takes it.

    Raises:
        OSError: The directory is missing or may not be written.
        ValueError: Another check of the same second says otherwise.
    """
    path = directory / f"{_PREFIX}{at.astimezone(UTC):{_STAMP}}{_SUFFIX}"
    write_once(path, json.dumps(dict(told), sort_keys=True) + "\n")
    return path


def newest(directory: Path) -> datetime | None:
    """Return when a backup was last found sound; None: never. A torn file counts for nothing.

    Raises:
        OSError: The directory cannot be read.
    """
    if not directory.is_dir():
        raise FileNotFoundError(directory.name)
    for path in sorted(directory.glob(f"{_PREFIX}*{_SUFFIX}"), reverse=True):
        stamp = path.name.removeprefix(_PREFIX).removesuffix(_SUFFIX)
        try:
            at = datetime.strptime(stamp, _STAMP).replace(tzinfo=UTC)
        except ValueError:
            continue
        if not torn(path):
            return at
    return None


async def watch(directory: Path, clock: Clock, show: Callable[[float], object]) -> None:
    """Show the time of the newest one for ever, in unix seconds; 0: there was none."""
    while True:
        try:
            async with asyncio.timeout(_READ_S):
                found = await asyncio.to_thread(newest, directory)
            show(0.0 if found is None else found.timestamp())
        except OSError as error:
            # What is shown stays, and grows old by itself.
            _log.warning("verified_backups_unreadable", error=type(error).__name__)
        await clock.sleep(_LOOK_S)
