"""Connected accounts and withdrawals."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import date, datetime
from typing import Any

from darkbloom_billing.model import Cursor
from darkbloom_billing.payments.model import (
    AccountStatus,
    Connected,
    Method,
    PayoutAccount,
    Quote,
    Withdrawal,
    WithdrawalStatus,
)
from darkbloom_billing.store.database import Connection, Database

Also = Callable[[Connection], Awaitable[object]]

_ADD_ACCOUNT = """
    INSERT INTO billing.stripe_account
      (stripe_account_id, account_id, status, country, created_at, updated_at)
    VALUES ($1, $2, 'pending', $3, $4, $4) ON CONFLICT DO NOTHING
"""
_MIRROR = """
    UPDATE billing.stripe_account SET status = $2, country = $3, destination_type = $4,
      destination_last4 = $5, instant_eligible = $6, currently_due = $7, updated_at = $8
    WHERE stripe_account_id = $1
"""
_INSERT = """
    INSERT INTO billing.withdrawal (withdrawal_id, account_id, request_id, stripe_account_id,
      amount_micros, fee_micros, net_micros, method, status, next_at, created_at, updated_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 'pending', $9, $9, $9)
"""
# Only over the row that was read: whoever was faster wins, and the other reads again.
_SAVE = """
    UPDATE billing.withdrawal SET status = $2, attempt = $3, tries = $4, payout_tries = $5,
      transfer_id = $6, destination_payment = $7, payout_id = $8, fee_waived = $9, posted = $10,
      refunded = $11, failure_reason = $12, next_at = $13, updated_at = $14, arrival_at = $15,
      failed_payout_id = $16
    WHERE withdrawal_id = $1 AND (status, attempt, tries, payout_tries, coalesce(payout_id, ''),
      fee_waived) = ($17, $18::int, $19::int, $20::int, $21::text, $22::bool)
    RETURNING true
"""
_DUE = """
    SELECT * FROM billing.withdrawal
    WHERE status IN ('pending', 'queued', 'transferred') AND next_at <= $1
    ORDER BY next_at LIMIT $2
"""
_PAGE = """
    SELECT * FROM billing.withdrawal WHERE account_id = $1
      AND ($3::timestamptz IS NULL OR (created_at, withdrawal_id) < ($3, $4))
    ORDER BY created_at DESC, withdrawal_id DESC LIMIT $2
"""
_CHECK = """
    INSERT INTO billing.stripe_check VALUES ($1, $2, $3, $4, $5::jsonb, $6)
    ON CONFLICT (day) DO UPDATE SET checked_at = $2, stripe_micros = $3, book_micros = $4,
      open_items = $5::jsonb, unexplained_micros = $6
