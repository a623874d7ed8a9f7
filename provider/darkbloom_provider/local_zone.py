"""The zone of the owner's wall clock, rules and all, so that windows survive clock changes."""

from datetime import UTC, tzinfo
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

_SYSTEM = Path("/etc/localtime")


def local_zone(name: str = "", system: Path = _SYSTEM) -> tzinfo:
    """Return the zone of `TZ` where it names one, else the system's, else UTC.

    Args:
        name: what `TZ` holds, such as `Europe/Berlin`.
        system: the compiled rules that the system uses.
    """
    try:
        return ZoneInfo(name.removeprefix(":")) if name else _of_file(system)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return _of_file(system) if name else UTC


def _of_file(path: Path) -> tzinfo:
    try:
        with path.open("rb") as file:
            return ZoneInfo.from_file(file, key=_name(path))
    except (OSError, ValueError):
        return UTC


def _name(path: Path) -> str | None:
    """Return the name that the link to the rules gives away, only to be shown."""
    _, found, name = str(path.resolve()).partition("zoneinfo/")
    return name if found else None
