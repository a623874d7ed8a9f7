"""Referrals in PostgreSQL: codes, who brought whom, what counted and what was paid."""

from datetime import datetime
from typing import Any

from darkbloom_mesh.errors import ConflictError, NotFoundError, StoreUnavailableError

from darkbloom_billing.programmes.errors import ProgrammeRefusedError, Refusal
from darkbloom_billing.programmes.model import Paid, ReferralView, Reward, Spend
from darkbloom_billing.programmes.rewards import month_of
from darkbloom_billing.store.database import Connection, Database

_REGISTER = """
    INSERT INTO billing.referral_code (code, account_id, created_at)
    VALUES ($1, $2, $3) ON CONFLICT DO NOTHING
"""
_APPLY = """
    INSERT INTO billing.referral (account_id, referrer_id, code, applied_at)
    VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING
"""
_VIEW = """
    SELECT
      coalesce((SELECT code FROM billing.referral_code WHERE account_id = $1), '') AS code,
      coalesce((SELECT code FROM billing.referral WHERE account_id = $1), '') AS referred_by,
      (SELECT count(*) FROM billing.referral WHERE referrer_id = $1) AS referred_count,
      coalesce(sum(p.qualifying_micros), 0)::bigint AS qualifying,
      coalesce(sum(p.paid_micros), 0)::bigint AS reward,
      coalesce(sum(b.amount_micros - b.lost_micros) FILTER (WHERE b.matured_at IS NULL), 0)::bigint
        AS maturing,
      min(b.matures_at) FILTER (WHERE b.matured_at IS NULL) AS next_at
    FROM billing.referral_payout p LEFT JOIN billing.bonus b USING (bonus_id)
    WHERE p.referrer_id = $1
"""
# A closed account earns nothing; an hour that a referrer was paid for is not paid twice.
_SPENDS = """
    SELECT u.request_id, r.referrer_id, u.account_id AS payer_id, e.account_id AS payee_id,
      sum(t.amount)::bigint AS purchased,
      billing.related(u.account_id, e.account_id) OR billing.related(r.referrer_id, e.account_id)
        OR billing.related(r.referrer_id, u.account_id) AS linked
    FROM billing.usage u
    JOIN billing.referral r ON r.account_id = u.account_id AND r.applied_at <= u.settled_at
    JOIN billing.earning e ON e.request_id = u.request_id
    JOIN ledger.event v ON v.idem_key = 'resolve:' || u.request_id
    JOIN ledger.transfer t ON t.event_id = v.id AND t.mode = 'post' AND t.unit = 'uUSD'
      AND t.debit_class = 'user_credit'
    WHERE u.settled_at >= $1 AND u.settled_at < $2 AND u.charge_micros > 0
      AND NOT EXISTS (SELECT FROM billing.referral_payout p
        WHERE p.referrer_id = r.referrer_id AND p.hour = $1)
      AND NOT EXISTS (SELECT FROM billing.account x
        WHERE x.account_id = r.referrer_id AND x.closing_at IS NOT NULL)
    GROUP BY u.request_id, r.referrer_id, u.account_id, e.account_id
    ORDER BY r.referrer_id, u.request_id
"""
_PAID = """
    SELECT coalesce(sum(paid_micros), 0)::bigint AS month,
      coalesce(sum(paid_micros) FILTER (WHERE referrer_id = $2), 0)::bigint AS referrer
    FROM billing.referral_payout WHERE hour >= $1
"""
_WRITE = """
    INSERT INTO billing.referral_payout (referrer_id, hour, requests, qualifying_micros,
      earned_micros, paid_micros, bonus_id, paid_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING
"""


