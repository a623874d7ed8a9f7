"""Why a state file is not taken. Each is a refusal: nothing was written."""

from darkbloom_mesh.errors import MeshError, PreconditionError


class RecipientRefusedError(MeshError):
    """It is no `age1…` recipient; whoever could read the file is not known."""


class WrongIdentityError(MeshError):
    """The file was encrypted to somebody else, or the identity is none."""


class BrokenStateError(MeshError):
    """The file was cut short, changed, or is no state file of ours."""


class NotEmptyError(PreconditionError):
    """The database holds accounts or history already."""


class OtherRevisionError(PreconditionError):
    """File and database are of different revisions of the schema: migrate to the file's first."""


class DifferentError(MeshError):
    """What was written does not add up to what the file says, or the audit found violations."""
