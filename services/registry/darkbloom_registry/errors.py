"""What a publisher or a reader can do wrong."""

from darkbloom.common.v1.error_reason_pb2 import ErrorReason
from darkbloom_mesh.errors import (
    ConflictError,
    InvalidArgumentError,
    NotFoundError,
    PreconditionError,
)


class ManifestInvalidError(InvalidArgumentError):
    """A manifest breaks a rule; the message says which."""

    reason = ErrorReason.ERROR_REASON_MANIFEST_INVALID


class ImmutableError(ConflictError):
    """This version of the build exists with other files."""

    reason = ErrorReason.ERROR_REASON_IMMUTABLE


class BuildNotFoundError(NotFoundError):
    """No such build."""


class VersionNotFoundError(NotFoundError):
    """The build has no such version, or no active one."""


class VersionRetiredError(PreconditionError):
    """A retired version never comes back; its bytes need a new version."""


class NameTakenError(PreconditionError):
    """One name cannot be two things: a build, an alias, or a name for marketplaces."""


class TakeoverLiveError(PreconditionError):
    """The build whose id a name took over is still served under it."""


class TakeoverEarlyError(PreconditionError):
    """Machines still need the build whose id a name took over."""


class NameFollowedError(PreconditionError):
    """A name for marketplaces follows this one."""


class DevelopmentOnlyError(PreconditionError):
    """Builds of `dev/` belong to the scripted engine and exist only in development."""


class AliasNotFoundError(NotFoundError):
    """No such active alias."""


class RolloutNotFoundError(NotFoundError):
    """No such rollout."""


class RolloutRunsError(PreconditionError):
    """A rollout moves this alias; pause or revert it first."""


class TrafficSplitError(PreconditionError):
    """A part of the alias's traffic was put on another build by hand; end that first."""


class BuildNotRoutableError(PreconditionError):
    """A rollout could not come back to a build that serves nobody."""


class LabelTakenError(ConflictError):
    """A publishing key has, or had, this label; replacing it is said expressly."""


class KeyNotFoundError(NotFoundError):
    """No active publishing key has this label."""


class RolloutEndedError(PreconditionError):
    """It has ended, and not in the way that is asked for."""


class ApprovalRequiredError(PreconditionError):
    """Another key has to make the same call."""


class VersionActiveError(PreconditionError):
    """It is what consumers get; promote another one first."""
