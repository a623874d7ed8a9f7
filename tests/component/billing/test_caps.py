"""Key caps: an account of the ledger for each key and window, hard whatever happens at once."""

import asyncio
from datetime import UTC, datetime

from darkbloom.billing.v1 import ledger_pb2
from darkbloom.billing.v1 import ledger_service_pb2 as ledger_pb
from darkbloom.common.v1 import error_reason_pb2 as reasons
from darkbloom_billing.model import CapReset, KeySpend
from darkbloom_billing.store.caps import PostgresCaps

from tests.component.billing.world import BUILD, World, open_database, world

WORST_CASE = 100 * 10 + 50 * 20
CHARGE = 40 * 10 + 20 * 20
CAPPED = reasons.ERROR_REASON_KEY_CAP_REACHED


async def set_cap(w: World, key: str, limit: int | None, reset: CapReset = CapReset.NONE) -> bool:
    database = await open_database(w.url)
    try:
        return await PostgresCaps(database).set_cap(key, limit, reset, now=w.clock.now())
    finally:
        await database.close()


async def spend(w: World, key: str) -> KeySpend:
    database = await open_database(w.url)
    try:
        return (await PostgresCaps(database).spend([key, "key_nobody"], now=w.clock.now()))[key]
    finally:
        await database.close()


async def hold(w: World, key: str) -> ledger_pb2.HoldResult:
    (result,) = await w.hold(w.order(key_id=key))
    return result


async def settled(w: World, key: str) -> None:
    result = await hold(w, key)
    await w.settle(w.settlement(result.request_id))


async def figures(w: World, key: str) -> tuple[int, int, int | None]:
    found = await spend(w, key)
    return found.usage_micros, found.held_micros, found.remaining_micros


async def test_a_daily_window_starts_anew_at_midnight_utc(url: str) -> None:
    async with world(url) as w:
        await w.people()
        key = await w.key(b"k")
        assert await set_cap(w, key, WORST_CASE + CHARGE, CapReset.DAILY)
        await settled(w, key)
        open_hold = await hold(w, key)
        assert (await hold(w, key)).refusal == CAPPED
        assert await figures(w, key) == (CHARGE, WORST_CASE, 0)
        await w.release(open_hold.request_id)
        assert (await spend(w, key)).window_start == datetime(2026, 5, 1, tzinfo=UTC)

        await w.clock.advance(12 * 3600)
        assert await figures(w, key) == (0, 0, WORST_CASE + CHARGE)
        assert (await hold(w, key)).HasField("hold")
        await w.sound()


async def test_weeks_begin_on_monday_and_months_on_the_1st(url: str) -> None:
    async with world(url) as w:
        await w.people()
        weekly, monthly = await w.key(b"w"), await w.key(b"m")
        await set_cap(w, weekly, WORST_CASE + CHARGE - 1, CapReset.WEEKLY)
        await set_cap(w, monthly, WORST_CASE + CHARGE - 1, CapReset.MONTHLY)
        await settled(w, weekly)
        await settled(w, monthly)
        # It is a Friday: two days on, both are still in the same window.
        await w.clock.advance(2 * 86_400)
        assert (await hold(w, weekly)).refusal == CAPPED
        await w.clock.advance(86_400)
        assert (await hold(w, weekly)).HasField("hold")
        assert (await hold(w, monthly)).refusal == CAPPED
        assert (await spend(w, weekly)).window_start == datetime(2026, 5, 4, tzinfo=UTC)
        await w.clock.advance(28 * 86_400)
        assert (await hold(w, monthly)).HasField("hold")


async def test_a_new_window_is_hard_under_parallel_first_holds(url: str) -> None:
    async with world(url) as w:
        await w.people()
        key = await w.key(b"k")
        await set_cap(w, key, 3 * WORST_CASE + 1, CapReset.DAILY)
        await w.clock.advance(86_400)
        results = await asyncio.gather(*(hold(w, key) for _ in range(20)))

        assert sum(result.HasField("hold") for result in results) == 3
        assert {r.available_micros for r in results if not r.HasField("hold")} == {1}
        await w.sound()


