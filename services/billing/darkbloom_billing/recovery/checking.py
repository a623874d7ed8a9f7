"""Is a backup one? It was restored somewhere; here its books are held against what lies outside.

The steps are those of `recover` that ask nobody: holds past their lease end, the sealed history is
compared with its copies, and the whole ledger is audited. None of them harms a database that is in
use, in case somebody names the wrong one; but then it proves nothing.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from darkbloom_mesh.clock import Clock

from darkbloom_billing.books.seal import head_path
from darkbloom_billing.config import BillingConfig
from darkbloom_billing.recovery.report import Recovery
from darkbloom_billing.recovery.steps import recover
from darkbloom_billing.store.database import Connection, Database

MAX_BEHIND = timedelta(minutes=15)
"""A segment is archived each minute, and a block sealed each five."""
_NEWEST = "SELECT max(created_at) FROM ledger.event"
_UNTOLD: Mapping[str, Any] = {
    # Nobody was asked: a copy that pays, or erases, would be a second history.
    "stripe_secret_key": None,
    "stripe_connect_secret_key": None,
    "seal_directory": "",
    "erasure_directory": "",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What a restored backup was found to be."""

    at: datetime
    """When its restore began: what was sealed later cannot be in it."""
    recovery: Recovery
    newest: datetime | None
    """Of its newest event; None: it has none."""
    behind: timedelta
    """Age, at that time, of the oldest sealed block that it lacks."""
    max_behind: timedelta = field(default=MAX_BEHIND)

    @property
    def problems(self) -> tuple[str, ...]:
        """What keeps it from being a backup, in closed words."""
        found = {
            "empty": self.newest is None,
            "no_heads": self.recovery.heads_equal == 0,
            "heads_differ": bool(self.recovery.heads_differ),
            "behind": self.behind > self.max_behind,
            "violations": bool(self.recovery.audit.get("ledger_violations")),
        }
        return tuple(name for name, is_so in found.items() if is_so)

    def body(self) -> dict[str, Any]:
        """Return it as JSON values."""
        recovery = self.recovery
        return {
            "sound": not self.problems,
            "problems": list(self.problems),
            "at": self.at.isoformat(),
            "newest_event": None if self.newest is None else self.newest.isoformat(),
            "behind_s": round(self.behind.total_seconds()),
            "max_behind_s": round(self.max_behind.total_seconds()),
            "heads_equal": recovery.heads_equal,
            "heads_differ": list(recovery.heads_differ),
            "heads_given_up": len(recovery.heads_given_up),
            "heads_unreadable": list(recovery.heads_unreadable),
            "audit": dict(recovery.audit),
        }


async def check(
    config: BillingConfig,
    database: Database,
    clock: Clock,
    *,
    heads: Path,
    at: datetime,
    max_behind: timedelta = MAX_BEHIND,
) -> Checked:
    """Hold a restored database against the copies of its sealed history, and audit it.

    Args:
        config: Billing's own, of which keys and directories are left out.
        database: The restored one.
        clock: Time.
        heads: Copies of the sealed history, of the life that goes on.
        at: When the restore began.
        max_behind: By how much the archive may lag.

    Raises:
        StoreUnavailableError: The database does not answer.
        OSError: The copies cannot be read.
        ValueError: A whole file among them is no head.
    """
    told = replace(config, **_UNTOLD)
    newest = await _newest(database)
    done = await recover(told, database, clock, moment=at, heads=heads)
    lacking = [_sealed_at(heads, height) for height in done.heads_given_up]
    behind = max((at - sealed for sealed in lacking if sealed < at), default=timedelta())
    return Checked(at=at, recovery=done, newest=newest, behind=behind, max_behind=max_behind)


def _sealed_at(directory: Path, height: int) -> datetime:
    told = json.loads(head_path(directory, height).read_text(encoding="utf-8"))
    return datetime.fromisoformat(told["sealed_at"])


async def _newest(database: Database) -> datetime | None:
    async def work(connection: Connection) -> datetime | None:
        found: datetime | None = await connection.fetchval(_NEWEST)
        return found

    return await database.run(work)
