"""How many offers of an account are open: counted once for all gateways."""

import asyncio
import math
from collections import OrderedDict
from typing import Any, Protocol, final

from darkbloom_edge.offers import MAX_OPEN
from darkbloom_mesh.clock import Clock
from darkbloom_mesh.config import Secret
from darkbloom_mesh.errors import StoreUnavailableError
from redis.exceptions import RedisError

from darkbloom_gateway import valkey
from darkbloom_gateway.errors import too_many_open_offers

SEARCH_S, RENEW_S = 15.0, 5.0
"""While an offer is looked for its slot is renewed, so that a lost word keeps it only so long."""
GRACE_S = 0.5
"""How much longer than its offer, or its body, a slot may live."""
WAIT_S = 1.0
"""How long a request for an offer waits for a slot."""
POLL_S = 0.1
ASK_AGAIN_S = 1.0
"""How long a store that does not answer is left alone."""
MAX_ACCOUNTS = 65_536
"""Accounts that one worker remembers by itself."""
_CONNECTIONS = 16
_PREFIX = "offers:"
# A sorted set of names by their end in Unix milliseconds, which cleans itself.
_TAKE = """
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
local known = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not known and redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[2]) then return 0 end
redis.call('ZADD', KEYS[1], now + tonumber(ARGV[3]), ARGV[1])
local last = redis.call('ZRANGE', KEYS[1], -1, -1, 'WITHSCORES')
redis.call('PEXPIREAT', KEYS[1], last[2])
return 1
"""


class SlotStore(Protocol):
    """Slots that all gateways share; every method raises `StoreUnavailableError`."""

    async def take(self, account_id: str, name: str, seconds: float, most: int) -> bool:
        """Take a slot, or keep it for so long from now; False where all are taken."""
        ...

    async def free(self, account_id: str, name: str) -> None:
        """Give a slot back."""
        ...


@final
class Slots:
    """Slots of open offers. While Valkey does not answer, each worker counts its own.

    Args:
        store: shared by all gateways.
        clock: time.
    """

    def __init__(self, store: SlotStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._asks_again_at = -math.inf
        self._own: OrderedDict[str, dict[str, float]] = OrderedDict()

    async def take(self, account_id: str, name: str, seconds: float) -> None:
        """Take a slot under a name, for at most so long; waits for a moment where all are taken.

        Raises:
            ApiError: 429: as many as may be are open.
        """
        give_up_at = self._clock.monotonic() + WAIT_S
        while not await self._try(account_id, name, seconds):
            if self._clock.monotonic() >= give_up_at:
                raise too_many_open_offers()
            await self._clock.sleep(POLL_S)

    async def keep(self, account_id: str, name: str, seconds: float) -> None:
        """Let a slot that is taken end so long from now."""
        await self._try(account_id, name, seconds)

    async def free(self, account_id: str, name: str) -> None:
        """Give a slot back; one that is not given back ends by itself."""
        mine = self._own.get(account_id)
        if mine is not None:
            mine.pop(name, None)
        if self._clock.monotonic() < self._asks_again_at:
            return
        try:
            await self._store.free(account_id, name)
        except StoreUnavailableError:
            self._asks_again_at = self._clock.monotonic() + ASK_AGAIN_S

    async def _try(self, account_id: str, name: str, seconds: float) -> bool:
        if self._clock.monotonic() >= self._asks_again_at:
            try:
                return await self._store.take(account_id, name, seconds, MAX_OPEN)
            except StoreUnavailableError:
                self._asks_again_at = self._clock.monotonic() + ASK_AGAIN_S
        return self._try_alone(account_id, name, seconds)

    def _try_alone(self, account_id: str, name: str, seconds: float) -> bool:
        now = self._clock.monotonic()
        mine = self._own.setdefault(account_id, {})
        self._own.move_to_end(account_id)
        while len(self._own) > MAX_ACCOUNTS:
            self._own.popitem(last=False)
        for old in [one for one, end in mine.items() if end <= now]:
            del mine[old]
        if name not in mine and len(mine) >= MAX_OPEN:
            return False
        mine[name] = now + seconds
        return True


class ValkeySlots:
    """Slots in Valkey.

    Args:
        url: `redis://…`.
        timeout_s: longest wait for the store.
    """

    def __init__(self, url: Secret, *, timeout_s: float = 0.5) -> None:
        self._client = valkey.client(url, connections=_CONNECTIONS, timeout_s=timeout_s)
        self._script: Any = self._client.register_script(_TAKE)
        self._timeout_s = timeout_s

    async def take(self, account_id: str, name: str, seconds: float, most: int) -> bool:
        """Take a slot, or keep it for so long from now; False where all are taken.

        Raises:
            StoreUnavailableError: Valkey does not answer.
        """
        try:
            async with asyncio.timeout(self._timeout_s):
                answer = await self._script(
                    keys=[_PREFIX + account_id], args=[name, most, int(seconds * 1000)]
                )
        except (RedisError, OSError, TimeoutError):
            raise StoreUnavailableError("offers are not counted now") from None
        return bool(answer)

    async def free(self, account_id: str, name: str) -> None:
        """Give a slot back.

        Raises:
            StoreUnavailableError: Valkey does not answer.
        """
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._client.zrem(_PREFIX + account_id, name)
        except (RedisError, OSError, TimeoutError):
            raise StoreUnavailableError("offers are not counted now") from None

    async def close(self) -> None:
        """Close every connection."""
        await self._client.aclose()
