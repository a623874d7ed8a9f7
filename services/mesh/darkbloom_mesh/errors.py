"""Errors that cross a process boundary, and the one table between them and gRPC.

| Class | Status | Default reason |
|---|---|---|
| `InvalidArgumentError` | INVALID_ARGUMENT | INVALID_ARGUMENT; metadata `darkbloom-field` |
| `NotFoundError` | NOT_FOUND | NOT_FOUND |
| `UnauthenticatedError` | UNAUTHENTICATED | CALLER_UNAUTHENTICATED |
| `ForbiddenError` | PERMISSION_DENIED | CALLER_FORBIDDEN |
| `ConflictError` | ALREADY_EXISTS | IDEMPOTENCY_CONFLICT |
| `PreconditionError` | FAILED_PRECONDITION | none: the raiser names it |
| `OverloadedError` | RESOURCE_EXHAUSTED | OVERLOADED |
| `DeadlineError` | DEADLINE_EXCEEDED | DEADLINE |
| `UnavailableError` | UNAVAILABLE | none |
| `DrainingError` | UNAVAILABLE | DRAINING |
| `StoreUnavailableError` | UNAVAILABLE | STORE_UNAVAILABLE |
| `InternalError` | INTERNAL | none: whatever was not mapped |

A room's errors subclass one of these and may set another `reason`. The reason travels by name in
the trailing metadata key `darkbloom-reason`; `from_rpc_error` turns both back into the same class
at the caller. Messages are written by developers and never contain content, credentials or a
driver's text.
"""

from collections.abc import Mapping
from typing import ClassVar, TypeAlias

import grpc
from darkbloom.common.v1.error_reason_pb2 import ErrorReason

Reason: TypeAlias = ErrorReason.ValueType

REASON_KEY = "darkbloom-reason"
FIELD_KEY = "darkbloom-field"
_KEY_PREFIX = "darkbloom-"
_REASON_PREFIX = "ERROR_REASON_"


