"""Rates, shared by all gateways: claims on the path, corrections behind it."""

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from operator import add

from darkbloom_mesh.clock import Clock
from darkbloom_mesh.errors import MeshError, StoreUnavailableError

from darkbloom_gateway.batching import Batcher
from darkbloom_gateway.buckets import Charge, Decision, LocalBuckets
from darkbloom_gateway.ports import BucketStore

RETRY_STORE_S = 1.0
"""How long a store that did not answer is left alone."""
CORRECT_S = 0.5
"""Longest time that a correction waits for a claim to travel with."""
_BATCH = 256
_MAX_CORRECTIONS = 8192


class RateLimiter:
    """Decides on claims in natural batches; without its store, inside this process.

    A claim that says `shared_only` is then not decided at all: its answer is None.

    Args:
        store: the shared buckets.
        clock: time.
    """

    def __init__(self, store: BucketStore, *, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._local = LocalBuckets()
        self._store_back_at = 0.0
        self._batcher: Batcher[Charge, Decision | None] = Batcher(self._take, max_batch=_BATCH)
        # By their meters: those of one account travel as one.
        self._corrections: OrderedDict[tuple[str, ...], Charge] = OrderedDict()
        self._owing = asyncio.Event()

    def submit(self, charge: Charge) -> asyncio.Future[Decision | None]:
        """Claim; the answer comes with the next batch.

        Raises:
            OverloadedError: too many claims wait.
        """
        return self._batcher.submit(charge)

    def correct(self, charge: Charge) -> None:
        """Change what was claimed before; travels with a later claim, so it costs no call.

        One that finds no room is lost: the bucket that it belongs to refills by itself.
        """
        names = tuple(meter.name for meter in charge.meters)
        known = self._corrections.get(names)
        if known is not None:
            requests, inputs, outputs = map(add, known.amounts, charge.amounts)
            charge = replace(charge, amounts=(requests, inputs, outputs))
        elif len(self._corrections) >= _MAX_CORRECTIONS:
            return
        self._corrections[names] = charge
        self._owing.set()

    async def run(self) -> None:
        """Serve claims and corrections until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._batcher.run())
            tasks.create_task(self._nudge())

    async def _nudge(self) -> None:
        """Send corrections with which no claim has travelled for a while."""
        while True:
            await self._owing.wait()
            await self._clock.sleep(CORRECT_S)
            self._owing.clear()
            if self._corrections:
                try:
                    await self._batcher.submit(self._corrections.popitem(last=False)[1])
                except MeshError:
                    continue

    async def _take(self, charges: Sequence[Charge]) -> Sequence[Decision | None]:
        ready = min(len(self._corrections), _BATCH)
        corrections = [self._corrections.popitem(last=False)[1] for _ in range(ready)]
        now = self._clock.monotonic()
        if now >= self._store_back_at:
            try:
                return (await self._store.take([*corrections, *charges]))[ready:]
            except StoreUnavailableError:
                self._store_back_at = now + RETRY_STORE_S
        for correction in corrections:
            self._local.take(correction, now)
        return [None if charge.shared_only else self._local.take(charge, now) for charge in charges]
