"""Times and sizes as people say them."""

from datetime import datetime, timedelta, tzinfo

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


def span(seconds: float) -> str:
    """Return a length of time in its two largest units.

    >>> span(3_725)
    '1 h 2 min'
    """
    whole = int(seconds)
    if whole < 60:  # noqa: PLR2004 - seconds of a minute
        return f"{whole} s"
    minutes, hours = whole // 60 % 60, whole // 3600 % 24
    days = whole // 86_400
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min"


def until(moment: datetime, now: datetime, zone: tzinfo) -> str:
    """Return when something happens, on the owner's wall clock, and how far off it is."""
    there = moment.astimezone(zone)
    away = span((moment - now) / timedelta(seconds=1))
    return f"{_DAYS[there.weekday()]} {there:%H:%M}, in {away}"