class PostgresReferrals:
    """Who brought whom, and what that brought."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def register(self, account_id: str, code: str, *, now: datetime) -> str:
        """Give an account its code; return the one that it has.

        Raises:
            ProgrammeRefusedError: Another account has the code.
        """

        async def work(connection: Connection) -> Any:
            await connection.execute(_REGISTER, code, account_id, now)
            return await connection.fetchval(
                "SELECT code FROM billing.referral_code WHERE account_id = $1", account_id
            )

        kept = await self._database.run(work)
        if kept is None:
            raise ProgrammeRefusedError(Refusal.CODE_TAKEN)
        return str(kept)

    async def apply(self, account_id: str, code: str, *, now: datetime) -> None:
        """Name the referrer of an account.

        Raises:
            NotFoundError: No such code.
            ProgrammeRefusedError: It is its own, or there is another referrer.
        """

        async def work(connection: Connection) -> tuple[Any, Any]:
            referrer = await connection.fetchval(
                "SELECT account_id FROM billing.referral_code WHERE code = $1", code
            )
            if referrer is None or referrer == account_id:
                return referrer, None
            await connection.execute(_APPLY, account_id, referrer, code, now)
            kept = await connection.fetchval(
                "SELECT referrer_id FROM billing.referral WHERE account_id = $1", account_id
            )
            return referrer, kept

        referrer, kept = await self._database.run(work)
        if referrer is None:
            raise NotFoundError("no such referral code")
        if referrer == account_id:
            raise ProgrammeRefusedError(Refusal.SELF_REFERRAL)
        if kept != referrer:
            raise ProgrammeRefusedError(Refusal.REFERRER_FIXED)

    async def view(self, account_id: str) -> ReferralView:
        """Return an account's side of the programme."""

        async def work(connection: Connection) -> Any:
            return await connection.fetchrow(_VIEW, account_id)

        row = await self._database.run(work)
        return ReferralView(
            code=row["code"],
            referred_by=row["referred_by"],
            referred_count=row["referred_count"],
            qualifying_micros=row["qualifying"],
            reward_micros=row["reward"],
            maturing_micros=row["maturing"],
            next_mature_at=row["next_at"],
        )

    async def next_hour(self, first: datetime) -> datetime:
        """Return the first hour that is not paid; the programme begins with `first`."""

        async def work(connection: Connection) -> Any:
            await connection.execute(
                "INSERT INTO billing.referral_progress (next_hour) VALUES ($1) "
                "ON CONFLICT DO NOTHING",
                first,
            )
            return await connection.fetchval("SELECT next_hour FROM billing.referral_progress")

        found: datetime = await self._database.run(work)
        return found

    async def advance(self, to: datetime) -> None:
        """Remember that every hour before this one is paid; never goes back."""

        async def work(connection: Connection) -> None:
            await connection.execute(
                "UPDATE billing.referral_progress SET next_hour = $1 WHERE next_hour < $1", to
            )

        await self._database.run(work)

    async def spends(self, hour: datetime, end: datetime) -> list[Spend]:
        """Return what referred accounts spent in an hour, by referrer, unless that is paid."""

        async def work(connection: Connection) -> list[Any]:
            return await connection.fetch(_SPENDS, hour, end)

        return [
            Spend(
                request_id=row["request_id"],
                referrer_id=row["referrer_id"],
                payer_id=row["payer_id"],
                payee_id=row["payee_id"],
                purchased_micros=row["purchased"],
                linked=row["linked"],
            )
            for row in await self._database.run(work)
        ]

    async def paid(self, month: datetime, referrer_id: str) -> Paid:
        """Return what was paid for hours of this month."""

        async def work(connection: Connection) -> Paid:
            return await _paid(connection, month, referrer_id)

        return await self._database.run(work)

    async def write(
        self, referrer_id: str, hour: datetime, reward: Reward, *, paid: Paid, now: datetime
    ) -> None:
        """Keep an hour that a cap or an empty budget has left without pay."""

        async def work(connection: Connection) -> None:
            async with connection.transaction():
                await write_payout(connection, referrer_id, hour, reward, None, paid=paid, now=now)

        await self._database.run(work)


async def _paid(connection: Connection, month: datetime, referrer_id: str) -> Paid:
    row = await connection.fetchrow(_PAID, month, referrer_id)
    if row is None:
        raise StoreUnavailableError("database does not answer")
    return Paid(month_micros=row["month"], referrer_micros=row["referrer"])


async def write_payout(
    connection: Connection,
    referrer_id: str,
    hour: datetime,
    reward: Reward,
    bonus_id: str | None,
    *,
    paid: Paid,
    now: datetime,
) -> None:
    """Keep what an hour brought, inside the transaction that pays it.

    Raises:
        ConflictError: Another replica has paid since `paid` was read, so a cap may be passed.
    """
    await connection.execute("SELECT FROM billing.referral_progress FOR UPDATE")
    if await _paid(connection, month_of(hour), referrer_id) != paid:
        raise ConflictError("another replica pays")
    await connection.execute(
        _WRITE,
        referrer_id,
        hour,
        reward.requests,
        reward.qualifying_micros,
        reward.earned_micros,
        reward.paid_micros,
        bonus_id,
        now,
    )