async def test_a_raised_limit_lets_more_through_and_a_lowered_one_less(url: str) -> None:
    async with world(url) as w:
        await w.people()
        key = await w.key(b"k", limit=WORST_CASE)
        first = await hold(w, key)
        assert (await hold(w, key)).refusal == CAPPED
        await set_cap(w, key, 2 * WORST_CASE)
        assert (await hold(w, key)).HasField("hold")

        await set_cap(w, key, WORST_CASE // 2)
        assert (await hold(w, key)).available_micros == 0
        # What a hold gives back is not free again while the limit is below what is spent and held.
        await w.release(first.request_id)
        assert (await hold(w, key)).refusal == CAPPED
        assert await figures(w, key) == (0, WORST_CASE, 0)
        await w.sound()


async def test_a_cleared_limit_stops_nothing_and_a_new_one_counts_what_was_spent(url: str) -> None:
    async with world(url) as w:
        await w.people()
        key = await w.key(b"k", limit=CHARGE)
        await set_cap(w, key, None)
        await settled(w, key)
        assert await figures(w, key) == (CHARGE, 0, None)

        await set_cap(w, key, WORST_CASE + CHARGE - 1, CapReset.MONTHLY)
        assert await figures(w, key) == (CHARGE, 0, WORST_CASE - 1)
        assert (await hold(w, key)).available_micros == WORST_CASE - 1
        await set_cap(w, key, WORST_CASE + CHARGE)
        assert (await hold(w, key)).HasField("hold")
        await w.sound()


async def test_going_back_to_a_window_goes_on_with_what_it_has_counted(url: str) -> None:
    async with world(url) as w:
        await w.people()
        key = await w.key(b"k")
        await set_cap(w, key, 10_000, CapReset.DAILY)
        await settled(w, key)
        await set_cap(w, key, 10_000, CapReset.NONE)
        await settled(w, key)
        await set_cap(w, key, 10_000, CapReset.DAILY)
        assert await figures(w, key) == (2 * CHARGE, 0, 10_000 - 2 * CHARGE)
        await w.sound()


async def test_a_hold_counts_where_it_was_placed_and_extends_there(url: str) -> None:
    async with world(url) as w:
        await w.people()
        key = await w.key(b"k")
        await set_cap(w, key, WORST_CASE, CapReset.DAILY)
        yesterday = await hold(w, key)
        await w.clock.advance(86_400 - 1)
        today = await hold(w, key)
        await w.settle(w.settlement(yesterday.request_id, verdict=w.verdict()[1]))

        assert today.HasField("hold")
        assert await figures(w, key) == (0, WORST_CASE, 0)
        await w.sound()


async def test_what_an_extension_took_of_a_cap_comes_back_with_it(url: str) -> None:
    async with world(url) as w:
        await w.people()
        key = await w.key(b"k")
        await set_cap(w, key, WORST_CASE + 3_000)
        dear = await w.price("dear", 30_000_000, 40_000_000)
        order = w.order(key_id=key, build=BUILD)
        await w.price("again", 10_000_000, 20_000_000)
        (held,) = await w.hold(order)

        async def extend(number: int, price: object, *, replaces: bool) -> int:
            request = ledger_pb.ExtendHoldRequest(
                request_id=order.request_id, extension=number, price=price, replaces=replaces
            )
            return int((await w.ledger.ExtendHold(request, timeout=30)).hold.amount_micros)

        assert await extend(1, dear, replaces=False) == WORST_CASE + 3_000
        assert await figures(w, key) == (0, WORST_CASE + 3_000, 0)
        # A limit that was lowered meanwhile keeps nothing from coming back.
        await set_cap(w, key, 1)
        assert await extend(2, held.hold.price, replaces=True) == WORST_CASE
        assert (await spend(w, key)).held_micros == WORST_CASE
        await w.release(order.request_id)
        assert (await spend(w, key)).held_micros == 0
        await w.sound()


async def test_setting_the_cap_of_no_key_says_so(url: str) -> None:
    async with world(url) as w:
        assert not await set_cap(w, "key_nobody", 1)
