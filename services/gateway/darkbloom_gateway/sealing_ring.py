"""The keys of sealed requests, as this worker has read them last."""

import asyncio
from datetime import datetime
from pathlib import Path
from typing import final

import structlog
from darkbloom_edge.errors import MalformedError
from darkbloom_edge.sealing_keys import MAX_FILE_BYTES, KeyRing, SealingKey, parse_keys
from darkbloom_mesh.clock import Clock

READ_S = 10.0
"""How often the file is looked at; a rotation leads by more."""
_log = structlog.get_logger()


def read_ring(path: Path) -> KeyRing:
    """Read a file of keys.

    Raises:
        ValueError: it cannot be read, or is none; the message quotes nothing of it.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ValueError(f"cannot be read ({error.strerror})") from None
    try:
        return parse_keys(data)
    except MalformedError as error:
        raise ValueError(f"is no file of sealing keys ({error})") from None


@final
class SealingRing:
    """Follows the file. What cannot be read leaves what is known.

    Args:
        path: of the file; None: sealed requests are off.
        clock: time.
    """

    def __init__(self, path: Path | None, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._ring = KeyRing() if path is None else read_ring(path)
        self._seen = self._look()

    @property
    def off(self) -> bool:
        """Whether no key is published now."""
        return self.published()[0] is None

    def accepted(self, kid: str) -> SealingKey | None:
        """Return the key of that name, unless it has ended."""
        return self._ring.accepted(kid, self._now())

    def published(self) -> tuple[SealingKey | None, tuple[SealingKey, ...]]:
        """Return the key to seal to, and those before it that are still accepted."""
        return self._ring.published(self._now())

    async def run(self) -> None:
        """Read the file again whenever it has changed, until cancelled."""
        while True:
            await self._clock.sleep(READ_S)
            await self.follow()

    async def follow(self) -> None:
        """Read the file if it has changed."""
        path = self._path
        if path is None:
            return
        seen = await asyncio.to_thread(self._look)
        if seen == self._seen:
            return
        try:
            self._ring = await asyncio.to_thread(read_ring, path)
        except ValueError as error:
            _log.warning("sealing_keys_not_read", reason=str(error))
            return
        self._seen = seen
        _log.info("sealing_keys_read", kids=[key.kid for key in self._ring.keys])

    def _now(self) -> datetime:
        return self._clock.now()

    def _look(self) -> tuple[int, int, int] | None:
        if self._path is None:
            return None
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size
