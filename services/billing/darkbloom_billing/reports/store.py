"""Histories, roll-ups and public names in PostgreSQL."""

from collections.abc import Mapping
from datetime import date, datetime, timedelta
from typing import Any

from darkbloom_mesh.errors import NotFoundError

from darkbloom_billing.model import Cursor, UsageRow
from darkbloom_billing.reports import rows
from darkbloom_billing.reports.errors import NameTakenError
from darkbloom_billing.reports.model import (
    DayWork,
    Dossier,
    HistoryFilter,
    MachineEarning,
    MachineWork,
    Movement,
    Summary,
    Wallets,
    Work,
)
from darkbloom_billing.reports.rollups import whole_hour
from darkbloom_billing.store.database import Connection, Database

WALLETS = ("promo", "credit", "earned", "maturing", "disputed", "debt")
_USAGE = """
    FROM billing.usage WHERE account_id = $1
      AND settled_at >= coalesce($2::timestamptz, '-infinity')
      AND settled_at < coalesce($3::timestamptz, 'infinity')
      AND ($4 = '' OR key_id = $4) AND ($5 = '' OR model = $5 OR build = $5)
"""
_EARNINGS = """
    FROM billing.earning e WHERE account_id = $1
      AND settled_at >= coalesce($2::timestamptz, '-infinity')
      AND settled_at < coalesce($3::timestamptz, 'infinity')
      AND ($4 = ''::bytea OR identity_key = $4) AND ($5 = '' OR build = $5)
"""
_PAGE = """
    AND ($7::timestamptz IS NULL OR (settled_at, request_id) < ($7, $8))
    ORDER BY settled_at DESC, request_id DESC LIMIT $6
"""
_COUNT = "SELECT count(*) FROM (SELECT {} LIMIT $6) AS found"
_MACHINE = """
    coalesce((SELECT l.name FROM billing.provider_link l
      WHERE l.identity_key = e.identity_key AND l.account_id = e.account_id), '') AS machine
"""
# Each wallet alone along its key, then merged: the cost is that of one page, however deep it lies.
_MOVEMENTS = """
    SELECT w.wallet, p.version, p.transfer_id, p.side = 'D' AS debit, t.mode, t.code,
      t.debit_class, t.credit_class, t.amount, coalesce(r.amount, 0) AS pending_amount,
      p.dr, p.cr, p.dr_pend, p.cr_pend, e.idem_key, e.kind, e.occurred_at
    FROM unnest($1::text[], $2::text[], $3::bigint[]) AS w (wallet, path, below)
    JOIN ledger.account a ON a.path = w.path
    CROSS JOIN LATERAL (
      SELECT * FROM ledger.posting q WHERE q.account_id = a.id AND q.version < w.below
      ORDER BY q.version DESC LIMIT $4) AS p
    JOIN ledger.transfer t ON t.id = p.transfer_id
    LEFT JOIN ledger.transfer r ON r.id = t.pending_id
    JOIN ledger.event e ON e.id = t.event_id
    ORDER BY p.transfer_id DESC, a.id LIMIT $4
"""
_SINCE = """
    SELECT sum(work_micros)::bigint AS work, sum(reward_micros)::bigint AS reward,
      sum(prompt_tokens)::bigint AS prompt, sum(completion_tokens)::bigint AS completion,
      sum(jobs)::bigint AS jobs
    FROM billing.work_hour WHERE account_id = $1 AND hour >= $2
"""
_MACHINES = """
    SELECT coalesce(l.identity_key, w.identity_key) AS identity_key, coalesce(l.name, '') AS name,
      l.linked_at, w.work_micros AS work, w.reward_micros AS reward, w.prompt_tokens AS prompt,
      w.completion_tokens AS completion, w.jobs
    FROM (SELECT * FROM billing.work_life WHERE account_id = $1) AS w
    FULL JOIN (SELECT * FROM billing.provider_link WHERE account_id = $1) AS l
      ON l.identity_key = w.identity_key
    ORDER BY 1 LIMIT 10000
"""
_DAYS = """
    SELECT day, build, identity_key, work_micros AS work, reward_micros AS reward,
      prompt_tokens AS prompt, completion_tokens AS completion, jobs
    FROM billing.work_day WHERE account_id = $1 AND day >= $2
      AND ($3 = ''::bytea OR identity_key = $3)
    ORDER BY day DESC, build, identity_key LIMIT $4
"""
_KEYS = """
    SELECT key_id, name, label, revoked_at IS NOT NULL AS revoked, created_at
    FROM billing.api_key WHERE account_id = $1 ORDER BY created_at, key_id LIMIT 10000
"""
_SET_NAME = """
    INSERT INTO billing.public_name VALUES ($1, $2, $3, $4)
    ON CONFLICT (account_id) DO UPDATE
      SET name = EXCLUDED.name, folded = EXCLUDED.folded, changed_at = EXCLUDED.changed_at
"""
_NEWEST = 2**63 - 1


