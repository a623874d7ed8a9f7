"""The auditor: reads the whole ledger in one snapshot and names everything that cannot be true.

It trusts no trigger, constraint or total: everything is recomputed from the transfers. Violations
mean that the books are broken; findings are things that somebody should look at.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from darkbloom_billing.store.database import Connection, Database

_EXAMPLES = 20

# Each yields one text per violation. $1 is now; no query needs more.
CHECKS: Mapping[str, str] = {
    "unit_unbalanced": """
      SELECT unit || ': debits ' || sum(dr) || ' credits ' || sum(cr) || ' pending debits '
        || sum(dr_pend) || ' pending credits ' || sum(cr_pend)
      FROM ledger.account GROUP BY unit
      HAVING sum(dr) <> sum(cr) OR sum(dr_pend) <> sum(cr_pend)
    """,
    "account_totals": """
      WITH total AS (
        SELECT account_id,
          sum(posted) FILTER (WHERE side = 'D') AS dr, sum(posted) FILTER (WHERE side = 'C') AS cr
        FROM ledger.effect GROUP BY account_id)
      SELECT a.path FROM ledger.account a LEFT JOIN total t ON t.account_id = a.id
      WHERE (a.dr, a.cr) <> (coalesce(t.dr, 0), coalesce(t.cr, 0))
    """,
    "account_pending": """
      WITH open AS (
        SELECT * FROM ledger.transfer t WHERE t.mode = 'pending'
          AND NOT EXISTS (SELECT FROM ledger.transfer r WHERE r.pending_id = t.id))
      SELECT a.path FROM ledger.account a
      WHERE a.dr_pend <> (SELECT coalesce(sum(amount), 0) FROM open WHERE debit_id = a.id)
         OR a.cr_pend <> (SELECT coalesce(sum(amount), 0) FROM open WHERE credit_id = a.id)
    """,
    "account_overdrawn": """
      SELECT path FROM ledger.account WHERE floor_zero AND CASE normal
        WHEN 'C' THEN dr + dr_pend > cr ELSE cr + cr_pend > dr END
    """,
    "clearing_not_empty": """
      SELECT path FROM ledger.account WHERE zero_at_commit AND dr <> cr
    """,
    "version_gap": """
      SELECT a.path FROM ledger.account a LEFT JOIN (
        SELECT account_id, count(*) AS n, min(version) AS low, max(version) AS high
        FROM ledger.posting GROUP BY account_id) p ON p.account_id = a.id
      WHERE a.version <> coalesce(p.n, 0) OR a.version <> coalesce(p.high, 0)
        OR coalesce(p.low, 1) <> 1
    """,
    "posting_history": """
      WITH told AS (
        SELECT p.*,
          coalesce(sum(e.posted) FILTER (WHERE e.side = 'D') OVER past, 0) AS dr_told,
          coalesce(sum(e.posted) FILTER (WHERE e.side = 'C') OVER past, 0) AS cr_told,
          coalesce(sum(e.pending) FILTER (WHERE e.side = 'D') OVER past, 0) AS dr_pend_told,
          coalesce(sum(e.pending) FILTER (WHERE e.side = 'C') OVER past, 0) AS cr_pend_told
        FROM ledger.posting p LEFT JOIN ledger.effect e
          ON (e.id, e.account_id, e.side) = (p.transfer_id, p.account_id, p.side)
        WINDOW past AS (PARTITION BY p.account_id ORDER BY p.version))
      SELECT DISTINCT 'account ' || account_id || ' from version ' || min(version)
        OVER (PARTITION BY account_id)
      FROM told
      WHERE (dr, cr, dr_pend, cr_pend) <> (dr_told, cr_told, dr_pend_told, cr_pend_told)
    """,
    "transfer_without_postings": """
      SELECT 'transfer ' || t.id FROM ledger.transfer t
      LEFT JOIN ledger.posting d
        ON (d.transfer_id, d.side, d.account_id) = (t.id, 'D'::"char", t.debit_id)
      LEFT JOIN ledger.posting c
        ON (c.transfer_id, c.side, c.account_id) = (t.id, 'C'::"char", t.credit_id)
      WHERE d.transfer_id IS NULL OR c.transfer_id IS NULL
    """,
    "transfer_off_rule": """
      SELECT 'transfer ' || t.id FROM ledger.transfer t
      LEFT JOIN ledger.rule r ON (r.code, r.debit_class, r.credit_class)
        = (t.code, t.debit_class, t.credit_class)
      LEFT JOIN ledger.account d ON (d.id, d.unit, d.class) = (t.debit_id, t.unit, t.debit_class)
      LEFT JOIN ledger.account c ON (c.id, c.unit, c.class) = (t.credit_id, t.unit, t.credit_class)
      WHERE r.code IS NULL OR d.id IS NULL OR c.id IS NULL OR t.amount <= 0
    """,
    "resolution_wrong": """
      SELECT 'transfer ' || t.id FROM ledger.transfer t
      LEFT JOIN ledger.transfer p ON p.id = t.pending_id
      WHERE t.mode IN ('post', 'void') AND (p.mode IS DISTINCT FROM 'pending'
        OR t.amount > p.amount OR (t.mode = 'void' AND t.amount <> p.amount)
        OR (t.debit_id, t.credit_id, t.unit) IS DISTINCT FROM (p.debit_id, p.credit_id, p.unit))
      UNION ALL
      SELECT 'pending transfer ' || pending_id || ' resolved twice' FROM ledger.transfer
      WHERE pending_id IS NOT NULL GROUP BY pending_id HAVING count(*) > 1
    """,
    "charge_not_paid_out": """
      SELECT e.idem_key FROM ledger.event e JOIN ledger.transfer t ON t.event_id = e.id
      WHERE t.unit = 'uUSD' AND (t.debit_class = 'user_charge' OR t.credit_class = 'user_charge')
        AND t.mode IN ('post', 'single')
      GROUP BY e.id, e.idem_key
      HAVING sum(CASE WHEN t.debit_class = 'user_charge' THEN -t.amount ELSE t.amount END) <> 0
    """,
    "event_empty": """
      SELECT e.idem_key FROM ledger.event e
      WHERE e.kind IN ('hold', 'settle', 'release', 'sweep', 'grant')
        AND NOT EXISTS (SELECT FROM ledger.transfer t WHERE t.event_id = e.id)
    """,
    "hold_half_resolved": """
      SELECT substr(e.idem_key, 6) FROM ledger.event e JOIN ledger.transfer t ON t.event_id = e.id
      WHERE e.kind IN ('hold', 'extend') AND t.mode = 'pending'
        AND EXISTS (SELECT FROM ledger.transfer r WHERE r.pending_id = t.id)
          <> EXISTS (SELECT FROM ledger.event r
            WHERE r.idem_key = 'resolve:' || split_part(e.idem_key, ':', 2))
    """,
    "hold_overdue": """
      SELECT request_id FROM billing.lease WHERE lease_until <= $1::timestamptz - interval '1 min'
    """,
    "hold_without_lease": """
      SELECT substr(e.idem_key, 6) FROM ledger.event e WHERE e.kind = 'hold'
        AND NOT EXISTS (SELECT FROM ledger.event r
          WHERE r.idem_key = 'resolve:' || substr(e.idem_key, 6))
        AND NOT EXISTS (SELECT FROM billing.lease l WHERE l.request_id = substr(e.idem_key, 6))
    """,
    "usage_differs": """
      WITH charged AS (
        SELECT substr(e.idem_key, 9) AS request_id, sum(t.amount) AS amount
        FROM ledger.event e JOIN ledger.transfer t ON t.event_id = e.id
        WHERE e.kind = 'settle' AND t.code = 'payout' GROUP BY 1)
      SELECT coalesce(c.request_id, u.request_id, n.request_id) FROM charged c
      FULL JOIN billing.usage u ON u.request_id = c.request_id
      FULL JOIN billing.earning n ON n.request_id = coalesce(c.request_id, u.request_id)
      WHERE coalesce(c.amount, 0) IS DISTINCT FROM u.charge_micros
        OR c.amount IS DISTINCT FROM n.amount_micros
    """,
    "accounts_do_not_add_up": """
      SELECT 'assets ' || assets || ' claims ' || claims FROM (
        SELECT coalesce(sum(dr - cr) FILTER (WHERE normal = 'D'), 0) AS assets,
               coalesce(sum(cr - dr) FILTER (WHERE normal = 'C'), 0) AS claims
        FROM ledger.account WHERE unit = 'uUSD') s WHERE assets <> claims
    """,
    "guard_missing": """
      SELECT w.name FROM (VALUES
        ('transfer', 'apply_transfer'), ('account', 'guard_account'), ('account', 'check_account'),
        ('account', 'no_delete'), ('event', 'append_only'), ('transfer', 'append_only'),
        ('posting', 'append_only'), ('event', 'no_truncate'), ('transfer', 'no_truncate'),
        ('posting', 'no_truncate')) AS w (tab, name)
      WHERE NOT EXISTS (SELECT FROM pg_trigger g WHERE g.tgname = w.name AND g.tgenabled = 'O'
        AND g.tgrelid = ('ledger.' || w.tab)::regclass)
    """,
}

_IMBALANCE = """
    SELECT coalesce(sum(abs(d)), 0)::bigint FROM (
      SELECT sum(dr) - sum(cr) AS d FROM ledger.account GROUP BY unit) s