"""


class LostRaceError(Exception):
    """Another replica changed the row meanwhile."""


class PostgresPayouts:
    """Where earnings go, and each of their ways there."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def account(self, account_id: str) -> PayoutAccount | None:
        """Return the connected account that is linked now."""
        row = await self._row(
            "SELECT * FROM billing.stripe_account WHERE account_id = $1 AND unlinked_at IS NULL",
            account_id,
        )
        return None if row is None else _account(row)

    async def by_stripe(self, stripe_account_id: str) -> PayoutAccount | None:
        """Return a connected account by Stripe's id, linked or not."""
        row = await self._row(
            "SELECT * FROM billing.stripe_account WHERE stripe_account_id = $1", stripe_account_id
        )
        return None if row is None else _account(row)

    async def connected(self) -> list[str]:
        """Return Stripe's ids of every connected account that there ever was."""

        async def work(connection: Connection) -> list[str]:
            rows = await connection.fetch(
                "SELECT stripe_account_id FROM billing.stripe_account ORDER BY stripe_account_id"
            )
            return [row["stripe_account_id"] for row in rows]

        return await self._database.run(work)

    async def past_accounts(self, account_id: str) -> int:
        """Return how many connected accounts an account ever had."""
        row = await self._row(
            "SELECT count(*) AS n FROM billing.stripe_account WHERE account_id = $1", account_id
        )
        return int(row["n"])

    async def add_account(
        self, account_id: str, stripe_account_id: str, country: str, *, now: datetime
    ) -> None:
        """Link a connected account."""
        await self._row(_ADD_ACCOUNT, stripe_account_id, account_id, country, now)

    async def mirror(self, found: Connected, *, now: datetime) -> None:
        """Keep what Stripe says of a connected account."""
        await self._row(
            _MIRROR,
            found.stripe_account_id,
            found.status.value,
            found.country,
            found.destination_type,
            found.destination_last4,
            found.instant_eligible,
            list(found.currently_due),
            now,
        )

    async def unlink(self, account_id: str, *, now: datetime) -> None:
        """Unlink the connected account."""
        await self._row(
            "UPDATE billing.stripe_account SET unlinked_at = $2 "
            "WHERE account_id = $1 AND unlinked_at IS NULL",
            account_id,
            now,
        )

    def inserting(self, row: Withdrawal) -> Also:
        """Return what writes a new withdrawal in the transaction of its reservation."""

        async def also(connection: Connection) -> None:
            await connection.execute(
                _INSERT,
                row.withdrawal_id,
                row.account_id,
                row.request_id,
                row.stripe_account_id,
                row.quote.amount_micros,
                row.quote.fee_micros,
                row.quote.net_micros,
                row.method.value,
                row.created_at,
            )

        return also

    def saving(self, old: Withdrawal, new: Withdrawal) -> Also:
        """Return what writes a withdrawal's new state in the transaction of its booking.

        Raises, when called:
            LostRaceError: The row is not `old` any more.
        """

        async def also(connection: Connection) -> None:
            if not await connection.fetchval(_SAVE, *_state(new), *_expected(old)):
                raise LostRaceError

        return also

    async def save(self, old: Withdrawal, new: Withdrawal) -> bool:
        """Write a withdrawal's new state; False: the row is not `old` any more."""
        return await self._row(_SAVE, *_state(new), *_expected(old)) is not None

    async def withdrawal(self, withdrawal_id: str) -> Withdrawal | None:
        """Return a withdrawal."""
        return await self._one("withdrawal_id", withdrawal_id)

    async def of_transfer(self, transfer_id: str) -> Withdrawal | None:
        """Return the withdrawal of a transfer."""
        return await self._one("transfer_id", transfer_id)

    async def of_payout(self, payout_id: str) -> Withdrawal | None:
        """Return the withdrawal of an instant payout."""
        return await self._one("payout_id", payout_id)

    async def of_payments(self, payments: Sequence[str]) -> list[Withdrawal]:
        """Return the withdrawals whose money these are: payments, or returns of payouts."""
        rows = await self._rows(
            "SELECT * FROM billing.withdrawal "
            "WHERE destination_payment = ANY ($1) OR failed_payout_id = ANY ($1)",
            list(payments),
        )
        return [_withdrawal(row) for row in rows]

    async def due(self, *, now: datetime, limit: int) -> list[Withdrawal]:
        """Return withdrawals that need a look, oldest first."""
        return [_withdrawal(row) for row in await self._rows(_DUE, now, limit)]

    async def overdue(self, before: datetime) -> int:
        """Return how many withdrawals from before a time have not ended well or badly."""
        row = await self._row(
            "SELECT count(*) AS n FROM billing.withdrawal "
            "WHERE status NOT IN ('paid', 'failed') AND created_at < $1",
            before,
        )
        return int(row["n"])

    async def on_their_way(self) -> list[Withdrawal]:
        """Return withdrawals that left Stripe's balance and are not paid in the books."""
        rows = await self._rows(
            "SELECT * FROM billing.withdrawal "
            "WHERE transfer_id IS NOT NULL AND NOT posted AND NOT refunded"
        )
        return [_withdrawal(row) for row in rows]

    async def page(self, account_id: str, *, limit: int, after: Cursor | None) -> list[Withdrawal]:
        """Return withdrawals of an account, newest first."""
        rows = await self._rows(
            _PAGE,
            account_id,
            limit,
            after.settled_at if after else None,
            after.request_id if after else None,
        )
        return [_withdrawal(row) for row in rows]

    async def last_check(self) -> datetime | None:
        """Return when Stripe's balance was last compared."""
        row = await self._row("SELECT max(checked_at) AS at FROM billing.stripe_check")
        at: datetime | None = row["at"]
        return at

    async def known_sources(self, sources: Sequence[str]) -> set[str]:
        """Return those Stripe objects that some row of ours names."""
        rows = await self._rows(
            "SELECT charge_id AS id FROM billing.stripe_session WHERE charge_id = ANY ($1) "
            "UNION SELECT dispute_id FROM billing.stripe_dispute WHERE dispute_id = ANY ($1) "
            "UNION SELECT transfer_id FROM billing.withdrawal WHERE transfer_id = ANY ($1) "
            "UNION SELECT substr(idem_key, 8) FROM ledger.event "
            "WHERE idem_key = ANY (SELECT 'refund:' || s FROM unnest($1::text[]) AS s)",
            list(sources),
        )
        return {row["id"] for row in rows}

    async def keep_check(
        self, day: date, at: datetime, stripe: int, book: int, items: str, unexplained: int
    ) -> None:
        """Keep the comparison of a day; amounts are micro-USD."""
        await self._row(_CHECK, day, at, stripe, book, items, unexplained)

    async def _one(self, column: str, value: str) -> Withdrawal | None:
        row = await self._row(f"SELECT * FROM billing.withdrawal WHERE {column} = $1", value)  # noqa: S608 - our own column names
        return None if row is None else _withdrawal(row)

    async def _row(self, statement: str, *arguments: object) -> Any:
        rows = await self._rows(statement, *arguments)
        return rows[0] if rows else None

    async def _rows(self, statement: str, *arguments: object) -> Sequence[Any]:
        async def work(connection: Connection) -> Sequence[Any]:
            return await connection.fetch(statement, *arguments)

        return await self._database.run(work)


