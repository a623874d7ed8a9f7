"""Spend caps of API keys: an account of the ledger for each key and window."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from darkbloom_billing.model import CapReset, KeySpend
from darkbloom_billing.store.database import Connection, Database

_SET = "SELECT billing.set_cap($1, $2, $3, $4)"
_SPEND = "SELECT * FROM billing.key_spend($1, $2)"


class PostgresCaps:
    """Limits, and what is spent of them. A hold enforces them under the locks of the ledger."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def set_cap(
        self, key_id: str, limit_micros: int | None, reset: CapReset, *, now: datetime
    ) -> bool:
        """Set, raise, lower or clear a limit; False: no such key.

        What the key has settled in the window counts, also where it had no limit until now. A limit
        below what is spent refuses every hold until the next window. The key's watchers hear of it.

        Args:
            key_id: Also of a key that was rotated: the id is what counts.
            limit_micros: Most that one window may spend; 0 lets nothing through; None: no limit.
            reset: When a new window begins.
            now: Time of the change.
        """

        async def work(connection: Connection) -> bool:
            return bool(await connection.fetchval(_SET, key_id, limit_micros, reset.value, now))

        return await self._database.run(work)

    async def spend(self, key_ids: Sequence[str], *, now: datetime) -> Mapping[str, KeySpend]:
        """Return what keys have spent and have left, by key id; unknown ids are left out."""

        async def work(connection: Connection) -> list[Any]:
            return await connection.fetch(_SPEND, list(key_ids), now)

        return {
            row["key_id"]: KeySpend(
                key_id=row["key_id"],
                limit_micros=row["limit_micros"],
                reset=CapReset(row["reset"]),
                window_start=row["window_start"],
                usage_micros=row["usage_micros"],
                held_micros=row["held_micros"],
                remaining_micros=row["remaining_micros"],
            )
            for row in await self._database.run(work)
        }
