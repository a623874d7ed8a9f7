"""What a person who releases is told."""

from __future__ import annotations


class ReleaseError(Exception):
    """A release cannot be made or is not what it says; the message says why, for a person."""
