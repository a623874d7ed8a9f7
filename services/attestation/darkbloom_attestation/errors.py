"""What a caller can ask of attestation that it must refuse."""

from darkbloom.common.v1.error_reason_pb2 import ErrorReason
from darkbloom_mesh.errors import (
    ConflictError,
    InvalidArgumentError,
    NotFoundError,
    PreconditionError,
)


class SessionNotFoundError(NotFoundError):
    """No registration of this provider stream is known."""


class SessionUntrustedError(PreconditionError):
    """The session was refused or is untrusted for good; it is not challenged any more."""

    reason = ErrorReason.ERROR_REASON_EVIDENCE_REJECTED


class ChallengeUnknownError(PreconditionError):
    """The challenge was never made, was judged before, or its time is over."""

    reason = ErrorReason.ERROR_REASON_CHALLENGE_UNKNOWN


class SessionConflictError(ConflictError):
    """This provider id has registered other evidence before."""


class ReportConflictError(ConflictError):
    """This report id came before with other contents."""


class ReleaseNotFoundError(NotFoundError):
    """No such code release."""


class ReleaseConflictError(ConflictError):
    """This code release was blessed with other hashes before."""


class DevelopmentOnlyError(PreconditionError):
    """A development release is never blessed in production."""


class ReleaseUnsignedError(PreconditionError):
    """No pinned release key has signed this release."""


class ReleaseWithdrawnError(PreconditionError):
    """This release was taken back; no release ever returns."""


class OfferError(PreconditionError):
    """The offer of this release cannot be changed so now."""


class LogConflictError(ConflictError):
    """The log has another entry under this key."""


class LogTooShortError(NotFoundError):
    """The log has no such entry, or never had that size."""


class KeyConflictError(ConflictError):
    """This receipt key belongs to another gateway."""


class PushTokenError(InvalidArgumentError):
    """A push token is not 64 to 200 hex digits."""


class PushKeyError(Exception):
    """The key that signs for Apple cannot be used; the message never holds any of it."""
