import asyncio
from collections.abc import Sequence

from darkbloom_gateway.buckets import Charge, Decision, LocalBuckets, Meter, Rate
from darkbloom_gateway.limits import RateLimiter
from darkbloom_mesh.errors import StoreUnavailableError
from darkbloom_mesh.testing import FakeClock

A = Meter("a", (Rate(1.0, 100), None, Rate(1.0, 1000)))
B = Meter("b", (Rate(1.0, 100), None, Rate(1.0, 1000)))


class Store:
    """Buckets that say what was asked of them, and are away when told to."""

    def __init__(self) -> None:
        self.calls: list[list[Charge]] = []
        self.away = False
        self._buckets = LocalBuckets()

    async def take(self, charges: Sequence[Charge]) -> Sequence[Decision]:
        self.calls.append(list(charges))
        if self.away:
            raise StoreUnavailableError("away")
        return [self._buckets.take(charge, 0) for charge in charges]


def back(meter: Meter, tokens: int) -> Charge:
    return Charge((meter,), (0, 0, -tokens), forced=True)


async def test_corrections_of_one_account_travel_as_one_and_before_the_claims() -> None:
    store, clock = Store(), FakeClock()
    limiter = RateLimiter(store, clock=clock)
    claim = Charge((A,), (1, 0, 100))
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(limiter.run())
        for tokens in (10, 20, 30):
            limiter.correct(back(A, tokens))
        limiter.correct(back(B, 5))
        await limiter.submit(claim)
        running.cancel()

    assert store.calls == [[back(A, 60), back(B, 5), claim]]


async def test_without_the_store_corrections_go_to_the_local_buckets() -> None:
    store, clock = Store(), FakeClock()
    store.away = True
    limiter = RateLimiter(store, clock=clock)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(limiter.run())
        await limiter.submit(Charge((A,), (1, 0, 900)))
        limiter.correct(back(A, 400))
        decision = await limiter.submit(Charge((A,), (1, 0, 500)))
        running.cancel()

    assert decision is not None
    assert [gauge.remaining for gauge in decision.gauges] == [98, 0]
    assert len(store.calls) == 1
