"""What a request reserves before it is dispatched: its place in the rate, and its money."""

import asyncio
from dataclasses import replace
from typing import final

from darkbloom_mesh.errors import MeshError

from darkbloom_gateway.buckets import Charge, Decision, Dimension
from darkbloom_gateway.errors import unavailable
from darkbloom_gateway.guards import limited
from darkbloom_gateway.ledger import HoldAnswer
from darkbloom_gateway.model import HoldOrder, HoldRefusal, KeyRecord, Plan, Price
from darkbloom_gateway.stage import Stage


@final
class Reservation:
    """The hold of one request id.

    Invariant: given back at most once, and never after the request was dispatched under it.

    Attributes:
        micros: what is held, in micro-USD; None until it is known, 0 where nobody pays.
    """

    __slots__ = (
        "_answer",
        "_extensions",
        "_first",
        "_lowering",
        "_plan",
        "_price",
        "_released",
        "_stage",
        "micros",
        "request_id",
    )

    def __init__(self, stage: Stage, plan: Plan, request_id: str) -> None:
        """Ask for the hold; the answer is awaited later.

        Raises:
            ApiError: 503: too many orders wait.
        """
        self._stage = stage
        self._plan = plan
        self.request_id = request_id
        self.micros: int | None = None
        # What was held for first, what it covers now, and a change of which no answer came.
        self._first: Price | None = None
        self._price: Price | None = None
        self._lowering: Price | None = None
        self._extensions = 0
        self._released = False
        self._answer: HoldAnswer | None = None
        if plan.free:
            self.micros = 0
            return
        order = HoldOrder(
            request_id=request_id,
            account_id=plan.account_id,
            key_id=plan.key_id,
            build=plan.build,
            prompt_bound=plan.prompt_bound,
            output_bound=plan.output_bound,
            requested_model=plan.requested_model,
            fallback_build=plan.fallback_build,
            traceparent=stage.spans.traceparent(),
        )
        try:
            self._answer = stage.ledger.hold(order)
        except MeshError:
            raise unavailable() from None

    async def held(self) -> None:
        """Return once the money is held; at once where nobody pays.

        Raises:
            ApiError: 402 or 403 on a confirmed refusal, 503 where the ledger does not answer.
        """
        if self._answer is None:
            return
        try:
            hold = await self._answer
        except MeshError:
            raise unavailable() from None
        if isinstance(hold, HoldRefusal):
            raise await self._stage.shortfalls.explain(hold, self._plan)
        if self._price is None:
            self._first = self._price = hold.price
            self.micros = hold.amount_micros

    @property
    def price(self) -> Price | None:
        """The row that is held for now; None where nobody pays, or before it is known."""
        return self._price

    async def cover(self, price: Price | None, *, alone: bool) -> bool:
        """Raise the hold where an offer is dearer than what it covers; False: money is missing.

        Args:
            price: the offer's row; None is the one that was held for first.
            alone: nobody else works on this request, so what a dearer provider that failed would
                have cost is given back.

        Raises:
            ApiError: 503 where the ledger does not answer and the offer is dearer, or the hold is
                gone.
        """
        if self._first is None or self._price is None:
            return True
        if self._lowering is not None:
            await self._lower(self._lowering)
        wanted = price if price is not None else self._first
        if wanted.dearer_than(self._price):
            return await self._raise(wanted, alone=alone)
        if alone and self._extensions and self._lowering is None and wanted != self._price:
            await self._lower(wanted if wanted.dearer_than(self._first) else self._first)
        return True

    async def _raise(self, price: Price, *, alone: bool) -> bool:
        if self._lowering is not None:
            # Which number is free is not known.
            raise unavailable()
        # A refused extension left no trace, so its number is used again.
        number = self._extensions + 1
        replaces = alone and self._extensions > 0
        micros = await self._stage.ledger.extend(self.request_id, number, price, replaces=replaces)
        if micros is None:
            return False
        self._changed(price, micros)
        return True

    async def _lower(self, price: Price) -> None:
        """Give back; without an answer the hold covers enough, and it is told again later."""
        self._lowering = price
        micros = await self._stage.ledger.lower(self.request_id, self._extensions + 1, price)
        if micros is not None:
            self._lowering = None
            self._changed(price, micros)

    def _changed(self, price: Price, micros: int) -> None:
        self._extensions += 1
        self._price = price
        self.micros = micros

    def release(self, reason: str) -> None:
        """Give the hold back; `reason` is `NOT_DISPATCHED`, `REFUSED` or `CLIENT_GONE`."""
        if self._answer is not None and not self._released:
            self._released = True
            self._stage.ledger.release(self.request_id, self._answer, reason)


@final
class RateClaim:
    """One request's claim on the rates of its key and account; made once, whatever happens later.

    What was claimed for tokens is corrected once, at the end, to what was used.
    """

    __slots__ = ("_answer", "_charge", "_role", "_stage", "headers")

    def __init__(self, stage: Stage, key: KeyRecord, charge: Charge | None) -> None:
        """Make the claim; the answer is awaited later.

        Raises:
            ApiError: 503: too many claims wait.
        """
        self._stage = stage
        self._charge = charge
        self._role = key.account_role
        self.headers: tuple[tuple[bytes, bytes], ...] = ()
        self._answer: asyncio.Future[Decision | None] | None = None
        if charge is None:
            return
        try:
            self._answer = stage.limiter.submit(charge)
        except MeshError:
            raise unavailable() from None

    async def allowed(self) -> None:
        """Return once the claim was met.

        Raises:
            ApiError: 429.
        """
        if self._answer is None or self.headers:
            return
        try:
            decision = await self._answer
        except MeshError:
            raise unavailable() from None
        if decision is None:
            raise unavailable()
        self.headers = decision.headers()
        if decision.refused is None:
            return
        refused = decision.refused
        word = (
            refused.owner if refused.dimension is Dimension.REQUESTS else _WORDS[refused.dimension]
        )
        self._stage.meters.rate_limited(self._role, word)
        raise limited(decision, self._stage.clock)

    def settle(self, prompt_tokens: int, completion_tokens: int) -> None:
        """Correct the claim to what was used, off the path; only the first call does.

        Args:
            prompt_tokens: 0 where no prompt was read.
            completion_tokens: that were opened.
        """
        charge, answer = self._charge, self._answer
        self._charge = None
        if charge is None or answer is None:
            return
        _, claimed_in, claimed_out = charge.amounts
        used_in = min(prompt_tokens, claimed_in)
        amounts = (0, used_in - claimed_in, completion_tokens - claimed_out)
        if not any(amounts):
            return
        correction = replace(charge, amounts=amounts, forced=True)
        limiter = self._stage.limiter

        def correct(done: asyncio.Future[Decision | None]) -> None:
            if done.cancelled() or done.exception() is not None:
                return
            decision = done.result()
            if decision is not None and decision.refused is None:
                limiter.correct(correction)

        if answer.done():
            correct(answer)
        else:
            answer.add_done_callback(correct)


_WORDS = {Dimension.INPUT_TOKENS: "input_tokens", Dimension.OUTPUT_TOKENS: "output_tokens"}
