"""The price book of this replica, kept fresh."""

import asyncio
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta

from darkbloom_mesh.clock import Clock
from darkbloom_mesh.errors import NotFoundError, OverloadedError

from darkbloom_billing.errors import PriceTooHighError
from darkbloom_billing.freshness import keep_fresh
from darkbloom_billing.model import NewPrice, PriceRow, PriceVersion, Quote
from darkbloom_billing.ports import PriceStore
from darkbloom_billing.pricing import (
    MAX_OWN_RATIO,
    PriceBook,
    affordable_tokens,
    too_high,
    worst_case,
)

MAX_WATCHERS = 256
KEPT = timedelta(hours=3)
"""Rows that ended longer ago than any hold lives are not kept in memory."""


class Prices:
    """Reads all rows when told that one changed, and now and then anyway.

    A hold keeps the row that this replica knew, so a replica that is a moment behind is never
    wrong, only a moment behind.
    """

    def __init__(self, store: PriceStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._stale = asyncio.Event()
        self._changed = asyncio.Event()
        self._watchers = 0
        self.book = PriceBook()
        self.closed = False

    async def refresh(self) -> None:
        """Read all rows."""
        versions = await self._store.versions(since=self._clock.now() - KEPT)
        self.book = PriceBook(versions, await self._store.wholesale())
        self._wake()

    async def set_price(self, new: NewPrice) -> PriceVersion:
        """Add a row, once per request id; the book has it when this returns.

        Raises:
            PriceTooHighError: An own price is above its limit.
            ConflictError: The request id came before with another price.
        """
        if new.account_id:
            new = self._within_limits(new)
        price_id = f"price_{secrets.token_hex(16)}"
        version = await self._store.set_price(new, price_id, now=self._clock.now())
        await self.refresh()
        return version

    async def end_price(self, request_id: str, account_id: str, build: str) -> None:
        """End an account's own price, once per request id.

        Raises:
            NotFoundError: There is none.
        """
        now = self._clock.now()
        if not await self._store.end_price(request_id, account_id, build, now=now):
            raise NotFoundError("there is no own price of this build")
        await self.refresh()

    def own(self, account_id: str) -> list[PriceRow]:
        """Return an account's own rows in force, by build."""
        rows = self.book.all_own(self._clock.now())
        return [row for (owner, _), row in sorted(rows.items()) if owner == account_id]

    def quote(
        self, account_id: str, build: str, *, prompt_bound: int, output_bound: int, available: int
    ) -> Quote:
        """Return what a hold would take, and how far `available` micro-USD would reach."""
        price = self.book.for_payer(account_id, build, self._clock.now())
        return Quote(
            price=price,
            amount_micros=worst_case(price, prompt_bound=prompt_bound, output_bound=output_bound),
            available_micros=available,
            max_affordable_tokens=affordable_tokens(
                price, prompt_bound=prompt_bound, available_micros=available
            ),
        )

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Count a watcher as long as it watches.

        Raises:
            OverloadedError: There are too many watchers.
        """
        if self._watchers >= MAX_WATCHERS:
            raise OverloadedError("too many price watches")
        self._watchers += 1
        try:
            yield
        finally:
            self._watchers -= 1

    def ticket(self) -> asyncio.Event:
        """Return what is set once the book may differ from now."""
        return self._changed

    def own_rows(self) -> dict[tuple[str, str], PriceRow]:
        """Return every own row in force, by account and build."""
        return self.book.all_own(self._clock.now())

    def invalidate(self) -> None:
        """Read again soon."""
        self._stale.set()

    async def run(self, period_s: float) -> None:
        """Keep the book fresh for ever."""
        await keep_fresh(self.refresh, self._stale, period_s, failed="prices_not_refreshed")

    async def close(self) -> None:
        """End every watch: this replica is leaving."""
        self.closed = True
        self._wake()

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _within_limits(self, new: NewPrice) -> NewPrice:
        at = new.effective_at or self._clock.now()
        platform = self.book.in_force(new.build, at)
        if new.cache_read_defaulted:
            limit = platform.cache_read_micros * MAX_OWN_RATIO
            new = replace(new, cache_read_micros=min(new.cache_read_micros, limit))
        fault = too_high(new.rates(), platform)
        if fault is not None:
            rate, limit = fault
            raise PriceTooHighError(
                f"must be at most {limit}, four times the platform's price",
                rate,
                metadata={"darkbloom-limit-micros": str(limit)},
            )
        return new


def changes(
    known: dict[tuple[str, str], PriceRow], current: dict[tuple[str, str], PriceRow]
) -> tuple[list[PriceRow], list[tuple[str, str]]]:
    """Return the rows that are new or other than before, and the pairs that have none now."""
    return (
        [row for key, row in current.items() if known.get(key) != row],
        [key for key in known if key not in current],
    )
