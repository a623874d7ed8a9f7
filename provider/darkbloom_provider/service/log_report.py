"""What of our logs may leave this machine, when its owner asks for that.

An allow-list, not a search for secrets: a field that is not named here stays, and so does a value
that is not of its field's shape, whatever it is. Free text has no field. Our logs hold no content
to begin with; this holds even if one day a library's line does.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any, Final

from darkbloom_provider.service.logbook import parse

MAX_BYTES: Final = 8 * 1024 * 1024
"""Largest report; the newest lines are kept. The gateway takes 10 MiB."""
_WORD = re.compile(r"[A-Za-z0-9_.-]{1,64}\Z", re.ASCII)
_INSTANT = re.compile(r"[0-9T:.+Z-]{10,40}\Z", re.ASCII)
_MODEL = re.compile(r"[A-Za-z0-9_.-]{1,96}(/[A-Za-z0-9_.-]{1,96})?\Z", re.ASCII)
_FRAME = re.compile(r"[A-Za-z0-9_.<>-]{1,64}:\d{1,7}:[A-Za-z0-9_.<>-]{1,96}\Z", re.ASCII)
_SHAPES: Final = {
    "ts": _INSTANT,
    "opens_at": _INSTANT,
    **dict.fromkeys(("level", "msg", "service", "version", "back_to", "reason", "step"), _WORD),
    **dict.fromkeys(("error_type", "task", "result", "code", "state", "kind", "logger"), _WORD),
    **dict.fromkeys(("request_id", "trace_id", "span_id", "attempt_id"), _WORD),
    **dict.fromkeys(("build", "model", "models"), _MODEL),
    "frames": _FRAME,
}
"""Text fields, or lists of such text."""
_NUMBERS: Final = frozenset(
    {
        *("app_attest", "clean", "code", "count", "force", "grace_s", "lost_bytes", "pid", "port"),
        *("push", "restarts", "running", "waiting"),
    }
)
"""Fields of numbers and booleans."""


def compose(lines: Iterable[bytes], head: dict[str, str], limit: int = MAX_BYTES) -> bytes:
    """Return a report: one line that says which agent it is of, then what may leave.

    Args:
        lines: of the log, oldest first.
        head: facts about the agent: version, platform.
        limit: most bytes.
    """
    first = json.dumps({"report": 1, **head}, separators=(",", ":")).encode()
    kept: list[bytes] = []
    size = len(first) + 1
    for line in reversed(list(lines)):
        filtered = filter_line(line)
        if filtered is None:
            continue
        size += len(filtered) + 1
        if size > limit:
            break
        kept.append(filtered)
    return b"\n".join((first, *reversed(kept), b""))


def filter_line(line: bytes) -> bytes | None:
    """Return what may leave of one line; None where that is nothing."""
    fields = parse(line)
    if fields is None:
        return None
    kept = _filter(fields)
    return json.dumps(kept, separators=(",", ":")).encode() if "msg" in kept else None


def _filter(fields: dict[str, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for name, value in fields.items():
        if name == "causes" and isinstance(value, list):
            kept[name] = [_filter(cause) for cause in value if isinstance(cause, dict)]
        elif name in _NUMBERS and isinstance(value, int | float):
            kept[name] = value
        elif name in _SHAPES:
            shaped = _shaped(value, _SHAPES[name])
            if shaped is not None:
                kept[name] = shaped
    return kept


def _shaped(value: object, shape: re.Pattern[str]) -> object | None:
    if isinstance(value, str):
        return value if shape.match(value) else None
    if isinstance(value, list):
        return [item for item in value if isinstance(item, str) and shape.match(item)]
    return None
