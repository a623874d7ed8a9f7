"""Money that Stripe takes back: refunds and disputes, always bookable, read from Stripe."""

from darkbloom_mesh.clock import Clock

from darkbloom_billing.books import Books, FeePayer
from darkbloom_billing.payments.amounts import line_shares
from darkbloom_billing.payments.errors import NotYetError
from darkbloom_billing.payments.model import (
    CENT_MICROS,
    Dispute,
    DisputeState,
    Session,
    SessionStatus,
)
from darkbloom_billing.payments.ports import Acquirer
from darkbloom_billing.payments.store.sessions import PostgresSessions

_LEFT = frozenset({"succeeded", "pending"})
_CAME_BACK = frozenset({"failed", "canceled"})


class Reversals:
    """Books refunds and disputes of deposits.

    Args:
        books: Moves the money.
        store: Sessions and disputes.
        acquirer: Stripe.
        clock: Time.
    """

    def __init__(
        self, books: Books, store: PostgresSessions, acquirer: Acquirer, clock: Clock
    ) -> None:
        self._books = books
        self._store = store
        self._acquirer = acquirer
        self._clock = clock

    async def sync_refunds(self, charge_id: str, name: str) -> None:
        """Book every refund of a charge that is not booked yet; other people's charges are left.

        Args:
            charge_id: Stripe's.
            name: Our session's id as the charge says it; empty: none.
        """
        session = await self._session(charge_id, name)
        if session is None:
            return
        new = session.new
        refunds = await self._acquirer.refunds(charge_id)
        lines = line_shares(
            [each.amount_cents * CENT_MICROS for each in refunds],
            new.amount_micros + new.line_micros,
            new.line_micros,
        )
        for refund, line in zip(refunds, lines, strict=True):
            if refund.status not in _LEFT | _CAME_BACK:
                continue
            await self._books.refund(
                refund.refund_id,
                new.session_id,
                refund.amount_cents * CENT_MICROS - line,
                fee_line_micros=line,
            )
            if refund.status in _CAME_BACK:
                await self._books.refund_failed(refund.refund_id)

    async def sync_dispute(self, dispute_id: str) -> None:
        """Book what a dispute took, gave back, cost and came to."""
        dispute = await self._acquirer.dispute(dispute_id)
        session = await self._session(dispute.charge_id, dispute.session_id)
        if session is None:
            return
        now = self._clock.now()
        state = await self._store.dispute_state(dispute_id)
        taken = -sum(move.amount_cents for move in dispute.moves if move.amount_cents < 0)
        if state is None and taken:
            amount = taken * CENT_MICROS
            session_id = session.new.session_id
            await self._books.dispute_open(
                dispute_id,
                session_id,
                amount,
                also=self._store.opening_dispute(dispute_id, session_id, amount, now=now),
            )
            state = DisputeState.OPEN
        await self._book_fees(dispute)
        if state is DisputeState.OPEN:
            state = await self._decide(dispute, taken)
        if state is DisputeState.LOST:
            await self._reinstate(dispute, taken)

    async def _decide(self, dispute: Dispute, taken: int) -> DisputeState:
        now, name = self._clock.now(), dispute.dispute_id
        returned = _returned(dispute)
        if returned >= taken:
            also = self._store.closing_dispute(name, DisputeState.WON, now=now)
            await self._books.dispute_won(name, also=also)
            return DisputeState.WON
        # Won, and only a part came back: as lost, and that part reinstated.
        if dispute.status == "lost" or (dispute.status == "won" and returned):
            also = self._store.closing_dispute(name, DisputeState.LOST, now=now)
            await self._books.dispute_lost(name, also=also)
            return DisputeState.LOST
        return DisputeState.OPEN

    async def _reinstate(self, dispute: Dispute, taken: int) -> None:
        """Book what came back of a lost dispute; all of it: then it was won after all."""
        now, name = self._clock.now(), dispute.dispute_id
        back = 0
        for move in dispute.moves:
            if move.amount_cents <= 0:
                continue
            back += move.amount_cents
            state = DisputeState.WON if back >= taken else DisputeState.LOST
            await self._books.dispute_reinstated(
                name,
                move.transaction,
                move.amount_cents * CENT_MICROS,
                also=self._store.closing_dispute(name, state, now=now),
            )

    async def _book_fees(self, dispute: Dispute) -> None:
        for move in dispute.moves:
            if move.fee_cents > 0:
                await self._books.stripe_fee(
                    move.transaction, move.fee_cents * CENT_MICROS, payer=FeePayer.LINE
                )
            elif move.fee_cents < 0:
                await self._books.stripe_fee_returned(
                    move.transaction, -move.fee_cents * CENT_MICROS
                )

    async def _session(self, charge_id: str, name: str) -> Session | None:
        """Return the credited session of a charge.

        Raises:
            NotYetError: It is ours, and its deposit has not acted yet.
        """
        found = await self._store.of_charge(charge_id)
        if found is not None:
            return found
        session = await self._store.find(name) if name else None
        if session is not None and session.status is not SessionStatus.COMPLETED:
            raise NotYetError("the deposit has not acted yet")
        return None


def _returned(dispute: Dispute) -> int:
    """Return what came back of a dispute so far, in cents."""
    return sum(move.amount_cents for move in dispute.moves if move.amount_cents > 0)
