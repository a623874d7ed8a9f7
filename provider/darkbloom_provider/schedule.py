"""When this machine is lent out: weekly windows on the owner's wall clock (spec: provider 8.3).

Pure arithmetic; the instant and the zone are handed in. A boundary is the first instant at which
the wall clock of its day shows the time or a later one. So where the clocks go forward over 02:30,
a window from 02:30 opens at the jump; where they go back over it, only the first 02:30 counts and
nothing flaps. A window's real length may therefore differ from its nominal one by the hour that
the clocks moved.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_FULL_NAMES = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_NUMBERS = {name: number for names in (DAYS, _FULL_NAMES) for number, name in enumerate(names)}
_CLOCK_TIME = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)\Z", re.ASCII)
_AHEAD_DAYS = 9
"""A week of windows, and the day on each side that may reach into it."""
_DAY = timedelta(days=1)
_MINUTE = timedelta(minutes=1)
_LONGEST_JUMP = timedelta(hours=25)
"""No zone has ever skipped more: Samoa once left out a whole day."""


class WindowError(ValueError):
    """A window that cannot be understood; the text names the part."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """One weekly availability window, on the wall clock."""

    days: tuple[int, ...]
    """Days on which it starts, 0 is Monday; sorted, without repeats."""
    start: time
    end: time
    """Not after `start`: it ends the next day; equal times are 24 hours."""

    def __str__(self) -> str:
        days = ",".join(DAYS[day] for day in self.days)
        return f"{days} {self.start:%H:%M}-{self.end:%H:%M}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Phase:
    """What the schedule says of one instant."""

    open: bool
    until: datetime | None
    """When that changes next, in UTC; None for never."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Schedule:
    """All windows of a machine; without any it is always open."""

    windows: tuple[Window, ...] = ()
    zone: tzinfo = UTC

    def at(self, now: datetime) -> Phase:
        """Return whether the machine is lent out at `now`, an aware instant, and until when."""
        if not self.windows:
            return Phase(open=True, until=None)

        now = now.astimezone(UTC)
        first = now.astimezone(self.zone).date() - 2 * _DAY
        horizon = now + (_AHEAD_DAYS - 1) * _DAY
        for opens, closes in _merged(self._spans(first)):
            if closes <= now:
                continue
            if opens > now:
                return Phase(open=False, until=opens)
            # Windows without a gap, all week round, never close.
            return Phase(open=True, until=closes if closes < horizon else None)
        return Phase(open=False, until=None)

    def _spans(self, first: date) -> Iterator[tuple[datetime, datetime]]:
        for ahead in range(_AHEAD_DAYS + 2):
            day = first + ahead * _DAY
            for window in self.windows:
                if day.weekday() not in window.days:
                    continue
                last = day if window.end > window.start else day + _DAY
                opens = instant(day, window.start, self.zone)
                closes = instant(last, window.end, self.zone)
                if closes > opens:
                    yield opens, closes


def parse_window(days: object, start: object, end: object) -> Window:
    """Read a window as the configuration and the command line write it, whatever that is.

    Args:
        days: a list of `mon` … `sun` or full names, any case.
        start: local `HH:MM`.
        end: local `HH:MM`; `24:00` is midnight.

    Raises:
        WindowError: an unknown day, none at all, or no time of day.
    """
    if not isinstance(days, list | tuple) or not days:
        raise WindowError("days must be a list of one day or more")
    numbers = set()
    for name in days:
        number = _NUMBERS.get(name.strip().lower()) if isinstance(name, str) else None
        if number is None:
            raise WindowError(f"days: {str(name)[:20]!r} is no day; write mon, tue, … sun")
        numbers.add(number)
    return Window(
        days=tuple(sorted(numbers)),
        start=_clock_time(start, "start"),
        end=time(0) if end == "24:00" else _clock_time(end, "end"),
    )


def instant(day: date, wall: time, zone: tzinfo) -> datetime:
    """Return the first instant, in UTC, at which the wall clock of `day` shows `wall` or later."""
    local = datetime.combine(day, wall, tzinfo=zone)
    found = local.astimezone(UTC)
    if found.astimezone(zone).replace(tzinfo=None) == local.replace(tzinfo=None):
        return found
    # The clocks jumped over it: look for the jump, the last minute before which it is earlier.
    sought = local.replace(tzinfo=None)
    low, high = found - _LONGEST_JUMP, found
    while high - low > _MINUTE:
        middle = low + ((high - low) / 2 // _MINUTE) * _MINUTE
        if middle.astimezone(zone).replace(tzinfo=None) >= sought:
            high = middle
        else:
            low = middle
    return high


def _merged(spans: Iterable[tuple[datetime, datetime]]) -> Iterator[tuple[datetime, datetime]]:
    current: tuple[datetime, datetime] | None = None
    for opens, closes in sorted(spans):
        if current is None:
            current = opens, closes
        elif opens <= current[1]:
            current = current[0], max(current[1], closes)
        else:
            yield current
            current = opens, closes
    if current is not None:
        yield current


def _clock_time(text: object, part: str) -> time:
    match = _CLOCK_TIME.match(text) if isinstance(text, str) else None
    if match is None:
        raise WindowError(f"{part}: {str(text)[:20]!r} is no time of day; write HH:MM")
    return time(int(match.group(1)), int(match.group(2)))
