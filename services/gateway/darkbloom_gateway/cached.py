"""A value read from elsewhere, kept for a moment, read once for all who ask."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from darkbloom_mesh.clock import Clock
from darkbloom_mesh.errors import MeshError

from darkbloom_gateway.errors import unavailable

T = TypeVar("T")


class Cached(Generic[T]):
    """Keeps a value for its time, and a stale one for `stale_s` more while its source is away.

    Args:
        read: reads it anew; raises `MeshError`.
        clock: time.
        fresh_s: how long it is served without asking.
        stale_s: how long beyond that it may stand in.
    """

    def __init__(
        self, read: Callable[[], Awaitable[T]], *, clock: Clock, fresh_s: float, stale_s: float = 0
    ) -> None:
        self._read = read
        self._clock = clock
        self._fresh_s = fresh_s
        self._stale_s = stale_s
        self._lock = asyncio.Lock()
        self._value: tuple[T, float] | None = None

    async def get(self) -> T:
        """Return the value.

        Raises:
            ApiError: 503: it cannot be read, and what is here is too old.
        """
        kept = self._fresh()
        if kept is not None:
            return kept[0]
        async with self._lock:
            kept = self._fresh()
            if kept is not None:
                return kept[0]
            now = self._clock.monotonic()
            try:
                value = await self._read()
            except MeshError:
                if self._value is not None and now - self._value[1] < self._fresh_s + self._stale_s:
                    return self._value[0]
                raise unavailable() from None
            self._value = value, now
            return value

    def _fresh(self) -> tuple[T, float] | None:
        value = self._value
        if value is not None and self._clock.monotonic() - value[1] < self._fresh_s:
            return value
        return None
