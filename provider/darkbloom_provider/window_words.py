"""Weekly windows as people type them: `mon-fri 22:00-06:00`, `weekend`, `daily 01:00-05:00`."""

import re

from darkbloom_provider.schedule import DAYS, Window, WindowError, parse_window

_GROUPS = {"daily": DAYS, "weekdays": DAYS[:5], "weekend": DAYS[5:], "weekends": DAYS[5:]}
_TIMES = re.compile(r"(?P<days>.*?)\s*(?P<start>\d{1,2}:\d\d)\s*(?:-|to)\s*(?P<end>\d{1,2}:\d\d)")


def parse_words(text: str) -> Window:
    """Read a window.

    >>> str(parse_words("sat-mon 22:00-06:00"))
    'mon,sat,sun 22:00-06:00'

    Raises:
        WindowError: not understood; the text says what is.
    """
    found = _TIMES.fullmatch(text.strip().lower())
    if found is None:
        if text.strip().lower() in _GROUPS:
            return parse_window(list(_GROUPS[text.strip().lower()]), "00:00", "00:00")
        raise WindowError("write days and times, such as mon-fri 22:00-06:00")
    days = [day for part in re.split(r"[,\s]+", found["days"] or "daily") for day in _days(part)]
    return parse_window(days, found["start"], found["end"])


def _days(part: str) -> list[str]:
    """Return the days of one word: a day, a range that may wrap round Sunday, or a group."""
    if part in _GROUPS:
        return list(_GROUPS[part])
    first, dash, last = part.partition("-")
    if not dash:
        return [part] if part else []
    [start] = parse_window([first], "00:00", "00:00").days
    [end] = parse_window([last], "00:00", "00:00").days
    return [DAYS[day % 7] for day in range(start, end + 1 if end >= start else end + 8)]


def as_row(window: Window) -> dict[str, str | list[str]]:
    """Return a window as `provider.toml` holds it."""
    return {
        "days": [DAYS[day] for day in window.days],
        "start": f"{window.start:%H:%M}",
        "end": f"{window.end:%H:%M}",
    }
