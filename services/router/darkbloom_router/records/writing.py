"""Rows on their way to the store: bounded, in batches, and dropped before they slow anybody."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

import structlog
from darkbloom_mesh.backoff import Backoff
from darkbloom_mesh.clock import Clock
from darkbloom_mesh.errors import MeshError

from darkbloom_router.records.rows import Row

LIMIT = 4096
BATCH = 128
GATHER_S = 0.1
SWEEP_S = 3600.0
SWEEP_AGAIN_S = 60.0
"""After a sweep that failed: a lock that it waits for may be held for long."""
SWEEP_ROWS = 5000
"""Most rows of one table per sweep, so that no lock is held for long."""
_log = structlog.get_logger()


class RecordStore(Protocol):
    """Where rows are kept."""

    async def open(self) -> None:
        """Connect; does nothing when connected.

        Raises:
            MeshError: It cannot be reached.
        """

    async def write(self, rows: Sequence[Row]) -> None:
        """Keep rows.

        Raises:
            MeshError: It cannot be reached.
        """

    async def sweep(self, before_unix: float, now_unix: float) -> int:
        """Make room for what is to come, and let what is older than `before_unix` go.

        Returns:
            How many rows were deleted one by one: `SWEEP_ROWS` mean that there may be more.

        Raises:
            MeshError: It cannot be reached.
        """


class RecordQueue:
    """Rows that wait for the store.

    Args:
        store: Where they go.
        clock: Time.
        backoff: Waits while the store is away.
        dropped: Called with the number of rows that were given up.
        wrote: Called with the number of rows that were written, and of those that wait.
        keep_s: How long rows are kept.
    """

    def __init__(
        self,
        store: RecordStore,
        clock: Clock,
        backoff: Backoff,
        *,
        dropped: Callable[[int], None],
        wrote: Callable[[int, int], None],
        keep_s: float,
    ) -> None:
        self._store = store
        self._clock = clock
        self._backoff = backoff
        self._dropped = dropped
        self._wrote = wrote
        self._keep_s = keep_s
        self._rows: deque[Row] = deque()
        self._filled = asyncio.Event()
        self._sweep_at = 0.0

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, row: Row) -> None:
        """Take a row in, or give it up where too many wait."""
        if len(self._rows) >= LIMIT:
            self._dropped(1)
            return
        self._rows.append(row)
        self._filled.set()

    async def run(self) -> None:
        """Write for ever."""
        while True:
            await self._filled.wait()
            await self._clock.sleep(GATHER_S)
            await self.flush()

    async def flush(self) -> None:
        """Write what waits; a batch that the store does not take is given up."""
        self._filled.clear()
        while self._rows:
            batch = [self._rows.popleft() for _ in range(min(BATCH, len(self._rows)))]
            try:
                await self._store.open()
                await self._sweep()
                await self._store.write(batch)
                self._wrote(len(batch), len(self._rows))
            except MeshError as error:
                _log.warning("records_not_written", reason=error.reason_name, rows=len(batch))
                self._dropped(len(batch))
                await self._clock.sleep(self._backoff.next_s())
                continue
            self._backoff.reset()

    async def _sweep(self) -> None:
        """Look after the tables, now and then and first of all; a failure costs no row."""
        now = self._clock.monotonic()
        if now < self._sweep_at:
            return
        self._sweep_at = now + SWEEP_S
        wall = self._clock.now().timestamp()
        try:
            gone = await self._store.sweep(wall - self._keep_s, wall)
        except MeshError as error:
            _log.warning("records_not_swept", reason=error.reason_name)
            self._sweep_at = now + SWEEP_AGAIN_S
            return
        if gone >= SWEEP_ROWS:
            # The next flush goes on: an hour of a busy mesh is many batches.
            self._sweep_at = now
