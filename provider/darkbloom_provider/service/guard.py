"""When a crashed agent is started again, and when that stops being help. Pure; time is handed in.

The first restart comes five minutes after the crash was seen: a machine that cannot serve should
not hammer the network or heat up. Three restarts of one version within an hour trip the guard,
which holds until another version is installed or the owner says `darkbloom start`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import msgspec

CHECK_S: Final = 60.0
RELAUNCH_AFTER_S: Final = 300.0
WINDOW_S: Final = 3600.0
MAX_RESTARTS: Final = 3


class Advice(StrEnum):
    """What the watchdog does now."""

    NOTHING = "nothing"
    """It runs, or is not wanted."""
    WAIT = "wait"
    """It has just been seen dead."""
    RELAUNCH = "relaunch"
    TRIPPED = "tripped"
    """This version has been started again too often."""


class Watch(msgspec.Struct, frozen=True, kw_only=True):
    """What the watchdog remembers; instants are Unix seconds."""

    version: str = ""
    """The version that the restarts below are of."""
    dead_since: float | None = None
    """When it was first seen dead; None while it runs."""
    restarts: tuple[float, ...] = ()
    """Restarts within the window."""
    tripped: bool = False


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What the watchdog sees at one look."""

    now: float
    version: str
    """The version that would be started."""
    running: bool
    wanted: bool
    """The owner's word, and `auto_restart`."""


def advise(watch: Watch, seen: Seen) -> tuple[Watch, Advice]:
    """Return what to remember and what to do."""
    if not seen.wanted:
        # Whoever starts it again by hand begins with a clean sheet.
        return Watch(version=seen.version), Advice.NOTHING
    if watch.version != seen.version:
        watch = Watch(version=seen.version, dead_since=watch.dead_since)
    recent = tuple(at for at in watch.restarts if 0 <= seen.now - at < WINDOW_S)
    watch = msgspec.structs.replace(watch, restarts=recent)
    if seen.running:
        return msgspec.structs.replace(watch, dead_since=None), Advice.NOTHING
    if watch.dead_since is None or watch.dead_since > seen.now:
        # Just seen dead, or the wall clock was set back.
        watch = msgspec.structs.replace(watch, dead_since=seen.now)
    return _advise_dead(watch, seen.now)


def _advise_dead(watch: Watch, now: float) -> tuple[Watch, Advice]:
    if watch.tripped:
        return watch, Advice.TRIPPED
    if watch.dead_since is None or now - watch.dead_since < RELAUNCH_AFTER_S:
        return watch, Advice.WAIT
    if len(watch.restarts) >= MAX_RESTARTS:
        return msgspec.structs.replace(watch, tripped=True), Advice.TRIPPED
    restarts = (*watch.restarts, now)
    return msgspec.structs.replace(watch, dead_since=None, restarts=restarts), Advice.RELAUNCH
