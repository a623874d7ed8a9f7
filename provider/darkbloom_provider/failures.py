"""Every way in which an attempt can fail here, as the closed words of the protocol.

Free text never leaves: it would reach somebody.
"""

from dataclasses import dataclass

from darkbloom.router.v1.provider_link_pb2 import (
    AttemptError,
    FailureCode,
    FailureReason,
    TerminalCause,
)
from darkbloom_edge.errors import EnvelopeError, EnvelopeFault

from darkbloom_provider.engine.errors import EngineError, ErrorReason


@dataclass(frozen=True, slots=True)
class Failure:
    """A refusal or failure of one attempt (spec: provider protocol section 5.4)."""

    status: int
    code: FailureCode.ValueType
    reason: FailureReason.ValueType = FailureReason.FAILURE_REASON_UNSPECIFIED
    cause: TerminalCause.ValueType = TerminalCause.TERMINAL_CAUSE_UNSPECIFIED

    def message(self) -> AttemptError:
        """Return the frame's payload."""
        return AttemptError(
            status_code=self.status,
            failure_code=self.code,
            reason=self.reason,
            terminal_cause=self.cause,
        )


MALFORMED = Failure(400, FailureCode.FAILURE_CODE_INVALID_REQUEST)
NOT_HOSTED = Failure(404, FailureCode.FAILURE_CODE_MODEL_UNAVAILABLE)
DRAINING = Failure(503, FailureCode.FAILURE_CODE_CAPACITY, FailureReason.FAILURE_REASON_DRAINING)
TOO_MANY_BODIES = Failure(
    503, FailureCode.FAILURE_CODE_CAPACITY, FailureReason.FAILURE_REASON_QUEUE_FULL
)
BODY_TIMEOUT = Failure(
    503, FailureCode.FAILURE_CODE_CAPACITY, FailureReason.FAILURE_REASON_CAPACITY_TIMEOUT
)
DUPLICATE = Failure(
    409, FailureCode.FAILURE_CODE_INVALID_REQUEST, FailureReason.FAILURE_REASON_CLIENT_ERROR
)
CANCELLED = Failure(
    499,
    FailureCode.FAILURE_CODE_CANCELLED,
    FailureReason.FAILURE_REASON_CANCELLED,
    TerminalCause.TERMINAL_CAUSE_CANCELLED,
)
UNOPENABLE = Failure(400, FailureCode.FAILURE_CODE_ENCRYPTION_FAILURE)
STALE_VERDICT = Failure(
    409,
    FailureCode.FAILURE_CODE_ENCRYPTION_FAILURE,
    FailureReason.FAILURE_REASON_HEADER_MISMATCH,
)
BACKPRESSURE = Failure(
    503,
    FailureCode.FAILURE_CODE_GENERATION_FAILURE,
    cause=TerminalCause.TERMINAL_CAUSE_BACKPRESSURE_TIMEOUT,
)
INTERNAL = Failure(500, FailureCode.FAILURE_CODE_INTERNAL_FAILURE)

_FAULT_REASONS = {
    EnvelopeFault.KEY_REUSED: FailureReason.FAILURE_REASON_SENDER_KEY_REUSED,
    EnvelopeFault.EXPIRED: FailureReason.FAILURE_REASON_HEADER_EXPIRED,
    EnvelopeFault.LIFETIME: FailureReason.FAILURE_REASON_HEADER_EXPIRED,
    EnvelopeFault.WRONG_BOUNDS: FailureReason.FAILURE_REASON_HEADER_MISMATCH,
    EnvelopeFault.WRONG_VERDICT: FailureReason.FAILURE_REASON_HEADER_MISMATCH,
}


def of_envelope(error: EnvelopeError) -> Failure:
    """Return the failure for a request that did not open as it should."""
    reason = _FAULT_REASONS.get(error.reason, FailureReason.FAILURE_REASON_UNSPECIFIED)
    return Failure(400, FailureCode.FAILURE_CODE_ENCRYPTION_FAILURE, reason)


def of_engine(error: EngineError) -> Failure:
    """Return the failure for what the engine refused or broke on."""
    if error.reason is ErrorReason.BOUND_EXCEEDED:
        return Failure(error.status, FailureCode.FAILURE_CODE_BOUND_EXCEEDED)
    code = FailureCode.Value(f"FAILURE_CODE_{error.code.name}")
    if error.reason is None:
        return Failure(error.status, code)
    return Failure(error.status, code, FailureReason.Value(f"FAILURE_REASON_{error.reason.name}"))
