"""The auditor: reads the ledger in one snapshot and names everything that cannot be true.

It trusts no trigger, constraint or total: everything is recomputed from the transfers. Violations
mean that the books are broken, and stop withdrawals until a whole audit finds none; findings are
things that somebody should look at.
"""

import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from darkbloom_billing.audit.blocks import Sealed, check_blocks
from darkbloom_billing.audit.checks import CHECKS, FULL_CHECKS, ROUND_CHECKS
from darkbloom_billing.audit.findings import findings, sizes
from darkbloom_billing.audit.report import Report, Violation
from darkbloom_billing.store.database import Connection, Database

_EXAMPLES = 20
_LONG_S = 3600.0
# Events are numbered before they commit; none takes this long.
_OVERLAP = timedelta(minutes=1)
_IMBALANCE = """
    SELECT coalesce(sum(abs(d)), 0)::bigint FROM (
      SELECT sum(dr) - sum(cr) AS d FROM ledger.account GROUP BY unit) s
"""
_STATE = "SELECT last_event, last_block, violations FROM billing.audit_state"
_TOTALS = "SELECT id, version, dr, cr, dr_pend, cr_pend FROM ledger.account"
_CHANGED = "SELECT id, version, dr, cr, dr_pend, cr_pend FROM billing.changed_accounts"
_NEWEST = """
    SELECT coalesce(max(id), 0) FROM ledger.event WHERE created_at < now() - interval '1 minute'
"""
_MARK = """
    INSERT INTO billing.audit_mark AS m
    SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[],
      $6::bigint[])
    ON CONFLICT (account_id) DO UPDATE SET version = excluded.version, dr = excluded.dr,
      cr = excluded.cr, dr_pend = excluded.dr_pend, cr_pend = excluded.cr_pend
    WHERE m.version < excluded.version
"""
_REMEMBER = """
    UPDATE billing.audit_state SET violations = $1::jsonb, checked_at = $2,
      full_at = CASE WHEN $3 THEN $2 ELSE full_at END,
      last_event = greatest(last_event, $4), last_block = greatest(last_block, $5)
"""


async def audit(
    database: Database,
    *,
    now: datetime,
    receipts_due: datetime,
    exported: Mapping[int, str] | None = None,
) -> Report:
    """Check everything in one snapshot; change nothing.

    Args:
        database: Where the ledger is.
        now: Against which leases are judged.
        receipts_due: Settlements before this should have their receipt.
        exported: Copied heads of the sealed chain: hash (hex) by height.

    Raises:
        StoreUnavailableError: The store does not answer.
    """

    async def work(connection: Connection) -> Report:
        async with _Snapshot(connection):
            return await _whole(connection, now, receipts_due, exported or {})

    return await database.run(work)


async def audit_here(connection: Connection, *, now: datetime, receipts_due: datetime) -> Report:
    """Check everything inside a transaction that somebody else has begun; change nothing."""
    return await _whole(connection, now, receipts_due, {})


