"""Errors of reports."""

from darkbloom_mesh.errors import ConflictError


class NameTakenError(ConflictError):
    """Another account has this public name."""
