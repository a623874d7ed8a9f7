"""Errors of sign-in and device login; each is a class of the mesh with its reason."""

from darkbloom.common.v1.error_reason_pb2 import ErrorReason
from darkbloom_mesh.errors import (
    ForbiddenError,
    OverloadedError,
    PreconditionError,
    UnauthenticatedError,
)


class LoginInvalidError(UnauthenticatedError):
    """The login token is not one that a known issuer has signed for us, or is over."""

    reason = ErrorReason.ERROR_REASON_LOGIN_INVALID


class AccountClosingError(ForbiddenError):
    """The account is being deleted; none of its credentials counts."""

    reason = ErrorReason.ERROR_REASON_ACCOUNT_PENDING_DELETION


class TokenUnknownError(UnauthenticatedError):
    """No provider token in force has this hash."""

    reason = ErrorReason.ERROR_REASON_TOKEN_UNKNOWN


class CodeExpiredError(PreconditionError):
    """The device code's time is over."""

    reason = ErrorReason.ERROR_REASON_CODE_EXPIRED


class CodeUsedError(PreconditionError):
    """The device code was decided on before."""

    reason = ErrorReason.ERROR_REASON_CODE_USED


class SlowDownError(OverloadedError):
    """Polled, guessed or asked too often."""

    reason = ErrorReason.ERROR_REASON_SLOW_DOWN

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        whole = str(max(1, -int(-retry_after_s // 1)))
        super().__init__(message, metadata={"darkbloom-retry-after-s": whole})


class ProofRejectedError(PreconditionError):
    """A machine's signature does not prove its key."""

    reason = ErrorReason.ERROR_REASON_EVIDENCE_REJECTED


class ChallengeUnknownError(PreconditionError):
    """The nonce to sign is unknown, used or expired."""

    reason = ErrorReason.ERROR_REASON_CHALLENGE_UNKNOWN
