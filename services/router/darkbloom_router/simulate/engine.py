"""One machine's engine: rows share its decode rate, prompts are read one at a time.

Rates are constant between two events, so an answer costs a handful of events, not one per token.
Progress is counted in seconds of a row that runs alone.
"""

import heapq
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from darkbloom_router.admission import ROW_DERATING
from darkbloom_router.timers import Timer, Timers

READ_BESIDE_ROWS = 0.05
"""How much each running row slows the reading of a prompt."""


@dataclass(slots=True, eq=False)
class Row:
    """One request on a machine."""

    stream: int
    request_id: str
    build: str
    prompt: int
    output: int
    tokens: int
    """Budget that it occupies."""
    solo_tps: float
    prefill_tps: float
    hangs: bool = False
    breaks: bool = False
    gone: bool = False
    writing: bool = False


class Engine:
    """Runs rows.

    Args:
        timers: Virtual time.
        began: Called when a row has its first token.
        ended: Called when a row is complete.
    """

    def __init__(
        self, timers: Timers, began: Callable[[Row], None], ended: Callable[[Row], None]
    ) -> None:
        self._timers = timers
        self._began = began
        self._ended = ended
        self._reading: Row | None = None
        self._waiting: deque[Row] = deque()
        self._rows: list[tuple[float, int, Row]] = []
        self._live = 0
        self._progress = 0.0
        self._at = 0.0
        self._due = float("inf")
        self._timer: Timer | None = None
        self.stopped = False
        self.worked_s = 0.0
        """Seconds of a lone row's work that were done for all rows together."""

    @property
    def running(self) -> int:
        """Rows that are read or written."""
        return self._live + (self._reading is not None)

    @property
    def waiting(self) -> int:
        """Rows whose prompt nobody reads yet."""
        return len(self._waiting)

    @property
    def slowdown(self) -> float:
        """By what factor a row is slower than alone."""
        return 1 + ROW_DERATING * max(0, self.running - 1)

    def add(self, row: Row) -> None:
        """Take a row in; it stands in line for its prompt."""
        self._waiting.append(row)
        self._read_next()

    def drop(self, row: Row) -> None:
        """Forget a row wherever it is."""
        if row.gone:
            return
        self._settle()
        row.gone = True
        if row is self._reading:
            self._reading = None
            self._read_next()
        elif row.writing:
            self._live -= 1
        else:
            self._waiting.remove(row)
        self._arm()

    def stop(self) -> None:
        """Stop for good."""
        self.stopped = True
        if self._timer is not None:
            self._timer.cancel()

    def _settle(self) -> None:
        """Count what was done since rates last changed."""
        now = self._timers.now()
        done = (now - self._at) / self.slowdown
        self._progress += done
        self.worked_s += done * self._live
        self._at = now

    def _read_next(self) -> None:
        if self._reading is not None or not self._waiting:
            return
        self._settle()
        row = self._reading = self._waiting.popleft()
        slower = 1 + READ_BESIDE_ROWS * self._live
        self._timers.after(row.prompt / row.prefill_tps * slower, lambda: self._read(row))
        self._arm()

    def _read(self, row: Row) -> None:
        if self.stopped or row is not self._reading:
            return
        self._settle()
        self._reading = None
        row.writing = True
        self._live += 1
        heapq.heappush(self._rows, (self._progress + row.output / row.solo_tps, row.stream, row))
        first_s = self.slowdown / row.solo_tps
        self._timers.after(first_s, lambda: self._first(row))
        self._read_next()
        self._arm()

    def _first(self, row: Row) -> None:
        if not self.stopped and not row.gone:
            self._began(row)

    def _arm(self) -> None:
        """Set the clock for the next row that ends."""
        rows = self._rows
        while rows and rows[0][2].gone:
            heapq.heappop(rows)
        if not rows:
            self._due = float("inf")
            return
        due = self._at + (rows[0][0] - self._progress) * self.slowdown
        if self._timer is not None and self._timer.action is not None:
            if self._due <= due:
                # It wakes too early and then looks again: cheaper than a new clock each time.
                return
            self._timer.cancel()
        self._due = due
        self._timer = self._timers.at(due, self._finish)

    def _finish(self) -> None:
        if self.stopped:
            return
        self._settle()
        rows = self._rows
        while rows and (rows[0][2].gone or rows[0][0] <= self._progress + 1e-9):
            _, _, row = heapq.heappop(rows)
            if not row.gone:
                row.gone = True
                self._live -= 1
                self._ended(row)
        self._due = float("inf")
        self._arm()
