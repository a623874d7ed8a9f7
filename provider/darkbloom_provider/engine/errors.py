"""Why the engine refused or ended a request; travels in an error frame, never as a status."""

from enum import StrEnum


class FailureCode(StrEnum):
    """The class of a failure; the edge has one fixed sentence for each."""

    INVALID_REQUEST = "invalid_request"
    TEMPLATE_RENDER = "template_render"
    MODEL_UNAVAILABLE = "model_unavailable"
    CAPACITY = "capacity"
    CANCELLED = "cancelled"
    GENERATION_FAILURE = "generation_failure"
    INTERNAL_FAILURE = "internal_failure"


class ErrorReason(StrEnum):
    """The cause within a class, for routing decisions and metrics."""

    JINJA_TEMPLATE = "jinja_template"
    MODEL_LOAD = "model_load"
    QUEUE_FULL = "queue_full"
    TOKEN_BUDGET_EXHAUSTED = "token_budget_exhausted"  # noqa: S105 - no password
    REQUEST_EXCEEDS_CONTEXT = "request_exceeds_context"
    REQUEST_EXCEEDS_NODE = "request_exceeds_node"
    BOUND_EXCEEDED = "bound_exceeded"
    DRAINING = "draining"
    CANCELLED = "cancelled"
    CLIENT_ERROR = "client_error"
    TOOL_NONCOMPLIANCE = "tool_noncompliance"
    UNSUPPORTED_SCHEMA = "unsupported_schema"


class EngineError(Exception):
    """A refusal or failure of one request or one load; never holds content.

    Args:
        message: For the log of this machine: lower case, free of content.
        code: The class.
        reason: The cause, where there is a named one.
        status: The HTTP status that fits.
    """

    def __init__(
        self, message: str, code: FailureCode, reason: ErrorReason | None, status: int
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.status = status


def invalid(message: str) -> EngineError:
    """Make the error of a request that no engine could serve as it is."""
    return EngineError(message, FailureCode.INVALID_REQUEST, ErrorReason.CLIENT_ERROR, 400)


def unsupported_schema(message: str) -> EngineError:
    """Make the error of a schema that no grammar can enforce."""
    return EngineError(message, FailureCode.INVALID_REQUEST, ErrorReason.UNSUPPORTED_SCHEMA, 400)


def model_unavailable(message: str) -> EngineError:
    """Make the error of a request for a build that is not loaded here."""
    return EngineError(message, FailureCode.MODEL_UNAVAILABLE, None, 404)


def load_failed(message: str) -> EngineError:
    """Make the error of a build that cannot be loaded."""
    return EngineError(message, FailureCode.MODEL_UNAVAILABLE, ErrorReason.MODEL_LOAD, 503)


def capacity(message: str, reason: ErrorReason, status: int = 503) -> EngineError:
    """Make the error of a request that this machine has no room for."""
    return EngineError(message, FailureCode.CAPACITY, reason, status)


def draining() -> EngineError:
    """Make the error of a request that meets an engine that is closing."""
    return capacity("engine is closing", ErrorReason.DRAINING)


def generation_failed(message: str) -> EngineError:
    """Make the error of a request whose generation broke."""
    return EngineError(message, FailureCode.GENERATION_FAILURE, None, 500)
