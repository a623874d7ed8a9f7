"""What the router refuses at the level of a link or an RPC; requests are refused by frames."""

from darkbloom.common.v1.error_reason_pb2 import ErrorReason
from darkbloom_mesh.errors import (
    ForbiddenError,
    NotFoundError,
    OverloadedError,
    PreconditionError,
    UnavailableError,
)


class HandshakeError(PreconditionError):
    """The first frame of a lane was missing, late, malformed or not the one required."""

    reason = ErrorReason.ERROR_REASON_HANDSHAKE


class ProtocolUnsupportedError(PreconditionError):
    """Protocol major versions differ; metadata `darkbloom-supported` gives the range."""

    reason = ErrorReason.ERROR_REASON_PROTOCOL_UNSUPPORTED


class DistrustedError(ForbiddenError):
    """The provider may not stay: it stopped answering challenges."""


class LinkOverloadedError(OverloadedError):
    """No more links of this kind fit, or a bound of this one was broken."""


class TryLaterError(UnavailableError):
    """A neighbour that the handshake needs is away, or this replica is leaving."""


class ProviderUnknownError(NotFoundError):
    """The named provider is not connected to this replica."""
