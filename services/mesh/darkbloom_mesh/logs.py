"""Structured logs: JSON lines on standard output, one constant message and fields.

    log = structlog.get_logger()
    log.info("provider_registered", provider_id=provider_id, trust_level=level)

Fields: `ts` (UTC), `level`, `msg`, `service`, `version`,
`build_commit`, `env`, `request_id`, `trace_id`, `span_id`, then
the event's own. An exception is written as its type and the names of its frames: its text and its
locals may hold content. Records of libraries are kept from WARNING up, as logger, template and
line; a text that was already filled in is left out for the same reason.
"""

import logging
import sys
import traceback
from collections.abc import MutableMapping
from typing import Any

import structlog

from darkbloom_mesh import tracing
from darkbloom_mesh.context import request_id

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING}
_MAX_FRAMES = 30
EventDict = MutableMapping[str, Any]


def configure(
    *,
    room: str,
    version: str,
    level: str,
    build_commit: str = "unknown",
    environment: str = "production",
    stream: Any = None,
) -> None:
    """Set logging up for the process; call once, before the first event."""
    threshold = _LEVELS.get(level, logging.ERROR)

    def add_identity(_logger: object, _method: str, event: EventDict) -> EventDict:
        fields: dict[str, Any] = {
            "ts": event.pop("timestamp"),
            "level": event.pop("level"),
            "msg": event.pop("event"),
            "service": room,
            "version": version,
            "build_commit": build_commit,
            "env": environment,
        }
        if current := request_id():
            fields["request_id"] = current
        if trace_ids := tracing.ids():
            fields["trace_id"], fields["span_id"] = trace_ids
        return {**fields, **event}

    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _name_failure,
            add_identity,
            structlog.processors.JSONRenderer(default=_type_name),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.PrintLoggerFactory(stream),
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    root.handlers[:] = [_Bridge(max(threshold, logging.WARNING))]
    root.setLevel(max(threshold, logging.WARNING))


def failure(error: BaseException) -> dict[str, Any]:
    """Describe an exception by type and frames, without its text."""
    frames = traceback.extract_tb(error.__traceback__)[-_MAX_FRAMES:]
    described: dict[str, Any] = {
        "error_type": type(error).__name__,
        "frames": [
            f"{frame.filename.rpartition('/')[2]}:{frame.lineno}:{frame.name}" for frame in frames
        ],
    }
    if isinstance(error, BaseExceptionGroup):
        described["causes"] = [failure(inner) for inner in error.exceptions]
    elif error.__cause__ is not None:
        described["causes"] = [failure(error.__cause__)]
    return described


def _name_failure(_logger: object, _method: str, event: EventDict) -> EventDict:
    given = event.pop("exc_info", None)
    error = sys.exc_info()[1] if given is True else given
    if isinstance(error, BaseException):
        event.update(failure(error))
    return event


def _type_name(value: object) -> str:
    """Stand in for a value that is not JSON: its repr may hold content."""
    return f"<{type(value).__name__}>"


class _Bridge(logging.Handler):
    """Turns the records of libraries into events."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write logger, line and, where it still has its placeholders, the template."""
        fields: dict[str, Any] = {"logger": record.name, "line": f"{record.module}:{record.lineno}"}
        if record.args and isinstance(record.msg, str):
            fields["template"] = record.msg
        if record.exc_info and record.exc_info[1] is not None:
            fields["exc_info"] = record.exc_info[1]
        level = "warning" if record.levelno < logging.ERROR else "error"
        getattr(structlog.get_logger(), level)("library_record", **fields)
