"""Which sealed requests came before, at this gateway or at another one."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol, final

from darkbloom_mesh.clock import Clock
from darkbloom_mesh.config import Secret
from darkbloom_mesh.errors import StoreUnavailableError
from redis.exceptions import RedisError

from darkbloom_gateway import valkey
from darkbloom_gateway.errors import unavailable

ASK_AGAIN_S = 1.0
"""How long a shared memory that does not answer is left alone."""
MAX_KEPT = 65_536
"""Marks that one worker remembers by itself."""
_PREFIX = b"sealed:"
_CONNECTIONS = 16


class Marks(Protocol):
    """Marks that all gateways share."""

    async def add(self, mark: bytes, seconds: int) -> bool:
        """Keep a mark for so long; False where it is kept already.

        Raises:
            StoreUnavailableError: nobody can say.
        """
        ...


@final
class Replays:
    """Lets each sealed request pass once within the window.

    While Valkey does not answer, each worker knows only its own requests: sealed requests go on,
    and a copy that is sent to another worker passes. A worker whose memory is full then refuses.

    Args:
        marks: shared memory.
        clock: time.
        window_s: for how long a request is remembered.
        max_kept: bound of this worker's own memory.
        on_alone: told of each request that nobody else will know of.
    """

    def __init__(
        self,
        marks: Marks,
        clock: Clock,
        *,
        window_s: float,
        max_kept: int = MAX_KEPT,
        on_alone: Callable[[], None] = lambda: None,
    ) -> None:
        self._marks = marks
        self._clock = clock
        self._window_s = window_s
        self._max_kept = max_kept
        self._on_alone = on_alone
        self._asks_again_at = 0.0
        self._own: OrderedDict[bytes, float] = OrderedDict()

    async def first(self, mark: bytes) -> bool:
        """Take a request in; False where it came before.

        Raises:
            ApiError: 503: Valkey is away, and this worker can remember no more.
        """
        now = self._clock.monotonic()
        while self._own and next(iter(self._own.values())) <= now:
            self._own.popitem(last=False)
        if mark in self._own:
            return False
        # Before the wait, so that a copy beside it is seen as one.
        self._own[mark] = now + self._window_s
        fresh = await self._ask(mark, now)
        if fresh is None:
            if len(self._own) > self._max_kept:
                del self._own[mark]
                raise unavailable("sealed requests cannot be told from copies now")
            self._on_alone()
            return True
        while len(self._own) > self._max_kept:
            self._own.popitem(last=False)
        return fresh

    async def _ask(self, mark: bytes, now: float) -> bool | None:
        """Ask the shared memory; None while it does not answer, so that only few wait for it."""
        if now < self._asks_again_at:
            return None
        try:
            return await self._marks.add(mark, int(self._window_s))
        except StoreUnavailableError:
            self._asks_again_at = self._clock.monotonic() + ASK_AGAIN_S
            return None


class ValkeyMarks:
    """Marks in Valkey, each with its end.

    Args:
        url: `redis://…`.
        timeout_s: longest wait for the store.
    """

    def __init__(self, url: Secret, *, timeout_s: float = 0.5) -> None:
        self._client = valkey.client(url, connections=_CONNECTIONS, timeout_s=timeout_s)
        self._timeout_s = timeout_s

    async def add(self, mark: bytes, seconds: int) -> bool:
        """Keep a mark for so long; False where it is kept already.

        Raises:
            StoreUnavailableError: Valkey does not answer.
        """
        try:
            async with asyncio.timeout(self._timeout_s):
                answer = await self._client.set(_PREFIX + mark, b"", nx=True, ex=seconds)
        except (RedisError, OSError, TimeoutError):
            raise StoreUnavailableError("marks do not answer") from None
        return answer is not None

    async def close(self) -> None:
        """Close every connection."""
        await self._client.aclose()
