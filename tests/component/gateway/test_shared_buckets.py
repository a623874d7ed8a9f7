"""The buckets in a real Valkey, against the rule and against each other."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable

import pytest
from darkbloom_gateway.buckets import Charge, Dimension, LocalBuckets, Meter, Rate
from darkbloom_gateway.limits import RateLimiter
from darkbloom_gateway.store import ValkeyBuckets
from darkbloom_mesh.clock import SystemClock
from darkbloom_mesh.config import Secret
from darkbloom_mesh.errors import StoreUnavailableError

SLOW = 1e-6


@pytest.fixture
async def store(valkey_url: str) -> AsyncIterator[ValkeyBuckets]:
    found = ValkeyBuckets(Secret(valkey_url))
    yield found
    await found.close()


@pytest.fixture
def name() -> Callable[[str], str]:
    """Nobody else's names: the store is shared by all tests."""
    salt = secrets.token_hex(4)
    return lambda word: f"{word}-{salt}"


async def test_the_script_and_the_rule_agree_on_every_step(
    store: ValkeyBuckets, name: Callable[[str], str]
) -> None:
    account = Meter(name("a"), (Rate(SLOW, 9), Rate(SLOW, 500), Rate(SLOW, 90)))
    key = Meter(name("k"), (None, Rate(SLOW, 300), None), "key")
    bare = Meter(name("b"), (Rate(SLOW, 2), None, None))
    steps = [
        Charge((key, account), (1, 100, 10)),
        Charge((key, account), (1, 150, 70)),
        Charge((key, account), (1, 100, 1)),
        Charge((key, account), (0, -100, -60), forced=True),
        Charge((account,), (1, 0, 0)),
        Charge((key, account), (1, 1, 71)),
        Charge((account,), (0, 0, 95), forced=True),
        Charge((account,), (1, 0, 1)),
        *[Charge((bare,), (1, 7, 7))] * 3,
    ]
    local = LocalBuckets()
    expected = [local.take(step, 0) for step in steps]

    alone = [(await store.take([step]))[0] for step in steps[:5]]
    together = await store.take(steps[5:])

    for ours, theirs in zip(expected, [*alone, *together], strict=True):
        assert [(g.owner, g.dimension, g.limit, g.remaining) for g in ours.gauges] == [
            (g.owner, g.dimension, g.limit, g.remaining) for g in theirs.gauges
        ]
        if ours.refused is None:
            assert theirs.refused is None
        else:
            assert theirs.refused is not None
            assert theirs.refused.dimension is ours.refused.dimension
            assert theirs.refused.wait_s == pytest.approx(ours.refused.wait_s, rel=1e-3)


async def test_many_gateways_share_one_bucket(valkey_url: str, name: Callable[[str], str]) -> None:
    charge = Charge((Meter(name("a"), (Rate(SLOW, 100), None, None)),), (1, 0, 0))
    gateways = [ValkeyBuckets(Secret(valkey_url)) for _ in range(4)]

    async def hammer(store: ValkeyBuckets) -> int:
        passed = 0
        for _ in range(20):
            passed += sum(one.refused is None for one in await store.take([charge] * 5))
        return passed

    passed = await asyncio.gather(*map(hammer, gateways))
    for one in gateways:
        await one.close()

    assert sum(passed) == 100


async def test_a_bucket_refills_by_the_clock_of_the_store(
    store: ValkeyBuckets, name: Callable[[str], str]
) -> None:
    charge = Charge((Meter(name("a"), (Rate(50.0, 1), None, None)),), (1, 0, 0))
    clock = SystemClock()
    assert (await store.take([charge]))[0].refused is None

    async with asyncio.timeout(30):
        while (await store.take([charge]))[0].refused is not None:
            await clock.sleep(0.005)


async def test_a_new_limit_is_full_and_an_old_one_is_cut_to_its_new_size(
    store: ValkeyBuckets, name: Callable[[str], str]
) -> None:
    await store.take([Charge((Meter(name("a"), (Rate(SLOW, 50), None, None)),), (1, 0, 0))])
    changed = Meter(name("a"), (Rate(SLOW, 10), Rate(SLOW, 20), None))

    (found,) = await store.take([Charge((changed,), (1, 1, 0))])

    assert [gauge.remaining for gauge in found.gauges] == [9, 19]


