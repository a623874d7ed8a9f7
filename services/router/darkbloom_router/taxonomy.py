"""How an attempt ended, in the closed words that operators, aggregators and dashboards share.

Inside, an attempt ends with one word, `attempt.outcome`. Here it becomes three: what the consumer
got, whose end it was and when, and why.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class FinalStatus(StrEnum):
    """What came of it. A first content alone is no success."""

    SUCCESS = "success"
    PARTIAL_SUCCESS = "partial_success"
    CANCELLED = "cancelled"
    ERROR = "error"
    TIMEOUT = "timeout"


class ErrorClass(StrEnum):
    """Whose end it was, and whether content had come by then."""

    NONE = ""
    CLIENT_GONE_BEFORE_RESPONSE = "client_gone_before_response"
    CLIENT_GONE_AFTER_COMMIT = "client_gone_after_commit_provider_cancelled"
    SPECULATIVE_LOSER = "speculative_loser"
    PROVIDER_ERROR = "provider_error_before_response"
    PROVIDER_DISCONNECT = "provider_disconnect_before_response"
    PROVIDER_INCOMPLETE = "provider_incomplete_before_response"
    PROVIDER_ERROR_AFTER_COMMIT = "provider_error_after_commit"
    PROVIDER_DISCONNECT_AFTER_COMMIT = "provider_disconnect_after_commit"
    CLIENT_ERROR = "client_error"
    DEADLINE_UNREACHABLE = "deadline_unreachable"
    INSUFFICIENT_FUNDS = "insufficient_funds"
    ENCRYPTION_ERROR = "encryption_error"
    FIRST_CHUNK_TIMEOUT = "first_chunk_timeout"
    ACCEPTED_TIMEOUT = "accepted_timeout"
    STREAM_TIMEOUT_AFTER_COMMIT = "stream_timeout_after_commit"


class ErrorReason(StrEnum):
    """Why."""

    NONE = ""
    JINJA_TEMPLATE = "jinja_template"
    MODEL_LOAD = "model_load"
    CAPACITY_BUSY = "capacity_busy"
    REQUEST_EXCEEDS_CONTEXT = "request_exceeds_context"
    REQUEST_EXCEEDS_NODE = "request_exceeds_node"
    DEADLINE_UNREACHABLE = "deadline_unreachable"
    CANCELLED = "cancelled"
    PROVIDER_ERROR = "provider_error"
    CLIENT_ERROR = "client_error"
    TOOL_NONCOMPLIANCE = "tool_noncompliance"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Ending:
    """One terminal."""

    final_status: FinalStatus
    error_class: ErrorClass
    error_reason: ErrorReason


_S, _C, _R = FinalStatus, ErrorClass, ErrorReason
_FREE = (_C.PROVIDER_DISCONNECT, _R.PROVIDER_ERROR)
_CLIENT = (_C.CLIENT_ERROR, _R.CLIENT_ERROR)
_FULL = (_C.PROVIDER_ERROR, _R.CAPACITY_BUSY)
_BROKEN = (_C.PROVIDER_ERROR, _R.PROVIDER_ERROR)
_SEALING = (_C.ENCRYPTION_ERROR, _R.PROVIDER_ERROR)
_ERRORS: Mapping[str, tuple[ErrorClass, ErrorReason]] = {
    "provider_lost": (_C.PROVIDER_DISCONNECT, _R.PROVIDER_ERROR),
    "provider_left": _FREE,
    "verdict_lapsed": _FREE,
    "verdict_declined": _FREE,
    "draining": _FREE,
    "reservation_refused": _FULL,
    "link_congested": _FULL,
    "capacity": _FULL,
    "protocol": _BROKEN,
    "provider_error": _BROKEN,
    "terminal_without_answer": (_C.PROVIDER_INCOMPLETE, _R.PROVIDER_ERROR),
    "encryption_failure": _SEALING,
    "violation": _SEALING,
    "other": (_C.PROVIDER_ERROR, _R.UNKNOWN),
    "price": (_C.INSUFFICIENT_FUNDS, _R.CLIENT_ERROR),
    "deadline_unreachable": (_C.DEADLINE_UNREACHABLE, _R.DEADLINE_UNREACHABLE),
    "context_exceeded": (_C.CLIENT_ERROR, _R.REQUEST_EXCEEDS_CONTEXT),
    "template_render": (_C.CLIENT_ERROR, _R.JINJA_TEMPLATE),
    "bound_exceeded": _CLIENT,
    "media_too_large": _CLIENT,
    "payload_too_large": (_C.CLIENT_ERROR, _R.REQUEST_EXCEEDS_NODE),
    "exceeds_node": (_C.PROVIDER_ERROR, _R.REQUEST_EXCEEDS_NODE),
    "client_error": _CLIENT,
    "unsupported_schema": _CLIENT,
    "sealed_header": _CLIENT,
    "model_load": (_C.PROVIDER_ERROR, _R.MODEL_LOAD),
    "tool_noncompliance": (_C.PROVIDER_ERROR, _R.TOOL_NONCOMPLIANCE),
    "router_draining": (_C.PROVIDER_DISCONNECT, _R.CANCELLED),
}
_TIMEOUTS = frozenset({"timeout", "deadline", "first_chunk_timeout", "provider_timeout"})
_PARTIAL: Mapping[str, ErrorClass] = {
    "mid_stream": _C.PROVIDER_ERROR_AFTER_COMMIT,
    "mid_stream_lost": _C.PROVIDER_DISCONNECT_AFTER_COMMIT,
    "mid_stream_timeout": _C.STREAM_TIMEOUT_AFTER_COMMIT,
    "mid_stream_violation": _C.ENCRYPTION_ERROR,
}
_GONE = frozenset({"client_gone", "lane_lost"})
HEALTH_NEUTRAL = frozenset(
    {_R.JINJA_TEMPLATE, _R.TOOL_NONCOMPLIANCE, _R.DEADLINE_UNREACHABLE, _R.CLIENT_ERROR}
)
"""Reasons that cost a machine nothing: no breaker and no price hears of them."""


def ending(word: str, *, accepted: bool, committed: bool) -> Ending:
    """Return what an outcome's word means.

    Args:
        word: `attempt.outcome`.
        accepted: Whether the provider had taken it.
        committed: Whether content had come.
    """
    if word == "success":
        return Ending(_S.SUCCESS, _C.NONE, _R.NONE)
    if word == "lost_race":
        return Ending(_S.CANCELLED, _C.SPECULATIVE_LOSER, _R.CANCELLED)
    if word in _GONE:
        gone = _C.CLIENT_GONE_AFTER_COMMIT if committed else _C.CLIENT_GONE_BEFORE_RESPONSE
        return Ending(_S.CANCELLED, gone, _R.CANCELLED)
    if word in _PARTIAL:
        return Ending(_S.PARTIAL_SUCCESS, _PARTIAL[word], _R.PROVIDER_ERROR)
    if word in _TIMEOUTS:
        late = _C.FIRST_CHUNK_TIMEOUT if accepted else _C.ACCEPTED_TIMEOUT
        late = _C.STREAM_TIMEOUT_AFTER_COMMIT if committed else late
        return Ending(_S.TIMEOUT, late, _R.PROVIDER_ERROR)
    return Ending(_S.ERROR, *_ERRORS.get(word, (_C.PROVIDER_ERROR, _R.UNKNOWN)))
