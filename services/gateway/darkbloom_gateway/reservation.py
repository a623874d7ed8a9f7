"""What a request reserves before it is dispatched: its place in the rate, and its money."""

from typing import final

from darkbloom_mesh.errors import MeshError

from darkbloom_gateway.errors import ApiError, rate_limited, unavailable
from darkbloom_gateway.ledger import HoldAnswer, held_or_refused
from darkbloom_gateway.model import HoldOrder, KeyRecord, Plan, Price
from darkbloom_gateway.stage import Stage


@final
class Reservation:
    """The hold of one request id.

    Invariant: given back at most once, and never after the request was dispatched under it.
    """

    __slots__ = ("_answer", "_extensions", "_price", "_released", "_stage", "request_id")

    def __init__(self, stage: Stage, plan: Plan, request_id: str) -> None:
        """Ask for the hold; the answer is awaited later.

        Raises:
            ApiError: 503: too many orders wait.
        """
        self._stage = stage
        self.request_id = request_id
        self._price: Price | None = None
        self._extensions = 0
        self._released = False
        order = HoldOrder(
            request_id=request_id,
            account_id=plan.account_id,
            key_id=plan.key_id,
            build=plan.build,
            prompt_bound=plan.prompt_bound,
            output_bound=plan.output_bound,
            requested_model=plan.requested_model,
            traceparent=stage.spans.traceparent(),
        )
        try:
            self._answer: HoldAnswer = stage.ledger.hold(order)
        except MeshError:
            raise unavailable() from None

    async def held(self) -> None:
        """Return once the money is held.

        Raises:
            ApiError: 402 on a confirmed shortfall, 503 where the ledger does not answer.
        """
        try:
            hold = held_or_refused(await self._answer)
        except ApiError:
            raise
        except MeshError:
            raise unavailable() from None
        if self._price is None:
            self._price = hold.price

    async def cover(self, price: Price | None) -> None:
        """Raise the hold where an offer is dearer than what it assumed.

        Raises:
            ApiError: 402 where money is missing, 503 where the ledger does not answer.
        """
        if price is None or self._price is None or not price.dearer_than(self._price):
            return
        self._extensions += 1
        await self._stage.ledger.extend(self.request_id, self._extensions, price)
        self._price = price

    def release(self, reason: str) -> None:
        """Give the hold back; `reason` is `NOT_DISPATCHED`, `REFUSED` or `CLIENT_GONE`."""
        if not self._released:
            self._released = True
            self._stage.ledger.release(self.request_id, self._answer, reason)


class RateClaim:
    """One request's claim on the rate of its key and account; made once, whatever happens later."""

    __slots__ = ("_answer", "_key", "_stage", "headers")

    def __init__(self, stage: Stage, key: KeyRecord) -> None:
        """Make the claim; the answer is awaited later.

        Raises:
            ApiError: 503: too many claims wait.
        """
        self._stage = stage
        self._key = key
        self.headers: tuple[tuple[bytes, bytes], ...] = ()
        try:
            self._answer = stage.limiter.submit(key)
        except MeshError:
            raise unavailable() from None

    async def allowed(self) -> None:
        """Return once the claim was met.

        Raises:
            ApiError: 429.
        """
        if self._answer is None:
            return
        try:
            decision = await self._answer
        except MeshError:
            raise unavailable() from None
        self._answer = None
        self.headers = decision.headers()
        if decision.allowed:
            return
        self._stage.meters.rate_limited(self._key.account_role, decision.dimension)
        reset = b"%d" % (self._stage.clock.now().timestamp() + decision.wait_s + 1)
        raise rate_limited(decision.wait_s, (*self.headers, (b"x-ratelimit-reset", reset)))
