"""Device codes in PostgreSQL. Each decision is one function, so one transaction under one lock."""

from datetime import datetime, timedelta
from typing import Any

from darkbloom_billing.identity.model import CodeState, Poll, TypedCode, Verdict
from darkbloom_billing.store.database import Connection, Database

MAX_OPEN_PER_SOURCE = 10
"""Codes that one network may have open."""
MAX_OPEN = 10_000
"""Codes that may be open at all."""
MAX_MISSES = 10
"""Typed codes that do not exist, per account and window."""
GUESS_WINDOW = timedelta(seconds=900)
KEPT = timedelta(hours=1)
_AT_ONCE = 1000
_PURGE_CODES = """
    DELETE FROM billing.device_code WHERE code_hash IN (
      SELECT code_hash FROM billing.device_code WHERE expires_at < $1 LIMIT $2) RETURNING 1
"""
_PURGE_CHALLENGES = """
    DELETE FROM billing.link_challenge WHERE nonce_hash IN (
      SELECT nonce_hash FROM billing.link_challenge WHERE expires_at < $1 LIMIT $2) RETURNING 1
"""
_PURGE_GUESSES = """
    DELETE FROM billing.device_guess WHERE account_id IN (
      SELECT account_id FROM billing.device_guess WHERE since < $1 LIMIT $2) RETURNING 1
"""
# A new report makes room for itself; where none comes, the old ones go by this.
_PURGE_REPORTS = """
    DELETE FROM billing.log_report WHERE report_id IN (
      SELECT report_id FROM billing.log_report WHERE expires_at < $1 LIMIT $2) RETURNING 1
"""
"""How long a code is remembered after its end."""
_OPEN = "SELECT billing.open_device_code($1, $2, $3, $4, $5, $6, $7, $8, $9)"
_POLL = "SELECT * FROM billing.poll_device_code($1, $2, $3, $4, $5)"
_JUDGE = "SELECT * FROM billing.judge_device_code($1, $2, $3, $4, $5, $6)"


class PostgresDevices:
    """Device logins under way."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def open_code(
        self,
        code_hash: bytes,
        user_code: str,
        machine_name: str,
        source: bytes,
        *,
        now: datetime,
        until: datetime,
        next_poll: datetime,
    ) -> str:
        """See `ports.DeviceStore`."""

        async def work(connection: Connection) -> Any:
            return await connection.fetchval(
                _OPEN,
                code_hash,
                user_code,
                machine_name,
                source,
                now,
                until,
                next_poll,
                MAX_OPEN_PER_SOURCE,
                MAX_OPEN,
            )

        return str(await self._database.run(work))

    async def poll(
        self,
        code_hash: bytes,
        token_id: str,
        token_hash: bytes,
        *,
        now: datetime,
        next_poll: datetime,
    ) -> Poll:
        """See `ports.DeviceStore`."""
        row = await self._row(_POLL, code_hash, now, next_poll, token_id, token_hash)
        if row is None:
            return Poll(verdict=Verdict.UNKNOWN)
        if row["state"] in ("expired", "early"):
            return Poll(verdict=Verdict(row["state"]), wait_until=row["wait_until"])
        return Poll(
            verdict=Verdict.KNOWN,
            state=CodeState(row["state"]),
            account_id=row["account_id"] or "",
        )

    async def judge(
        self, user_code: str, account_id: str, decision: CodeState | None, *, now: datetime
    ) -> TypedCode:
        """See `ports.DeviceStore`."""
        word = decision.value if decision else ""
        row = await self._row(
            _JUDGE, user_code, account_id, word, now, MAX_MISSES, now - GUESS_WINDOW
        )
        if row is None:
            return TypedCode(verdict=Verdict.UNKNOWN)
        return TypedCode(
            verdict=Verdict(row["verdict"]),
            machine_name=row["machine_name"] or "",
            state=CodeState(row["state"] or CodeState.PENDING),
            created_at=row["created_at"],
            expires_at=row["expires_at"],
        )

    async def purge(self, *, now: datetime) -> None:
        """See `ports.DeviceStore`."""
        for statement, before in (
            (_PURGE_CODES, now - KEPT),
            (_PURGE_CHALLENGES, now),
            (_PURGE_GUESSES, now - GUESS_WINDOW),
            (_PURGE_REPORTS, now),
        ):
            while len(await self._database.tidy(statement, before, _AT_ONCE)) == _AT_ONCE:
                continue

    async def _row(self, statement: str, *arguments: object) -> Any:
        async def work(connection: Connection) -> Any:
            return await connection.fetchrow(statement, *arguments)

        return await self._database.run(work)