"""
_RECEIPTS_MISSING = """
    SELECT count(*) FROM billing.usage u WHERE u.settled_at <= $1
      AND NOT EXISTS (SELECT FROM billing.receipt r WHERE r.request_id = u.request_id)
"""
# What the gateway has signed, beside what the router has handed in: the router is believed only up
# to it. A machine that served its own account is settled without usage.
_RECEIPTS = """
    WITH recorded AS (
      SELECT r.request_id, r.terminal_sha256, d ->> 'attempt_id' AS attempt_id,
        d ->> 'verdict_id' AS verdict_id, (d #>> '{opened,prompt_tokens}')::bigint AS prompt,
        (d #>> '{opened,completion_tokens}')::bigint AS completion,
        coalesce((d #>> '{opened,cached_tokens}')::bigint, 0) AS cached
      FROM billing.receipt r, LATERAL (SELECT convert_from(r.document, 'UTF8')::jsonb AS d) AS x)
    SELECT
      count(*) FILTER (WHERE u.attempt_id <> r.attempt_id OR e.body ->> 'verdict_id' <> r.verdict_id
        OR u.terminal_sha256 <> '' AND r.terminal_sha256 <> ''
          AND u.terminal_sha256 <> r.terminal_sha256) AS receipts_differ,
      count(*) FILTER (WHERE u.prompt_tokens > r.prompt OR u.completion_tokens > r.completion
        OR u.cached_tokens < least(r.cached, u.prompt_tokens)) AS receipts_exceeded,
      count(*) FILTER (WHERE r.completion > 0 AND CASE WHEN u.request_id IS NULL
        THEN e.kind <> 'settle' ELSE u.completion_tokens < r.completion END) AS receipts_unpaid
    FROM recorded r
    JOIN ledger.event e ON e.idem_key = 'resolve:' || r.request_id
    LEFT JOIN billing.usage u USING (request_id)
"""
_COUNTS = """
    SELECT (SELECT count(*) FROM ledger.event) AS events,
      (SELECT count(*) FROM ledger.transfer) AS transfers,
      (SELECT count(*) FROM ledger.account) AS accounts,
      (SELECT count(*) FROM billing.lease) AS open_holds
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """One thing that cannot be true in sound books."""

    check: str
    """Name of the check."""
    what: str
    """Account, transfer, event or request that it is about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What the auditor found."""

    violations: tuple[Violation, ...]
    """At most 20 of each check."""
    findings: Mapping[str, int]
    """To look at, by the gateway's own records: settlements without one (`receipts_missing`), of
    another attempt, verdict or terminal (`receipts_differ`), above what was opened
    (`receipts_exceeded`), and opened answers that were paid in part or not (`receipts_unpaid`).
    """
    counts: Mapping[str, int]
    """Size of what was read: `events`, `transfers`, `accounts`, `open_holds`."""

    def body(self) -> dict[str, Any]:
        """Return the report as JSON values; `ledger_violations` is their number."""
        return {
            "ledger_violations": len(self.violations),
            "violations": [{"check": v.check, "what": v.what} for v in self.violations],
            "findings": dict(self.findings),
            "counts": dict(self.counts),
        }


async def audit(database: Database, *, now: datetime, receipts_due: datetime) -> Report:
    """Check everything in one snapshot.

    Args:
        database: Where the ledger is.
        now: Against which leases are judged.
        receipts_due: Settlements before this should have their receipt.

    Raises:
        StoreUnavailableError: The store does not answer.
    """

    async def work(connection: Connection) -> Report:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            await connection.execute("SET LOCAL statement_timeout = 0")
            violations = [
                Violation(check=name, what=str(row[0]))
                for name, query in CHECKS.items()
                for row in (await _rows(connection, query, now))[:_EXAMPLES]
            ]
            counts = await connection.fetchrow(_COUNTS)
            return Report(
                violations=tuple(violations),
                findings={
                    "receipts_missing": await connection.fetchval(_RECEIPTS_MISSING, receipts_due),
                    **dict(await connection.fetchrow(_RECEIPTS) or {}),
                },
                counts=dict(counts or {}),
            )

    return await database.run(work)


async def imbalance(database: Database) -> int:
    """Return by how many micros debits and credits differ, over all units; cheap."""

    async def work(connection: Connection) -> int:
        return int(await connection.fetchval(_IMBALANCE))

    return await database.run(work)


async def _rows(connection: Connection, query: str, now: datetime) -> list[Any]:
    return await (connection.fetch(query, now) if "$1" in query else connection.fetch(query))