def _state(row: Withdrawal) -> tuple[object, ...]:
    return (
        row.withdrawal_id,
        row.status.value,
        row.attempt,
        row.tries,
        row.payout_tries,
        row.transfer_id or None,
        row.destination_payment or None,
        row.payout_id or None,
        row.fee_waived,
        row.posted,
        row.refunded,
        row.failure_reason,
        row.next_at,
        row.updated_at,
        row.arrival_at,
        row.failed_payout_id or None,
    )


def _expected(row: Withdrawal) -> tuple[object, ...]:
    status = row.status.value
    return (status, row.attempt, row.tries, row.payout_tries, row.payout_id, row.fee_waived)


def _account(row: Any) -> PayoutAccount:
    return PayoutAccount(
        stripe_account_id=row["stripe_account_id"],
        account_id=row["account_id"],
        status=AccountStatus(row["status"]),
        country=row["country"],
        destination_type=row["destination_type"],
        destination_last4=row["destination_last4"],
        instant_eligible=row["instant_eligible"],
        currently_due=tuple(row["currently_due"]),
    )


def _withdrawal(row: Any) -> Withdrawal:
    return Withdrawal(
        withdrawal_id=row["withdrawal_id"],
        account_id=row["account_id"],
        request_id=row["request_id"],
        stripe_account_id=row["stripe_account_id"],
        quote=Quote(
            amount_micros=row["amount_micros"],
            fee_micros=row["fee_micros"],
            net_micros=row["net_micros"],
        ),
        method=Method(row["method"]),
        status=WithdrawalStatus(row["status"]),
        attempt=row["attempt"],
        tries=row["tries"],
        payout_tries=row["payout_tries"],
        transfer_id=row["transfer_id"] or "",
        destination_payment=row["destination_payment"] or "",
        payout_id=row["payout_id"] or "",
        failed_payout_id=row["failed_payout_id"] or "",
        fee_waived=row["fee_waived"],
        posted=row["posted"],
        refunded=row["refunded"],
        failure_reason=row["failure_reason"],
        next_at=row["next_at"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        arrival_at=row["arrival_at"],
    )
