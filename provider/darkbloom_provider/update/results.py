"""How an update ended, in closed words (spec: provider section 8.5)."""

from __future__ import annotations

from enum import StrEnum

from darkbloom_provider.errors import ProviderError


class UpdateResult(StrEnum):
    """The outcome of a check or an update."""

    UP_TO_DATE = "upToDate"
    AVAILABLE = "available"
    UPDATED = "updated"
    QUARANTINED = "quarantined"
    """This version kept dying on this machine."""
    BUSY = "busy"
    """Another update is under way."""
    CANCELLED = "cancelled"
    DOWNLOAD_FAILED = "downloadFailed"
    HASH_MISMATCH = "hashMismatch"
    """Not signed by a pinned key, or not the bytes that were signed."""
    REPLACE_FAILED = "replaceFailed"
    """It could not be unpacked, does not run here, or could not be put in place."""


class UpdateError(ProviderError):
    """An update that did not happen; what was installed is untouched.

    Args:
        result: the closed word.
        message: what is wrong.
        remedy: what to do about it.
    """

    def __init__(self, result: UpdateResult, message: str, remedy: str = "") -> None:
        super().__init__(message, remedy)
        self.result = result
