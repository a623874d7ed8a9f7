"""Which versions keep dying on this machine. Pure; what was seen is handed in.

A version that dies three times before it has run for ten minutes is quarantined here and is not
installed again by itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from darkbloom_provider.service.files import write_private

STABLE_S: Final = 600.0
MAX_DEATHS: Final = 3
_MAX_BYTES = 65_536
_MAX_KEPT = 32


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of versions."""

    deaths: dict[str, int] = {}
    """Early deaths by version, until it has proven itself."""
    quarantined: tuple[str, ...] = ()


def note_death(health: Health, version: str, ran_s: float) -> Health:
    """Count a death; three early ones quarantine the version."""
    if ran_s >= STABLE_S:
        return health
    count = health.deaths.get(version, 0) + 1
    deaths = {**health.deaths, version: count}
    if count < MAX_DEATHS or version in health.quarantined:
        return Health(deaths=deaths, quarantined=health.quarantined)
    kept = (*health.quarantined, version)[-_MAX_KEPT:]
    return Health(deaths=deaths, quarantined=kept)


def note_stable(health: Health, version: str) -> Health:
    """Forget the deaths of a version that has run for ten minutes."""
    deaths = {name: count for name, count in health.deaths.items() if name != version}
    kept = tuple(name for name in health.quarantined if name != version)
    return Health(deaths=deaths, quarantined=kept)


def read_health(path: Path) -> Health:
    """Return what was kept; a missing or damaged file is a clean sheet."""
    try:
        with path.open("rb") as file:
            return msgspec.json.decode(file.read(_MAX_BYTES), type=Health)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return Health()


def write_health(path: Path, health: Health) -> None:
    """Keep it."""
    write_private(path, msgspec.json.encode(health))
