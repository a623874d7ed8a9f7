"""What must be true after the storm, whatever happened in it."""

from dataclasses import dataclass
from typing import Any

import asyncpg
from darkbloom_billing.audit import audit
from darkbloom_billing.books import Books
from darkbloom_billing.store.database import Database
from darkbloom_mesh.clock import Clock

from tests.chaos.actors import KEY_LIMIT, Outside

# A request whose posted legs, payout or usage are not one and the same amount, once.
_CHARGES = """
    SELECT u.request_id FROM billing.usage u
    JOIN ledger.event e ON e.idem_key = 'resolve:' || u.request_id
    LEFT JOIN ledger.transfer t ON t.event_id = e.id AND t.unit = 'uUSD'
    GROUP BY u.request_id, u.charge_micros
    HAVING coalesce(sum(t.amount) FILTER (WHERE t.mode = 'post'), 0) <> u.charge_micros
      OR coalesce(sum(t.amount) FILTER (WHERE t.code = 'payout'), 0) <> u.charge_micros
"""
_OVER_CAP = """
    SELECT a.path FROM billing.cap_window w JOIN ledger.account a ON a.id = w.cap_id
    WHERE a.dr + a.dr_pend > $1
"""
_PENDING = "SELECT path FROM ledger.account WHERE dr_pend + cr_pend > 0"


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """The verdict on one run."""

    figures: dict[str, int]
    wrong: tuple[str, ...]
    """What was found, in words; empty after a run that counts."""
    kinds: dict[str, int]
    """How many events of each kind were booked."""


async def judge(
    connection: "asyncpg.Connection[Any]",
    database: Database,
    books: Books,
    outside: Outside,
    clock: Clock,
) -> Judgement:
    """Audit the books, and compare them with what the world outside was told."""
    report = await audit(database, now=clock.now(), receipts_due=clock.now())
    wrong = [f"{found.check}: {found.what}" for found in report.violations]
    wrong += [f"pending at the end: {path}" for (path,) in await connection.fetch(_PENDING)]
    wrong += [f"over its cap: {path}" for (path,) in await connection.fetch(_OVER_CAP, KEY_LIMIT)]

    position = await books.stripe_position()
    if position.balance_micros != outside.stripe:
        wrong.append(f"stripe holds {outside.stripe}, the books say {position.balance_micros}")

    rows = await connection.fetch("SELECT request_id, charge_micros FROM billing.usage")
    charged: dict[str, int] = {row["request_id"]: row["charge_micros"] for row in rows}
    wrong += [
        f"told {told} for {name}, charged {charged.get(name)}"
        for name, told in outside.paid.items()
        if charged.get(name) != told
    ]
    double = {name for (name,) in await connection.fetch(_CHARGES)} | set(outside.told_twice)
    kinds = await connection.fetch("SELECT kind, count(*) FROM ledger.event GROUP BY kind")
    counts = report.counts
    return Judgement(
        figures={
            "events": counts["events"],
            "transfers": counts["transfers"],
            "violations": len(wrong),
            "orphan_holds": counts["orphan_holds"],
            "double_charges": len(double),
            "unpaid_jobs": counts["unpaid_jobs"],
            "settled": len(charged),
            "commands": outside.commands,
        },
        kinds={row["kind"]: row["count"] for row in kinds},
        wrong=(*wrong, *(f"charged twice: {name}" for name in sorted(double))),
    )
