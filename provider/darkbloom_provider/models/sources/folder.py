"""Files of a folder on this machine or its network: an external disk, a mounted share."""

import asyncio
import os
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from io import FileIO
from pathlib import Path
from typing import Final

from darkbloom_edge.model_source import ModelSource

from darkbloom_provider.models.opened import open_on_thread
from darkbloom_provider.models.sources.interface import SILENCE_S, LostError, RefusedError

_BLOCK: Final = 1 << 20


class FolderSource:
    """One folder; links in it are not followed.

    Args:
        place: what to read.
    """

    def __init__(self, place: ModelSource) -> None:
        self._place = place

    @property
    def name(self) -> str:
        """The place as it was written."""
        return self._place.text

    @asynccontextmanager
    async def open(self, path: str, offset: int) -> AsyncIterator[AsyncIterator[bytes]]:
        """Open a file; see `Source`."""
        try:
            file = await open_on_thread(partial(_open, Path(self._place.location) / path, offset))
        except OSError as error:
            raise RefusedError(f"{self.name} has no plain file {path} ({error.strerror})") from None
        try:
            yield self._blocks(file)
        finally:
            file.close()

    async def close(self) -> None:
        """Do nothing: no file stays open."""

    async def _blocks(self, file: FileIO) -> AsyncIterator[bytes]:
        while True:
            try:
                # A share that went away blocks; the thread is left behind then.
                async with asyncio.timeout(SILENCE_S):
                    block = await asyncio.to_thread(file.read, _BLOCK)
            except (OSError, ValueError) as error:
                raise LostError(f"{self.name} broke off ({type(error).__name__})") from None
            if not block:
                return
            yield block


def _open(path: Path, offset: int) -> FileIO:
    # Not blocking: a pipe that pretends to be a model would be waited for without end.
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    file = os.fdopen(descriptor, "rb", buffering=0)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        file.close()
        raise OSError(0, "not a plain file")
    file.seek(offset)
    return file