class MeshError(Exception):
    """A failure that the caller may see: status, reason, message and metadata.

    Args:
        message: Lower case, no full stop, free of content.
        reason: Overrides the reason of the class.
        metadata: More trailing metadata; keys start with `darkbloom-`, values are printable ASCII.
    """

    status: ClassVar[grpc.StatusCode] = grpc.StatusCode.INTERNAL
    reason: Reason = ErrorReason.ERROR_REASON_UNSPECIFIED

    def __init__(
        self,
        message: str = "internal error",
        *,
        reason: Reason | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.metadata: dict[str, str] = dict(metadata or {})
        if reason is not None:
            self.reason = reason

    @property
    def reason_name(self) -> str:
        """The reason as it travels: the enum name without its prefix."""
        return reason_name(self.reason)

    def trailing_metadata(self) -> tuple[tuple[str, str], ...]:
        """Return what a server sends after the status, reason first."""
        pairs = ((key, _printable(value)) for key, value in self.metadata.items())
        return ((REASON_KEY, self.reason_name), *pairs)


class InvalidArgumentError(MeshError):
    """A field is malformed or out of range; `field` is its name in the request."""

    status = grpc.StatusCode.INVALID_ARGUMENT
    reason = ErrorReason.ERROR_REASON_INVALID_ARGUMENT

    def __init__(
        self,
        message: str,
        field: str | None = None,
        *,
        reason: Reason | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        named = {**({FIELD_KEY: field} if field else {}), **(metadata or {})}
        super().__init__(message, reason=reason, metadata=named)
        self.field = named.get(FIELD_KEY)


class NotFoundError(MeshError):
    """The named thing does not exist."""

    status = grpc.StatusCode.NOT_FOUND
    reason = ErrorReason.ERROR_REASON_NOT_FOUND


class UnauthenticatedError(MeshError):
    """The caller is not known: token or key missing, wrong or revoked."""

    status = grpc.StatusCode.UNAUTHENTICATED
    reason = ErrorReason.ERROR_REASON_CALLER_UNAUTHENTICATED


class ForbiddenError(MeshError):
    """The caller is known and may not do this."""

    status = grpc.StatusCode.PERMISSION_DENIED
    reason = ErrorReason.ERROR_REASON_CALLER_FORBIDDEN


class ConflictError(MeshError):
    """The same id came before with other contents."""

    status = grpc.StatusCode.ALREADY_EXISTS
    reason = ErrorReason.ERROR_REASON_IDEMPOTENCY_CONFLICT


class PreconditionError(MeshError):
    """The state of the system does not allow it; repeating does not help."""

    status = grpc.StatusCode.FAILED_PRECONDITION


class OverloadedError(MeshError):
    """A bound on concurrent or queued work is reached."""

    status = grpc.StatusCode.RESOURCE_EXHAUSTED
    reason = ErrorReason.ERROR_REASON_OVERLOADED


class DeadlineError(MeshError):
    """The call carried no deadline, or one that has passed."""

    status = grpc.StatusCode.DEADLINE_EXCEEDED
    reason = ErrorReason.ERROR_REASON_DEADLINE


class UnavailableError(MeshError):
    """Try again, here or at another replica."""

    status = grpc.StatusCode.UNAVAILABLE


class DrainingError(UnavailableError):
    """This replica is leaving; another one can serve the call."""

    reason = ErrorReason.ERROR_REASON_DRAINING


class StoreUnavailableError(UnavailableError):
    """A store did not answer in time; repeating with the same request id is safe."""

    reason = ErrorReason.ERROR_REASON_STORE_UNAVAILABLE


class BlankStoreError(StoreUnavailableError):
    """The store answers and holds nothing of the room: a lost volume, or a mesh that is new."""


class InternalError(MeshError):
    """Something was not mapped; the request id leads to the log."""


# Narrow before wide: the first class whose status and reason fit rebuilds the error.
TABLE: tuple[type[MeshError], ...] = (
    InvalidArgumentError,
    NotFoundError,
    UnauthenticatedError,
    ForbiddenError,
    ConflictError,
    PreconditionError,
    OverloadedError,
    DeadlineError,
    DrainingError,
    StoreUnavailableError,
    UnavailableError,
    InternalError,
)


# Causes that only a room can state: a bare UNAVAILABLE is neither.
_SAID = (DrainingError, StoreUnavailableError)


def reason_name(reason: Reason) -> str:
    """Return the name of a reason without its enum prefix, as it travels."""
    return ErrorReason.Name(reason).removeprefix(_REASON_PREFIX)


def reason_value(name: str) -> Reason:
    """Return the reason of that name; one that this build does not know is UNSPECIFIED."""
    unset = ErrorReason.ERROR_REASON_UNSPECIFIED
    return dict(ErrorReason.items()).get(_REASON_PREFIX + name, unset)


def from_rpc_error(error: grpc.aio.AioRpcError) -> MeshError:
    """Rebuild the error that a room of ours raised behind an RPC.

    Statuses that gRPC itself makes (a lost connection, a passed deadline) come without a reason and
    map by status alone; their text is the library's, so it is replaced.
    """
    pairs = {
        key: value
        for key, value in error.trailing_metadata() or ()
        if key.startswith(_KEY_PREFIX) and isinstance(value, str)
    }
    name = pairs.pop(REASON_KEY, None)
    status = error.code()
    if name is None:
        wide = (kind for kind in TABLE if kind.status is status and kind not in _SAID)
        return next(wide, InternalError)(f"call failed with status {status.name.lower()}")

    reason = reason_value(name)
    fitting = [kind for kind in TABLE if kind.status is status] or [InternalError]
    kind = next((kind for kind in fitting if kind.reason == reason), fitting[-1])
    return kind(error.details() or "", reason=reason, metadata=pairs)


def _printable(value: str) -> str:
    """Replace what gRPC metadata cannot carry."""
    return "".join(char if " " <= char <= "~" else "?" for char in value)
