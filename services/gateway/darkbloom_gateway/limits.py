"""Request-rate limits, shared by all gateways."""

import asyncio
from collections.abc import Sequence

from darkbloom_mesh.clock import Clock
from darkbloom_mesh.errors import StoreUnavailableError

from darkbloom_gateway.batching import Batcher
from darkbloom_gateway.buckets import Bucket, Charge, Decision, LocalBuckets
from darkbloom_gateway.model import KeyRecord
from darkbloom_gateway.ports import BucketStore

RETRY_STORE_S = 1.0
"""How long a store that did not answer is left alone."""
_SERVICE = "service"


class RateLimiter:
    """Decides on requests in natural batches; without its store, inside this process.

    Args:
        store: the shared buckets.
        clock: time.
        rate: requests per second and account.
        burst: of an account.
        service_rate: of an account with role `service`; 0 lifts the limit.
        service_burst: of such an account.
    """

    def __init__(
        self,
        store: BucketStore,
        *,
        clock: Clock,
        rate: float,
        burst: int,
        service_rate: float,
        service_burst: int,
    ) -> None:
        self._store = store
        self._clock = clock
        self._tiers = {"": (rate, burst), _SERVICE: (service_rate, service_burst)}
        self._local = LocalBuckets()
        self._store_back_at = 0.0
        self._batcher: Batcher[Charge, Decision] = Batcher(self._take, max_batch=256)

    def submit(self, key: KeyRecord) -> asyncio.Future[Decision] | None:
        """Claim one request for a key; None where nothing limits it.

        Raises:
            OverloadedError: too many requests wait for a decision.
        """
        tier = _SERVICE if key.account_role == _SERVICE else ""
        rate, burst = self._tiers[tier]
        if rate <= 0:
            return None
        own = None
        if key.rpm_limit is not None:
            own = Bucket(key.key_id, max(key.rpm_limit, 0) / 60 or 1e-9, max(key.rpm_limit, 0))
        return self._batcher.submit(Charge(Bucket(key.account_id, rate, burst), own))

    async def run(self) -> None:
        """Serve claims until cancelled."""
        await self._batcher.run()

    async def _take(self, charges: Sequence[Charge]) -> Sequence[Decision]:
        now = self._clock.monotonic()
        if now >= self._store_back_at:
            try:
                return await self._store.take(charges)
            except StoreUnavailableError:
                self._store_back_at = now + RETRY_STORE_S
        return [self._local.take(charge, now) for charge in charges]
