"""Reading the log of the background service: its end, a span of time, and as people read it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

MAX_READ_BYTES: Final = 32 * 1024 * 1024
"""Most that is read of one log, from its end."""
_SPAN = re.compile(r"(\d{1,6})\s*(s|m|h|d|w)\Z", re.ASCII)
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_HEAD = ("ts", "level", "msg", "service", "version")
_MAX_SHOWN = 2000


def parse_span(text: str) -> timedelta:
    """Read a span such as `90s`, `30m`, `24h`, `7d`.

    Raises:
        ValueError: it is none.
    """
    match = _SPAN.match(text.strip().lower())
    if match is None:
        raise ValueError("write a span as 90s, 30m, 24h or 7d")
    return timedelta(seconds=int(match.group(1)) * _UNITS[match.group(2)])


def read_lines(path: Path, limit: int = MAX_READ_BYTES) -> list[bytes]:
    """Return whole lines from the end of a log; none where there is no file."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            start = max(0, size - limit)
            file.seek(start)
            data = file.read(limit)
    except FileNotFoundError:
        return []
    lines = data.splitlines()
    return lines[1:] if start else lines


def since(lines: list[bytes], instant: datetime) -> list[bytes]:
    """Return the lines from `instant` on; one without a time goes with the line before it."""
    kept = []
    inside = False
    for line in lines:
        at = _instant(parse(line))
        if at is not None:
            inside = at >= instant
        if inside:
            kept.append(line)
    return kept


def parse(line: bytes) -> dict[str, Any] | None:
    """Return the fields of a structured line, None for any other."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def shown(line: bytes) -> str:
    """Return a line as people read it: time, level, event, fields; without control codes."""
    fields = parse(line)
    if fields is None:
        return _printable(line.decode("utf-8", "replace"))
    at = str(fields.get("ts", ""))[:19].replace("T", " ")
    rest = " ".join(
        f"{name}={_short(value)}" for name, value in fields.items() if name not in _HEAD
    )
    level = str(fields.get("level", ""))
    return _printable(f"{at} {level:<7} {fields.get('msg', '')} {rest}".rstrip())


def follow(path: Path, position: int) -> Iterator[tuple[bytes, int]]:
    """Yield (line, position after it) of what was added since `position`; a new file is read whole.

    A line without its end waits until that is written.
    """
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        return
    if size < position:
        position = 0
    with path.open("rb") as file:
        file.seek(position)
        for line in file:
            if not line.endswith(b"\n"):
                return
            position += len(line)
            yield line.rstrip(b"\n"), position


def _instant(fields: dict[str, Any] | None) -> datetime | None:
    text = None if fields is None else fields.get("ts")
    if not isinstance(text, str):
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo is not None else None


def _short(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else " " for char in text[:_MAX_SHOWN])
