"""What somebody should look at, and the size of what was read."""

from datetime import datetime
from typing import Any

from darkbloom_billing.store.database import Connection

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
      (SELECT count(*) FROM billing.lease) AS open_holds,
      (SELECT count(*) FROM billing.lease WHERE lease_until <= $1) AS orphan_holds,
      (SELECT count(*) FROM billing.usage u WHERE u.charge_micros > 0 AND NOT EXISTS (
        SELECT FROM billing.earning n JOIN ledger.event e ON e.idem_key = 'resolve:' || n.request_id
        JOIN ledger.transfer t ON t.event_id = e.id AND t.code = 'payout'
        WHERE n.request_id = u.request_id)) AS unpaid_jobs,
      (SELECT count(*) FROM billing.outbox WHERE done_at IS NULL) AS owed_jobs,
      (SELECT count(*) FROM ledger.block) AS blocks
"""
# What Stripe said it held when last asked, minus the books at that moment.
_DRIFT = """
    SELECT stripe_micros - ledger_micros FROM billing.stripe_balance
    ORDER BY taken_at DESC LIMIT 1
"""
_LONG_S = 3600.0


async def findings(connection: Connection, *, receipts_due: datetime) -> dict[str, int]:
    """Return what to look at, by name; see `Report.findings`."""
    records: Any = await connection.fetchrow(_RECEIPTS, timeout=_LONG_S)
    return {
        "receipts_missing": await connection.fetchval(
            _RECEIPTS_MISSING, receipts_due, timeout=_LONG_S
        ),
        **dict(records or {}),
        "stripe_drift_micros": await connection.fetchval(_DRIFT) or 0,
    }


async def sizes(connection: Connection, *, now: datetime) -> dict[str, int]:
    """Return the size of what was read; see `Report.counts`."""
    return dict(await connection.fetchrow(_COUNTS, now, timeout=_LONG_S) or {})
