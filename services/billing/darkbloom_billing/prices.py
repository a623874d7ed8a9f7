"""The price book of this replica, kept fresh."""

import asyncio
import secrets

import structlog
from darkbloom_mesh.clock import Clock
from darkbloom_mesh.errors import MeshError

from darkbloom_billing.model import NewPrice, PriceVersion
from darkbloom_billing.ports import PriceStore
from darkbloom_billing.pricing import PriceBook

_log = structlog.get_logger()


class Prices:
    """Reads all rows when told that one changed, and now and then anyway.

    A hold keeps the row that this replica knew, so a replica that is a moment behind is never
    wrong, only a moment behind.
    """

    def __init__(self, store: PriceStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._stale = asyncio.Event()
        self.book = PriceBook()

    async def refresh(self) -> None:
        """Read all rows."""
        self.book = PriceBook(await self._store.versions())

    async def set_price(self, new: NewPrice) -> PriceVersion:
        """Add a row, once per request id; the book has it when this returns."""
        price_id = f"price_{secrets.token_hex(16)}"
        version = await self._store.set_price(new, price_id, now=self._clock.now())
        await self.refresh()
        return version

    def invalidate(self) -> None:
        """Read again soon."""
        self._stale.set()

    async def run(self, period_s: float) -> None:
        """Keep the book fresh for ever."""
        while True:
            try:
                async with asyncio.timeout(period_s):
                    await self._stale.wait()
            except TimeoutError:
                pass
            self._stale.clear()
            try:
                await self.refresh()
            except MeshError as error:
                _log.warning("prices_not_refreshed", reason=error.reason_name)
