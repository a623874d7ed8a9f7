"""What every source offers, and how it fails."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Final, Protocol

from darkbloom_provider.models.errors import ModelError

CONNECT_S: Final = 15.0
"""Longest wait for a connection."""
SILENCE_S: Final = 30.0
"""Longest wait for the next bytes."""


class SourceError(ModelError):
    """A place does not give a file. It may be asked again, or another place may."""


class AlteredError(SourceError):
    """The place gives other bytes than were published; another one may have the right ones."""


class LostError(SourceError):
    """The network or the far end failed for now: the same place may work in a moment."""


class RangeIgnoredError(LostError):
    """The file can only be had from its beginning."""


class RefusedError(SourceError):
    """The place does not have the file, or will not give it; asking again is of no use."""


class Source(Protocol):
    """One place that holds the files of a version."""

    @property
    def name(self) -> str:
        """The place as people know it, without secrets."""
        ...

    def open(self, path: str, offset: int) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Open a file of the version.

        Args:
            path: relative, from the manifest.
            offset: first byte that is wanted.

        Returns:
            Its bytes from the offset on, in blocks.

        Raises:
            LostError: also from the blocks.
            RefusedError: there is no such file.
        """
        ...

    async def close(self) -> None:
        """Let connections go."""
        ...
