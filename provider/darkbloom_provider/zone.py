"""The time zone of this machine, by name, so that clock changes ahead are known."""

from __future__ import annotations

from datetime import UTC, tzinfo
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

LOCALTIME = Path("/etc/localtime")
_FOLDER = "zoneinfo/"


def local_zone(name: str | None = None, localtime: Path = LOCALTIME) -> tzinfo:
    """Return the zone that `TZ` names, else the one that the system is set to, else UTC.

    Args:
        name: value of the variable `TZ`, if it is set.
        localtime: where the system keeps its zone, a link into the zone database or a copy.
    """
    if name:
        named = name.removeprefix(":")
        try:
            return ZoneInfo(named)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            # A POSIX rule or a typing error; what the system says is the better guess.
            pass
    try:
        target = str(localtime.resolve(strict=True))
        _, found, key = target.rpartition(_FOLDER)
        if found:
            return ZoneInfo(key)
        with localtime.open("rb") as file:
            return ZoneInfo.from_file(file, key="localtime")
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return UTC
