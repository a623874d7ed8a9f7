"""Money on the path: holds in natural batches, releases and receipts in the background."""

import asyncio

from darkbloom.common.v1.error_reason_pb2 import ErrorReason
from darkbloom_mesh.errors import MeshError, PreconditionError

from darkbloom_gateway.batching import Batcher, Outbox
from darkbloom_gateway.errors import unavailable
from darkbloom_gateway.model import Hold, HoldOrder, HoldRefusal, Price
from darkbloom_gateway.ports import Billing, ReceiptRecord

HoldAnswer = asyncio.Future[Hold | HoldRefusal]


class Ledger:
    """One worker's line to the ledger.

    Invariant: a hold that this worker asked for and did not hand over to the router is released
    once, also where it is not known whether it was placed.

    Args:
        billing: the ledger.
        releases: delivers releases.
        receipts: delivers countersigned records.
    """

    def __init__(
        self,
        billing: Billing,
        *,
        releases: Outbox[tuple[str, str]],
        receipts: Outbox[ReceiptRecord],
    ) -> None:
        self._billing = billing
        self._holds: Batcher[HoldOrder, Hold | HoldRefusal] = Batcher(billing.hold)
        self._releases = releases
        self._receipts = receipts

    def hold(self, order: HoldOrder) -> HoldAnswer:
        """Ask for a hold; the answer comes with the next batch.

        Raises:
            OverloadedError: too many orders wait.
        """
        return self._holds.submit(order)

    async def extend(
        self, request_id: str, extension: int, price: Price, *, replaces: bool
    ) -> int | None:
        """Raise a hold to a dearer row, before anything is sealed.

        Args:
            request_id: whose.
            extension: its number.
            price: the row.
            replaces: nobody works for the extensions before it any more.

        Returns:
            What is held now, in micro-USD; None: money is missing, nothing changed.

        Raises:
            ApiError: 503 where billing does not answer, or the hold is gone.
        """
        try:
            return await self._extend(request_id, extension, price, replaces=replaces)
        except PreconditionError:
            return None
        except MeshError:
            raise unavailable() from None

    async def lower(self, request_id: str, extension: int, price: Price) -> int | None:
        """Give back what only providers that failed would have cost.

        Returns:
            What is held now, in micro-USD; None: it is not known whether anything changed.

        Raises:
            ApiError: 503: the hold is gone.
        """
        try:
            return await self._extend(request_id, extension, price, replaces=True)
        except MeshError:
            return None

    async def _extend(
        self, request_id: str, extension: int, price: Price, *, replaces: bool
    ) -> int:
        try:
            return await self._billing.extend_hold(request_id, extension, price, replaces=replaces)
        except PreconditionError as error:
            if error.reason == ErrorReason.ERROR_REASON_HOLD_ENDED:
                raise unavailable() from None
            raise

    def release(self, request_id: str, answer: HoldAnswer, reason: str) -> None:
        """Give a hold back, now or as soon as it is known that there is one.

        Args:
            request_id: whose.
            answer: what `hold` returned.
            reason: `NOT_DISPATCHED`, `REFUSED` or `CLIENT_GONE`.
        """

        def settle(done: HoldAnswer) -> None:
            if done.cancelled() or done.exception() is not None or isinstance(done.result(), Hold):
                self._releases.put((request_id, reason))

        if answer.done():
            settle(answer)
        else:
            answer.add_done_callback(settle)

    def give_back(self, request_id: str, reason: str) -> None:
        """Give a hold back that another worker has placed; moves nothing where it has ended."""
        self._releases.put((request_id, reason))

    def record(self, record: ReceiptRecord) -> None:
        """Hand in a countersigned record, off the path."""
        self._receipts.put(record)

    async def run_holds(self) -> None:
        """Place holds until cancelled."""
        await self._holds.run()

    async def flushed(self) -> None:
        """Return once every release and record was delivered."""
        await self._releases.flushed()
        await self._receipts.flushed()
