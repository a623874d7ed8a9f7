"""Roll-ups and figures in PostgreSQL."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from darkbloom_billing.reports import rows
from darkbloom_billing.reports.model import Contender, MinuteWork, Standing, Window
from darkbloom_billing.store.database import Connection, Database

_DAYS = {Window.DAY: 1, Window.WEEK: 7, Window.MONTH: 30}
_KEPT_HOURS = timedelta(days=31)
_SERIES = timedelta(minutes=30)
_KEPT_MINUTES = timedelta(hours=1)
# Work of each account, to the hour; a life needs no time.
_OF_WINDOW = """
    SELECT account_id, sum(work_micros)::bigint AS work, sum(reward_micros)::bigint AS reward,
      sum(prompt_tokens)::bigint AS prompt, sum(completion_tokens)::bigint AS completion,
      sum(jobs)::bigint AS jobs
    FROM billing.work_hour WHERE hour >= $2 GROUP BY account_id
"""
_OF_LIFE = """
    SELECT account_id, sum(work_micros)::bigint AS work, sum(reward_micros)::bigint AS reward,
      sum(prompt_tokens)::bigint AS prompt, sum(completion_tokens)::bigint AS completion,
      sum(jobs)::bigint AS jobs
    FROM billing.work_life WHERE $2::timestamptz IS NOT NULL GROUP BY account_id
"""
_BEST = """
    WITH each_account AS MATERIALIZED ({}), ranked AS (
      SELECT w.*, n.name,
        row_number() OVER (ORDER BY w.work + w.reward DESC, w.account_id) AS by_earnings,
        row_number() OVER (ORDER BY w.prompt + w.completion DESC, w.account_id) AS by_tokens,
        row_number() OVER (ORDER BY w.jobs DESC, w.account_id) AS by_jobs
      FROM each_account w LEFT JOIN billing.public_name n ON n.account_id = w.account_id
      WHERE n.account_id IS NULL OR n.name IS NOT NULL)
    SELECT false AS everybody, account_id, coalesce(name, '') AS name, work, reward, prompt,
      completion, jobs, 0::bigint AS accounts
    FROM ranked WHERE by_earnings <= $1 OR by_tokens <= $1 OR by_jobs <= $1
    UNION ALL
    SELECT true, '', '', coalesce(sum(work), 0)::bigint, coalesce(sum(reward), 0)::bigint,
      coalesce(sum(prompt), 0)::bigint, coalesce(sum(completion), 0)::bigint,
      coalesce(sum(jobs), 0)::bigint, count(*) FROM each_account
"""
_MINUTES = "SELECT * FROM billing.work_minute WHERE minute >= $1 ORDER BY minute"
_PRUNE_HOURS = "DELETE FROM billing.work_hour WHERE hour < $1"
_PRUNE_MINUTES = "DELETE FROM billing.work_minute WHERE minute < $1"


def whole_hour(at: datetime) -> datetime:
    """Return the beginning of the hour, so that a window misses nothing of its first one."""
    return at.replace(minute=0, second=0, microsecond=0)


class PostgresFigures:
    """What public figures are made of."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def count_work(self, limit: int) -> int:
        """Count booked work into the roll-ups; return how much there was."""
        return int((await self._rows("SELECT billing.count_work($1)", limit))[0][0])

    async def prune(self, *, now: datetime) -> None:
        """Forget roll-ups that no window reaches."""
        await self._rows(_PRUNE_HOURS, now - _KEPT_HOURS)
        await self._rows(_PRUNE_MINUTES, now - _KEPT_MINUTES)

    async def standing(self, window: Window, *, now: datetime, best: int) -> Standing:
        """Return the best of each metric, and the sums over everybody."""
        source = _OF_LIFE if window is Window.ALL else _OF_WINDOW
        since = whole_hour(now - timedelta(days=_DAYS.get(window, 0)))
        found = await self._rows(_BEST.format(source), best, since)
        (total,) = (row for row in found if row["everybody"])
        return Standing(
            contenders=tuple(
                Contender(
                    account_id=row["account_id"], chosen_name=row["name"], work=rows.work(row)
                )
                for row in found
                if not row["everybody"]
            ),
            total=rows.work(total),
            active_accounts=total["accounts"],
        )

    async def minutes(self, *, now: datetime) -> Sequence[MinuteWork]:
        """Return the last 30 minutes, oldest first."""
        return [
            MinuteWork(
                minute=row["minute"],
                prompt_tokens=row["prompt_tokens"],
                completion_tokens=row["completion_tokens"],
                jobs=row["jobs"],
            )
            for row in await self._rows(_MINUTES, now - _SERIES)
        ]

    async def pseudonym_key(self) -> bytes:
        """Return the key of pseudonyms, 32 bytes."""
        return bytes((await self._rows("SELECT key FROM billing.pseudonym_key"))[0]["key"])

    async def _rows(self, statement: str, *arguments: object) -> list[Any]:
        async def work(connection: Connection) -> list[Any]:
            return await connection.fetch(statement, *arguments)

        return await self._database.run(work)