async def test_the_script_is_loaded_again_when_the_store_has_forgotten_it(
    store: ValkeyBuckets, name: Callable[[str], str]
) -> None:
    charge = Charge((Meter(name("a"), (Rate(SLOW, 2), None, None)),), (1, 0, 0))
    await store.take([charge])
    store._sha = b"0" * 40

    (found,) = await store.take([charge])

    assert found.gauges[0].remaining == 0


async def test_a_value_of_somebody_else_under_our_name_counts_as_nothing(
    store: ValkeyBuckets, valkey_url: str, name: Callable[[str], str]
) -> None:
    import redis.asyncio as redis

    async with redis.Redis.from_url(valkey_url) as other:
        await other.set(f"limit:{name('a')}", b"junk")
    charge = Charge((Meter(name("a"), (Rate(SLOW, 2), None, None)),), (1, 0, 0))

    (found,) = await store.take([charge])

    assert found.gauges[0].remaining == 1


async def test_an_idle_bucket_is_dropped_after_half_an_hour_and_a_busy_one_is_not(
    store: ValkeyBuckets, valkey_url: str, name: Callable[[str], str]
) -> None:
    import redis.asyncio as redis

    charge = Charge((Meter(name("a"), (Rate(SLOW, 9), None, None)),), (1, 0, 0))
    await store.take([charge])
    async with redis.Redis.from_url(valkey_url) as other:
        key = f"limit:{name('a')}"
        assert 1_799_000 < await other.pttl(key) <= 1_800_000
        await other.pexpire(key, 1000)
        await store.take([charge])
        assert await other.pttl(key) > 1_799_000


async def test_a_store_that_is_not_there_is_one_typed_error() -> None:
    store = ValkeyBuckets(Secret("redis://127.0.0.1:1"), timeout_s=0.2)
    with pytest.raises(StoreUnavailableError):
        await store.take([Charge((Meter("a", (Rate(1, 1), None, None)),), (1, 0, 0))])
    await store.close()


async def test_corrections_travel_with_claims_and_by_themselves(
    store: ValkeyBuckets, valkey_url: str, name: Callable[[str], str]
) -> None:
    clock = SystemClock()
    meter = Meter(name("a"), (None, None, Rate(SLOW, 100)))
    limiter = RateLimiter(store, clock=clock)

    async def left() -> int:
        decision = await limiter.submit(Charge((meter,), (0, 0, 0)))
        assert decision is not None
        return decision.gauges[0].remaining

    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(limiter.run())
        await limiter.submit(Charge((meter,), (1, 0, 80)))
        limiter.correct(Charge((meter,), (0, 0, -30), forced=True))
        assert await left() == 50

        limiter.correct(Charge((meter,), (0, 0, -10), forced=True))
        other = ValkeyBuckets(Secret(valkey_url))
        async with asyncio.timeout(30):
            while True:
                (seen,) = await other.take([Charge((meter,), (0, 0, 0))])
                if seen.gauges[0].remaining == 60:
                    break
                await clock.sleep(0.02)
        await other.close()
        running.cancel()


async def test_without_the_store_rates_are_local_and_changes_of_money_are_not_decided() -> None:
    store = ValkeyBuckets(Secret("redis://127.0.0.1:1"), timeout_s=0.2)
    limiter = RateLimiter(store, clock=SystemClock())
    meter = Meter("a", (Rate(SLOW, 1), None, None))

    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(limiter.run())
        first = await limiter.submit(Charge((meter,), (1, 0, 0)))
        second = await limiter.submit(Charge((meter,), (1, 0, 0)))
        closed = await limiter.submit(Charge((meter,), (1, 0, 0), shared_only=True))
        running.cancel()
    await store.close()

    assert first is not None
    assert first.refused is None
    assert second is not None
    assert second.refused is not None
    assert second.refused.dimension is Dimension.REQUESTS
    assert closed is None