class PostgresReports:
    """Reads of one account, and its public name."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def wallets(self, account_id: str) -> Wallets | None:
        """Return what an account has; None: no such account."""
        found = await self._rows("SELECT * FROM billing.wallets($1)", account_id)
        return rows.wallets(found[0]) if found else None

    async def usage(
        self, account_id: str, wanted: HistoryFilter, *, limit: int, after: Cursor | None
    ) -> list[UsageRow]:
        """Return charged requests, newest first."""
        found = await self._rows(
            f"SELECT * {_USAGE} {_PAGE}", *_usage_filter(account_id, wanted), limit, *_place(after)
        )
        return [rows.usage(row) for row in found]

    async def usage_count(self, account_id: str, wanted: HistoryFilter, *, limit: int) -> int:
        """Return how many there are, at most `limit`."""
        found = await self._rows(_COUNT.format(_USAGE), *_usage_filter(account_id, wanted), limit)
        return int(found[0][0])

    async def earnings(
        self, account_id: str, wanted: HistoryFilter, *, limit: int, after: Cursor | None
    ) -> list[MachineEarning]:
        """Return paid requests, newest first."""
        found = await self._rows(
            f"SELECT e.*, {_MACHINE} {_EARNINGS} {_PAGE}",
            *_earnings_filter(account_id, wanted),
            limit,
            *_place(after),
        )
        return [rows.earning(row) for row in found]

    async def earnings_count(self, account_id: str, wanted: HistoryFilter, *, limit: int) -> int:
        """Return how many there are, at most `limit`."""
        statement = _COUNT.format(_EARNINGS)
        found = await self._rows(statement, *_earnings_filter(account_id, wanted), limit)
        return int(found[0][0])

    async def movements(
        self, account_id: str, *, limit: int, below: Mapping[str, int]
    ) -> list[Movement]:
        """Return postings of all wallets, newest first."""
        found = await self._rows(
            _MOVEMENTS,
            list(WALLETS),
            [f"user:{account_id}:{wallet}" for wallet in WALLETS],
            [below.get(wallet, _NEWEST) for wallet in WALLETS],
            limit,
        )
        return [rows.movement(row) for row in found]

    async def summary(self, account_id: str, *, now: datetime) -> Summary:
        """Return the sums of an account; windows begin with the hour."""

        async def work(connection: Connection) -> tuple[Any, Any, list[Any]]:
            day = await connection.fetchrow(_SINCE, account_id, whole_hour(now - timedelta(days=1)))
            week = await connection.fetchrow(
                _SINCE, account_id, whole_hour(now - timedelta(days=7))
            )
            return day, week, await connection.fetch(_MACHINES, account_id)

        day, week, found = await self._database.run(work)
        machines = [rows.machine(row) for row in found]
        return Summary(
            lifetime=sum((machine.work for machine in machines), Work()),
            last_24h=rows.work(day),
            last_7d=rows.work(week),
            machines=tuple(machine for machine in machines if machine.identity_key),
        )

    async def days(
        self, account_id: str, *, since: date, identity_key: bytes, limit: int
    ) -> list[DayWork]:
        """Return work by day, newest first."""
        found = await self._rows(_DAYS, account_id, since, identity_key, limit)
        return [
            DayWork(
                day=row["day"],
                build=row["build"],
                identity_key=row["identity_key"],
                work=rows.work(row),
            )
            for row in found
        ]

    async def dossier(self, account_id: str) -> Dossier | None:
        """Return facts of an account; None: no such account."""

        async def work(connection: Connection) -> tuple[Any, list[Any], list[Any]]:
            account = await connection.fetchrow(
                "SELECT * FROM billing.account WHERE account_id = $1", account_id
            )
            keys = await connection.fetch(_KEYS, account_id)
            return account, keys, await connection.fetch(_MACHINES, account_id)

        account, keys, machines = await self._database.run(work)
        if account is None:
            return None
        linked: list[MachineWork] = [rows.machine(row) for row in machines]
        return Dossier(
            account_id=account_id,
            display_name=account["display_name"],
            role=account["role"],
            created_at=account["created_at"],
            keys=tuple(rows.key(row) for row in keys),
            machines=tuple(machine for machine in linked if machine.linked_at is not None),
        )

    async def public_name(self, account_id: str) -> tuple[bool, str]:
        """Return (hidden, chosen name or empty)."""
        found = await self._rows(
            "SELECT name FROM billing.public_name WHERE account_id = $1", account_id
        )
        return (found[0]["name"] is None, found[0]["name"] or "") if found else (False, "")

    async def set_public_name(
        self, account_id: str, name: str | None, folded: str | None, *, now: datetime
    ) -> None:
        """Choose a name, or None to be on no board.

        Raises:
            NotFoundError: No such account.
            NameTakenError: Another account has the name.
        """

        async def work(connection: Connection) -> str:
            async with connection.transaction():
                if not await connection.fetchval(
                    "SELECT true FROM billing.account WHERE account_id = $1", account_id
                ):
                    return "unknown"
                # One at a time: the unique index would answer the second one with an exception.
                await connection.execute(
                    "SELECT pg_advisory_xact_lock(hashtextextended('billing.public_name', 0))"
                )
                if folded is not None and await connection.fetchval(
                    "SELECT true FROM billing.public_name WHERE folded = $1 AND account_id <> $2",
                    folded,
                    account_id,
                ):
                    return "taken"
                await connection.execute(_SET_NAME, account_id, name, folded, now)
                return "set"

        outcome = await self._database.run(work)
        if outcome == "unknown":
            raise NotFoundError("no such account")
        if outcome == "taken":
            raise NameTakenError("another account has this name")

    async def forget_public_name(self, account_id: str) -> None:
        """Go back to the pseudonym."""
        await self._rows("DELETE FROM billing.public_name WHERE account_id = $1", account_id)

    async def _rows(self, statement: str, *arguments: object) -> list[Any]:
        async def work(connection: Connection) -> list[Any]:
            return await connection.fetch(statement, *arguments)

        return await self._database.run(work)


def _usage_filter(account_id: str, wanted: HistoryFilter) -> tuple[object, ...]:
    return account_id, wanted.since, wanted.until, wanted.key_id, wanted.model


def _earnings_filter(account_id: str, wanted: HistoryFilter) -> tuple[object, ...]:
    return account_id, wanted.since, wanted.until, wanted.identity_key, wanted.model


def _place(after: Cursor | None) -> tuple[object, object]:
    return (None, None) if after is None else (after.settled_at, after.request_id)
