"""Checkout sessions, disputes, customers, automatic top-ups."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Any

from darkbloom_mesh.errors import ConflictError, NotFoundError

from darkbloom_billing.payments.model import (
    AutoTopUp,
    Card,
    DisputeState,
    NewSession,
    Payment,
    SavedCard,
    Session,
    SessionKind,
    SessionStatus,
)
from darkbloom_billing.store.database import Connection, Database

Also = Callable[[Connection], Awaitable[object]]

_ADD = """
    INSERT INTO billing.stripe_session
      (session_id, account_id, request_id, kind, amount_micros, line_micros, created_at)
    SELECT $1, $2, $3, $4, $5, $6, $7
    WHERE EXISTS (SELECT FROM billing.account WHERE account_id = $2)
    ON CONFLICT DO NOTHING
"""
_OPENED = """
    UPDATE billing.stripe_session SET external_id = $2, url = $3
    WHERE session_id = $1 AND external_id IS NULL
"""
_MOVE = """
    UPDATE billing.stripe_session SET status = $2
    WHERE session_id = $1 AND status IN ('pending', 'processing')
"""
_COMPLETE = """
    UPDATE billing.stripe_session
    SET status = 'completed', payment_intent = $2, charge_id = $3, completed_at = $4, url = ''
    WHERE session_id = $1
"""
_CUSTOMER = """
    INSERT INTO billing.stripe_customer (account_id, customer_id, created_at)
    VALUES ($1, $2, $3) ON CONFLICT DO NOTHING
"""
_SAVE_CARD = """
    UPDATE billing.stripe_customer SET payment_method = $2, card_brand = $3, card_last4 = $4
    WHERE account_id = $1
"""
_TOP_UP = """
    INSERT INTO billing.auto_top_up (account_id, enabled, threshold_micros, amount_micros,
      monthly_cap_micros, disabled_reason, updated_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7)
    ON CONFLICT (account_id) DO UPDATE SET enabled = $2, threshold_micros = $3,
      amount_micros = $4, monthly_cap_micros = $5, disabled_reason = $6, updated_at = $7
"""
_DISABLE = """
    UPDATE billing.auto_top_up SET enabled = false, disabled_reason = $2, updated_at = $3
    WHERE account_id = $1
"""
_MONTH = """
    SELECT coalesce(sum(amount_micros), 0)::bigint AS micros FROM billing.stripe_session
    WHERE account_id = $1 AND kind = 'auto' AND status IN ('pending', 'processing', 'completed')
      AND created_at >= $2
"""
# An account with less than its threshold, with a card, and with no payment on its way.
_LOW = """
    SELECT t.account_id FROM billing.auto_top_up t
    JOIN billing.stripe_customer c ON c.account_id = t.account_id
      AND c.payment_method IS NOT NULL
    CROSS JOIN LATERAL billing.wallets(t.account_id) w
    WHERE t.enabled AND NOT w.frozen AND w.promo + w.credit + w.earned < t.threshold_micros
      -- Those that have reached their cap would stand in the way of others until the month ends.
      AND t.amount_micros <= t.monthly_cap_micros - (
        SELECT coalesce(sum(s.amount_micros), 0) FROM billing.stripe_session s
        WHERE s.account_id = t.account_id AND s.kind = 'auto'
          AND s.status IN ('pending', 'processing', 'completed') AND s.created_at >= $2)
      AND NOT EXISTS (SELECT FROM billing.stripe_session s WHERE s.account_id = t.account_id
        AND s.kind = 'auto' AND s.status IN ('pending', 'processing'))
    ORDER BY t.account_id LIMIT $1
"""
_OPEN_AUTO = """
    SELECT * FROM billing.stripe_session WHERE kind = 'auto' AND status = 'pending'
      AND created_at <= $1 ORDER BY created_at LIMIT $2
