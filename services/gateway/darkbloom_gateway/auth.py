"""Who asks: keys looked up at billing, once, and remembered."""

import asyncio

from darkbloom_mesh.clock import Clock
from darkbloom_mesh.errors import MeshError

from darkbloom_gateway.errors import ApiError, unauthenticated, unavailable
from darkbloom_gateway.keys import KeyCache, read_bearer
from darkbloom_gateway.model import KeyRecord
from darkbloom_gateway.ports import Billing, KeyEvent


class Authenticator:
    """Turns an `Authorization` header into a key record.

    Args:
        billing: knows the keys.
        cache: remembers them.
        clock: time.
    """

    def __init__(self, billing: Billing, cache: KeyCache, clock: Clock) -> None:
        self._billing = billing
        self._cache = cache
        self._clock = clock
        self._lookups: dict[bytes, asyncio.Future[KeyRecord | None]] = {}

    async def authenticate(self, authorization: bytes | None) -> KeyRecord:
        """Return the caller's key.

        Raises:
            ApiError: 401 without a usable key, 503 where billing does not answer.
        """
        key_hash = read_bearer(authorization)
        found = self._cache.get(key_hash, self._clock.monotonic())
        if isinstance(found, ApiError):
            raise found
        record = found or await self._look_up(key_hash)
        if record is None:
            raise unauthenticated("invalid api key")
        if record.expire_time is not None and record.expire_time <= self._clock.now():
            raise unauthenticated("this api key has expired")
        return record

    def take(self, event: KeyEvent) -> None:
        """Forget what an event says has changed."""
        if event.reset:
            self._cache.reset(event.generation)
        elif event.changed is not None:
            self._cache.changed(event.changed, event.generation)

    async def _look_up(self, key_hash: bytes) -> KeyRecord | None:
        """Ask billing, once for all who ask at the same time."""
        running = self._lookups.get(key_hash)
        if running is not None:
            return await asyncio.shield(running)

        answer: asyncio.Future[KeyRecord | None] = asyncio.get_running_loop().create_future()
        self._lookups[key_hash] = answer
        self._cache.begin(key_hash)
        try:
            record, generation = await self._billing.resolve_key(key_hash)
        except MeshError:
            self._cache.abandon(key_hash)
            failure = unavailable()
            answer.set_exception(failure)
            # Nobody else may be waiting; then the failure is ours alone to raise.
            answer.exception()
            raise failure from None
        except BaseException:
            self._cache.abandon(key_hash)
            answer.cancel()
            raise
        finally:
            del self._lookups[key_hash]
        self._cache.store(key_hash, record, generation=generation, now=self._clock.monotonic())
        answer.set_result(record)
        return record
