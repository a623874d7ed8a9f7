"""Work that a committed command owes the outside world: written with it, done at least once.

A job is written in the transaction of its command (`put` inside `also`), claimed by one replica at
a time, and repeated with growing waits until its handler returns. It is never given up: what fails
for long is shown by its age. Handlers must be repeatable.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeAlias

import structlog
from darkbloom_mesh.clock import Clock
from darkbloom_mesh.errors import MeshError

from darkbloom_billing.store.database import Connection, Database

_BATCH = 16
_FIRST_WAIT_S = 1.0
_LONGEST_WAIT_S = 300.0
_PUT = """
    INSERT INTO billing.outbox (kind, key, payload, created_at, due_at)
    VALUES ($1, $2, $3, $4, $5) ON CONFLICT (kind, key) DO NOTHING
"""
# A claim that has run out belongs to a replica that died: somebody else goes on.
_CLAIM = """
    UPDATE billing.outbox o SET claimed_until = $3, attempts = o.attempts + 1
    WHERE o.id IN (
      SELECT w.id FROM billing.outbox w
      WHERE w.done_at IS NULL AND w.due_at <= $2 AND w.kind = ANY ($1)
        AND (w.claimed_until IS NULL OR w.claimed_until <= $2)
      ORDER BY w.due_at, w.id LIMIT $4 FOR UPDATE SKIP LOCKED)
    RETURNING o.id, o.kind, o.key, o.payload, o.attempts
"""
# Only the claim that did the work may write: a slow one whose claim ran out has lost it.
_DONE = """
    UPDATE billing.outbox SET done_at = $3, claimed_until = NULL, error = ''
    WHERE id = $1 AND attempts = $2
"""
_AGAIN = """
    UPDATE billing.outbox SET due_at = $3, claimed_until = NULL, error = $4
    WHERE id = $1 AND attempts = $2
"""
_WAITING = """
    SELECT count(*) AS jobs, min(created_at) AS oldest FROM billing.outbox WHERE done_at IS NULL
"""

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One piece of owed work."""

    id: int
    kind: str
    key: str
    """Unique within the kind: a second `put` with it changes nothing."""
    payload: Mapping[str, Any]
    attempts: int
    """This one included."""


Handler: TypeAlias = Callable[[Job], Awaitable[object]]


async def put(
    connection: Connection,
    kind: str,
    key: str,
    payload: Mapping[str, Any],
    *,
    now: datetime,
    due: datetime | None = None,
) -> None:
    """Owe a job, in the transaction of the connection; `due` defaults to now."""
    await connection.execute(_PUT, kind, key, json.dumps(payload), now, due or now)


class Outbox:
    """Claims jobs and remembers their ends; any number of replicas may."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def claim(self, kinds: list[str], *, lease: timedelta) -> list[Job]:
        """Take up to 16 due jobs for as long as `lease`, oldest first."""
        now = self._clock.now()
        rows = await self._fetch(_CLAIM, kinds, now, now + lease, _BATCH)
        return [
            Job(**{**dict(row), "payload": json.loads(row["payload"])})
            for row in sorted(rows, key=lambda row: int(row["id"]))
        ]

    async def done(self, job: Job) -> None:
        """Remember that a job is done."""
        await self._fetch(_DONE, job.id, job.attempts, self._clock.now())

    async def again(self, job: Job, *, wait_s: float, error: str) -> None:
        """Put a job back, due after a wait."""
        due = self._clock.now() + timedelta(seconds=wait_s)
        await self._fetch(_AGAIN, job.id, job.attempts, due, error)

    async def waiting(self) -> tuple[int, float]:
        """Return how many jobs are owed, and the age of the oldest in seconds."""
        (row,) = await self._fetch(_WAITING)
        oldest = row["oldest"] or self._clock.now()
        return row["jobs"], max(0.0, (self._clock.now() - oldest).total_seconds())

    async def forget(self, *, before: datetime, limit: int) -> int:
        """Forget jobs done, and Stripe events that acted, before a time; return how many."""
        (row,) = await self._database.tidy(
            "SELECT billing.forget_finished($1, $2) AS gone", before, limit
        )
        return int(row["gone"])

    async def _fetch(self, statement: str, *arguments: object) -> list[Any]:
        async def work(connection: Connection) -> list[Any]:
            return await connection.fetch(statement, *arguments)

        return await self._database.run(work)


class Dispatcher:
    """Does owed work with handlers by kind.

    Args:
        outbox: Where jobs wait.
        handlers: What does each kind; a kind without one waits for a replica that has it.
        uniform: Randomness of the waits, in [0, 1).
        deadline_s: Longest time of one attempt, in seconds; a claim lasts as long as a whole batch.
    """

    def __init__(
        self,
        outbox: Outbox,
        handlers: Mapping[str, Handler],
        uniform: Callable[[], float],
        *,
        deadline_s: float = 30.0,
    ) -> None:
        self._outbox = outbox
        self._handlers = handlers
        self._uniform = uniform
        self._deadline_s = deadline_s
        self._lease = timedelta(seconds=deadline_s * (_BATCH + 1))
        self._more = asyncio.Event()

    def wake(self) -> None:
        """Look for jobs now: one was written."""
        self._more.set()

    async def round(self) -> int:
        """Do what is due; return how many jobs were tried.

        Raises:
            StoreUnavailableError: The store does not answer; claims run out by themselves.
        """
        jobs = await self._outbox.claim(sorted(self._handlers), lease=self._lease)
        for job in jobs:
            await self._do(job)
        return len(jobs)

    async def run(self, period_s: float) -> None:
        """Do owed work for ever: when woken, and every `period_s` anyway."""
        while True:
            try:
                while await self.round():
                    continue
            except MeshError as error:
                _log.warning("outbox_not_read", reason=error.reason_name)
            try:
                async with asyncio.timeout(period_s):
                    await self._more.wait()
            except TimeoutError:
                continue
            finally:
                self._more.clear()

    async def _do(self, job: Job) -> None:
        try:
            async with asyncio.timeout(self._deadline_s):
                await self._handlers[job.kind](job)
        except Exception as error:  # noqa: BLE001 - whatever it was, the job stays owed
            word = error.reason_name if isinstance(error, MeshError) else type(error).__name__
            _log.warning("outbox_job_failed", kind=job.kind, attempts=job.attempts, error=word)
            bound = min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2 ** min(job.attempts - 1, 16))
            wait_s = bound * (1 + self._uniform()) / 2
            await self._outbox.again(job, wait_s=wait_s, error=word)
        else:
            await self._outbox.done(job)
