"""What providers charge of their own, as billing says it: each offer names such a row.

Nothing here decides about money: billing takes only rows of its own, and only the payee's. While
billing is away the rows that are known go on being offered; who has none gets the hold's price.
"""

import grpc
import structlog
from darkbloom.billing.v1.price_service_pb2 import WatchOwnPricesRequest, WatchOwnPricesResponse
from darkbloom.billing.v1.price_service_pb2_grpc import PriceServiceStub
from darkbloom.common.v1.price_pb2 import PriceRow
from darkbloom_mesh.backoff import Backoff
from darkbloom_mesh.clock import Clock

from darkbloom_router.timers import Timers
from darkbloom_router.watches import alive

_log = structlog.get_logger()


class OwnPrices:
    """Own rows by account and build."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str], PriceRow] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def of(self, account_id: str, build: str) -> PriceRow | None:
        """Return an account's own row of a build."""
        return self._rows.get((account_id, build))

    def replace(self, rows: dict[tuple[str, str], PriceRow]) -> None:
        """Take the place of everything that was known."""
        self._rows = rows

    def apply(self, message: WatchOwnPricesResponse) -> None:
        """Take in what changed."""
        _apply(self._rows, message)


class OwnPriceWatch:
    """Follows billing; what it knew before a loss stays until everything has come again."""

    def __init__(
        self,
        channel: grpc.aio.Channel,
        timers: Timers,
        clock: Clock,
        backoff: Backoff,
        prices: OwnPrices,
    ) -> None:
        self._stub: PriceServiceStub = PriceServiceStub(channel)
        self._timers = timers
        self._clock = clock
        self._backoff = backoff
        self._prices = prices

    async def run(self) -> None:
        """Follow for ever."""
        while True:
            try:
                await self._follow()
            except grpc.aio.AioRpcError as error:
                _log.warning("price_watch_lost", status=error.code().name.lower())
            await self._clock.sleep(self._backoff.next_s())

    async def _follow(self) -> None:
        gathered: dict[tuple[str, str], PriceRow] | None = {}
        call = self._stub.WatchOwnPrices(WatchOwnPricesRequest())
        async for message in alive(call, self._timers):
            self._backoff.reset()
            if gathered is None:
                self._prices.apply(message)
                continue
            _apply(gathered, message)
            if message.complete:
                self._prices.replace(gathered)
                gathered = None


def _apply(rows: dict[tuple[str, str], PriceRow], message: WatchOwnPricesResponse) -> None:
    for own in message.prices:
        rows[own.account_id, own.price.build] = own.price
    for end in message.ended:
        rows.pop((end.account_id, end.build), None)
