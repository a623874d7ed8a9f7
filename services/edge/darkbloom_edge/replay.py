"""The memory that makes a request openable only once."""

import heapq
import threading
from typing import final

from darkbloom_edge.errors import EnvelopeError, EnvelopeFault


@final
class SenderKeyMemory:
    """Remembers every opened sender key until its request has expired.

    What it holds is the mark of a key, see `boxes.fingerprint`. A key is never forgotten early:
    when the memory is full of live keys, new ones are refused. Time never runs backwards in here,
    so a clock that is set back revives no forgotten key.
    Safe to share between threads.
    """

    __slots__ = ("_expiries", "_keys", "_lock", "_max_entries", "_now_ms")

    def __init__(self, max_entries: int = 65_536) -> None:
        self._max_entries = max_entries
        self._keys: set[bytes] = set()
        self._expiries: list[tuple[int, bytes]] = []
        self._now_ms = 0
        self._lock = threading.Lock()

    @property
    def entries(self) -> int:
        """How many keys it remembers. No `__len__`: an empty memory must not be falsy."""
        return len(self._keys)

    def remember(self, mark: bytes, *, not_after_ms: int, now_ms: int) -> None:
        """Take the mark of a sender key in, or refuse its request.

        Raises:
            EnvelopeError: the request has expired, the key was used before, or the memory is full.
        """
        with self._lock:
            self._now_ms = max(self._now_ms, now_ms)
            if not_after_ms < self._now_ms:
                raise EnvelopeError(EnvelopeFault.EXPIRED)
            if mark in self._keys:
                raise EnvelopeError(EnvelopeFault.KEY_REUSED)

            self._forget_expired()
            if len(self._keys) >= self._max_entries:
                raise EnvelopeError(EnvelopeFault.MEMORY_FULL)

            self._keys.add(mark)
            heapq.heappush(self._expiries, (not_after_ms, mark))

    def _forget_expired(self) -> None:
        while self._expiries and self._expiries[0][0] < self._now_ms:
            _, key = heapq.heappop(self._expiries)
            self._keys.discard(key)
