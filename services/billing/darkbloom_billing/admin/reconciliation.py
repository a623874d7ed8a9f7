"""Withdrawals of which nobody could tell for 12 hours whether they left: a person looks at Stripe.

What the person found is the evidence: the id of the transfer that left, or of the request that
Stripe refused. It is kept with the withdrawal and in the audit. Nothing automatic touches such a
row any more, and its money stays set aside until somebody says which it is.
"""

import re
from dataclasses import replace
from datetime import datetime
from typing import Any

from darkbloom_mesh.clock import Clock
from darkbloom_mesh.errors import ConflictError, InvalidArgumentError, NotFoundError

from darkbloom_billing.admin.actions import record
from darkbloom_billing.admin.errors import OperatorRefusal, OperatorRefusedError
from darkbloom_billing.admin.model import Action, Operator
from darkbloom_billing.admin.operators import require_registered
from darkbloom_billing.books import Books
from darkbloom_billing.payments import withdrawals
from darkbloom_billing.payments.model import Withdrawal, WithdrawalStatus
from darkbloom_billing.payments.store.payouts import LostRaceError, PostgresPayouts
from darkbloom_billing.store.database import Connection, Database

_LEFT = re.compile(r"tr_[A-Za-z0-9]{6,80}")
_REFUSED = re.compile(r"req_[A-Za-z0-9]{6,80}")
_OPEN = """
    SELECT withdrawal_id FROM billing.withdrawal WHERE status = 'manual_reconciliation_required'
    ORDER BY created_at LIMIT $1
"""


class Reconciliation:
    """Lists such withdrawals, and ends one by evidence, once."""

    def __init__(self, books: Books, database: Database, clock: Clock) -> None:
        self._books = books
        self._database = database
        self._payouts = PostgresPayouts(database)
        self._clock = clock

    async def waiting(self, limit: int) -> list[Withdrawal]:
        """Return withdrawals that wait for a person, oldest first."""

        async def work(connection: Connection) -> list[Any]:
            return await connection.fetch(_OPEN, limit)

        ids = [row["withdrawal_id"] for row in await self._database.run(work)]
        found = [await self._payouts.withdrawal(name) for name in ids]
        return [row for row in found if row is not None]

    async def resolve(
        self, operator: Operator, withdrawal_id: str, evidence: str, *, left: bool
    ) -> Withdrawal:
        """Say that the money left, or that it did not; a repeat with the same answer is no news.

        Args:
            operator: A registered one.
            withdrawal_id: Which.
            evidence: `tr_…` of what left, `req_…` of what Stripe refused.
            left: Which of the two.

        Raises:
            NotFoundError: No such withdrawal.
            InvalidArgumentError: The evidence has the wrong form.
            ConflictError: The books, or what is known of Stripe, have it the other way round.
            OperatorRefusedError: Not registered, or it does not wait for a person.
        """
        require_registered(operator)
        if (_LEFT if left else _REFUSED).fullmatch(evidence) is None:
            wanted = "a transfer, tr_…" if left else "a refused request, req_…"
            raise InvalidArgumentError(f"must be the id of {wanted}", "evidence")
        row = await self._get(withdrawal_id)
        now = self._clock.now()
        done = _ended(row, evidence, now, left=left)
        if row.status is done.status:
            return row
        if row.status is not WithdrawalStatus.MANUAL:
            raise OperatorRefusedError(OperatorRefusal.NOT_MANUAL)
        if row.transfer_id and not left:
            # Given back, it would have been paid twice.
            raise ConflictError("its transfer is known, so the money left")
        action = Action(
            operator=operator,
            action="withdrawal.resolve",
            subject=withdrawal_id,
            request_id=withdrawal_id,
            before={"status": row.status.value, "account_id": row.account_id},
            after={
                "status": done.status.value,
                "evidence": evidence,
                "net_micros": row.quote.net_micros,
            },
        )

        async def also(connection: Connection) -> None:
            await self._payouts.saving(row, done)(connection)
            await record(connection, action, now=now)

        try:
            if left:
                keep = not row.fee_waived
                await self._books.withdraw_paid(withdrawal_id, keep_fee=keep, also=also)
            else:
                await self._books.withdraw_refused(withdrawal_id, also=also)
        except LostRaceError:
            raise OperatorRefusedError(OperatorRefusal.NOT_MANUAL) from None
        return await self._get(withdrawal_id)

    async def _get(self, withdrawal_id: str) -> Withdrawal:
        row = await self._payouts.withdrawal(withdrawal_id)
        if row is None:
            raise NotFoundError("no such withdrawal")
        return row


def _ended(row: Withdrawal, evidence: str, now: datetime, *, left: bool) -> Withdrawal:
    if not left:
        return withdrawals.failed(row, f"reconciled:{evidence}", now)
    return replace(withdrawals.paid(row, now), transfer_id=evidence, posted=True)