class Auditor:
    """Audits and remembers: withdrawals ask what it found last."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def full(
        self, *, now: datetime, receipts_due: datetime, exported: Mapping[int, str] | None = None
    ) -> Report:
        """Check everything, as `audit`; only this closes violations that were found before."""

        async def look(connection: Connection) -> tuple[Report, list[Any]]:
            async with _Snapshot(connection):
                report = await _whole(connection, now, receipts_due, exported or {})
                return report, await connection.fetch(_TOTALS, timeout=_LONG_S)

        report, totals = await self._database.run(look)

        async def remember(connection: Connection) -> None:
            async with connection.transaction():
                if not report.violations:
                    await connection.execute("DELETE FROM billing.audit_mark")
                    await connection.execute(_MARK, *zip(*totals, strict=True))
                await connection.execute(_REMEMBER, _text(report.violations), now, True, 0, 0)

        await self._database.run(remember)
        return report

    async def round(self, *, now: datetime) -> tuple[Violation, ...]:
        """Check what moved since the last round; return every violation that is open.

        Raises:
            StoreUnavailableError: The store does not answer.
        """

        async def look(connection: Connection) -> "_Round":
            async with _Snapshot(connection):
                state: Any = await connection.fetchrow(_STATE)
                found = await _violations(
                    connection, {**CHECKS, **ROUND_CHECKS}, now, since=state["last_event"]
                )
                blocks = await check_blocks(connection, after=state["last_block"])
                return _Round(
                    known=_violations_of(state["violations"]),
                    found=(*found, *blocks.violations),
                    blocks=blocks,
                    changed=await connection.fetch(_CHANGED, timeout=_LONG_S),
                    newest=await connection.fetchval(_NEWEST),
                )

        seen = await self._database.run(look)
        opened = tuple(dict.fromkeys((*seen.known, *seen.found)))

        async def remember(connection: Connection) -> None:
            async with connection.transaction():
                sound = not seen.found
                if sound and seen.changed:
                    await connection.execute(_MARK, *zip(*seen.changed, strict=True))
                await connection.execute(
                    _REMEMBER,
                    _text(opened),
                    now,
                    False,
                    seen.newest if sound else 0,
                    seen.blocks.height if sound else 0,
                )

        await self._database.run(remember)
        return opened


async def imbalance(database: Database) -> int:
    """Return by how many micros debits and credits differ, over all units; cheap."""

    async def work(connection: Connection) -> int:
        return int(await connection.fetchval(_IMBALANCE))

    return await database.run(work)


class _Round:
    """What one round saw in its snapshot."""

    def __init__(
        self,
        *,
        known: tuple[Violation, ...],
        found: tuple[Violation, ...],
        blocks: Sealed,
        changed: list[Any],
        newest: int,
    ) -> None:
        self.known = known
        self.found = found
        self.blocks = blocks
        self.changed = changed
        self.newest = newest


class _Snapshot:
    """One consistent view of everything, however long the reading takes."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._transaction = connection.transaction(isolation="repeatable_read", readonly=True)

    async def __aenter__(self) -> None:
        await self._transaction.start()
        await self._connection.execute("SET LOCAL statement_timeout = 0")
        await self._connection.execute("SET LOCAL transaction_timeout = 0")

    async def __aexit__(self, kind: object, *_: object) -> None:
        if kind is None:
            await self._transaction.commit()
            return
        await self._transaction.rollback()


async def _whole(
    connection: Connection, now: datetime, receipts_due: datetime, exported: Mapping[int, str]
) -> Report:
    found = await _violations(connection, {**CHECKS, **FULL_CHECKS}, now, since=0)
    blocks = await check_blocks(connection, exported=exported)
    return Report(
        violations=(*found, *blocks.violations),
        findings=await findings(connection, receipts_due=receipts_due),
        counts=await sizes(connection, now=now),
    )


async def _violations(
    connection: Connection, checks: Mapping[str, str], now: datetime, *, since: int
) -> tuple[Violation, ...]:
    moment = await connection.fetchval("SELECT created_at FROM ledger.event WHERE id = $1", since)
    # Rows beside the ledger carry the time of the service, not that of the database.
    floor = "'-infinity'" if moment is None else f"'{(moment - _OVERLAP).isoformat()}'"
    found: list[Violation] = []
    for name, query in checks.items():
        text = query.replace("@since", str(since)).replace("@moment", f"{floor}::timestamptz")
        arguments = (now,) if "$1" in text else ()
        rows = await connection.fetch(text, *arguments, timeout=_LONG_S)
        found += [Violation(check=name, what=str(row[0])) for row in rows[:_EXAMPLES]]
    return tuple(found)


def _text(violations: tuple[Violation, ...]) -> str:
    return json.dumps([[violation.check, violation.what] for violation in violations])


def _violations_of(text: str) -> tuple[Violation, ...]:
    return tuple(Violation(check=check, what=what) for check, what in json.loads(text))