"""
_LEFT_OPEN = """
    SELECT * FROM billing.stripe_session WHERE kind IN ('deposit', 'setup')
      AND status IN ('pending', 'processing') AND external_id IS NOT NULL
      AND created_at <= $1 AND created_at > $2 ORDER BY created_at LIMIT $3
"""
_DISPUTE = """
    INSERT INTO billing.stripe_dispute (dispute_id, session_id, amount_micros, state, opened_at)
    VALUES ($1, $2, $3, 'open', $4)
"""


class PostgresSessions:
    """What consumers may pay, paid, and took back."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, new: NewSession, *, now: datetime) -> Session:
        """Write a session down, or return the one of the same request.

        Raises:
            NotFoundError: No such account.
            ConflictError: The request came before with other contents, or an automatic top-up is
                on its way already.
        """

        async def work(connection: Connection) -> Any:
            await connection.execute(
                _ADD,
                new.session_id,
                new.account_id,
                new.request_id,
                new.kind.value,
                new.amount_micros,
                new.line_micros,
                now,
            )
            return await connection.fetchrow(
                "SELECT * FROM billing.stripe_session WHERE account_id = $1 AND request_id = $2",
                new.account_id,
                new.request_id,
            )

        row = await self._database.run(work)
        if row is None:
            known = await self._row(
                "SELECT true AS known FROM billing.account WHERE account_id = $1", new.account_id
            )
            if known is None:
                raise NotFoundError("no such account")
            raise ConflictError("an automatic top-up is on its way")
        found = _session(row)
        same = (found.new.kind, found.new.amount_micros) == (new.kind, new.amount_micros)
        if not same:
            raise ConflictError("the same request id came before with another deposit")
        return found

    async def opened(self, session_id: str, external_id: str, url: str) -> None:
        """Note what Stripe calls a session; the first name stays."""
        await self._row(_OPENED, session_id, external_id, url)

    async def find(self, name: str) -> Session | None:
        """Return a session by our id, or Stripe's."""
        row = await self._row(
            "SELECT * FROM billing.stripe_session WHERE session_id = $1 OR external_id = $1", name
        )
        return None if row is None else _session(row)

    async def of_charge(self, charge_id: str) -> Session | None:
        """Return the session that a charge paid."""
        row = await self._row(
            "SELECT * FROM billing.stripe_session WHERE charge_id = $1", charge_id
        )
        return None if row is None else _session(row)

    async def move(self, session_id: str, status: SessionStatus) -> None:
        """Note how far a session is, unless it has ended."""
        await self._row(_MOVE, session_id, status.value)

    def completing(self, session_id: str, payment: Payment, *, now: datetime) -> Also:
        """Return what notes, in the transaction of the deposit, that a session was paid."""

        async def also(connection: Connection) -> None:
            await connection.execute(
                _COMPLETE, session_id, payment.payment_intent, payment.charge_id, now
            )

        return also

    async def set_up(self, session_id: str, *, now: datetime) -> None:
        """Note that a card set-up is complete."""
        await self._row(_COMPLETE, session_id, None, None, now)

    async def dispute_state(self, dispute_id: str) -> DisputeState | None:
        """Return how far a dispute is booked."""
        row = await self._row(
            "SELECT state FROM billing.stripe_dispute WHERE dispute_id = $1", dispute_id
        )
        return None if row is None else DisputeState(row["state"])

    def opening_dispute(
        self, dispute_id: str, session_id: str, amount_micros: int, *, now: datetime
    ) -> Also:
        """Return what notes an opened dispute in the transaction of its booking."""

        async def also(connection: Connection) -> None:
            await connection.execute(_DISPUTE, dispute_id, session_id, amount_micros, now)

        return also

    def closing_dispute(self, dispute_id: str, state: DisputeState, *, now: datetime) -> Also:
        """Return what notes a decided dispute in the transaction of its booking."""

        async def also(connection: Connection) -> None:
            await connection.execute(
                "UPDATE billing.stripe_dispute SET state = $2, closed_at = $3 "
                "WHERE dispute_id = $1",
                dispute_id,
                state.value,
                now,
            )

        return also

    async def customer(self, account_id: str) -> SavedCard | None:
        """Return the customer of an account, and its saved card."""
        row = await self._row(
            "SELECT * FROM billing.stripe_customer WHERE account_id = $1", account_id
        )
        if row is None:
            return None
        return SavedCard(
            customer_id=row["customer_id"],
            payment_method=row["payment_method"] or "",
            brand=row["card_brand"],
            last4=row["card_last4"],
        )

    async def add_customer(self, account_id: str, customer_id: str, *, now: datetime) -> None:
        """Note the customer of an account; the first stays."""
        await self._row(_CUSTOMER, account_id, customer_id, now)

    async def save_card(self, account_id: str, card: Card | None) -> None:
        """Note the card that may be charged; None: no card."""
        known = (card.payment_method, card.brand, card.last4) if card else (None, "", "")
        await self._row(_SAVE_CARD, account_id, *known)

    async def top_up(self, account_id: str) -> AutoTopUp | None:
        """Return the automatic top-up of an account."""
        row = await self._row("SELECT * FROM billing.auto_top_up WHERE account_id = $1", account_id)
        if row is None:
            return None
        return AutoTopUp(
            enabled=row["enabled"],
            threshold_micros=row["threshold_micros"],
            amount_micros=row["amount_micros"],
            monthly_cap_micros=row["monthly_cap_micros"],
            disabled_reason=row["disabled_reason"],
        )

    async def set_top_up(self, account_id: str, wanted: AutoTopUp, *, now: datetime) -> None:
        """Set the automatic top-up of an account."""
        await self._row(
            _TOP_UP,
            account_id,
            wanted.enabled,
            wanted.threshold_micros,
            wanted.amount_micros,
            wanted.monthly_cap_micros,
            wanted.disabled_reason,
            now,
        )

    async def disable_top_up(self, account_id: str, reason: str, *, now: datetime) -> None:
        """Switch automatic top-up off and say why."""
        await self._row(_DISABLE, account_id, reason, now)

    async def month_micros(self, account_id: str, since: datetime) -> int:
        """Return what automatic top-ups made or are making since a time."""
        return int((await self._row(_MONTH, account_id, since))["micros"])

    async def low(self, limit: int, *, month: datetime) -> list[str]:
        """Return accounts that should be topped up now; `month` is when the present one began."""
        return [row["account_id"] for row in await self._rows(_LOW, limit, month)]

    async def open_auto(self, before: datetime, limit: int) -> list[Session]:
        """Return automatic top-ups whose fate is open."""
        return [_session(row) for row in await self._rows(_OPEN_AUTO, before, limit)]

    async def left_open(self, before: datetime, after: datetime, limit: int) -> list[Session]:
        """Return sessions of pages that were opened between two times and have no end here."""
        return [_session(row) for row in await self._rows(_LEFT_OPEN, before, after, limit)]

    async def _row(self, statement: str, *arguments: object) -> Any:
        rows = await self._rows(statement, *arguments)
        return rows[0] if rows else None

    async def _rows(self, statement: str, *arguments: object) -> Sequence[Any]:
        async def work(connection: Connection) -> Sequence[Any]:
            return await connection.fetch(statement, *arguments)

        return await self._database.run(work)


def _session(row: Any) -> Session:
    return Session(
        new=NewSession(
            session_id=row["session_id"],
            account_id=row["account_id"],
            request_id=row["request_id"],
            kind=SessionKind(row["kind"]),
            amount_micros=row["amount_micros"],
            line_micros=row["line_micros"],
        ),
        external_id=row["external_id"] or "",
        url=row["url"],
        status=SessionStatus(row["status"]),
        payment_intent=row["payment_intent"] or "",
        charge_id=row["charge_id"] or "",
        created_at=row["created_at"],
        completed_at=row["completed_at"],
    )
