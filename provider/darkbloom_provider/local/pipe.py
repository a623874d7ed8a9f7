"""One answer on its way from the engine to a slow or fast reader."""

from __future__ import annotations

import asyncio
from typing import final

from darkbloom_edge.delta import Delta

from darkbloom_provider.engine.interface import Engine, Outcome
from darkbloom_provider.merge import merge

PENDING_CHARS = 16_384
"""Text that may wait for its reader before the engine's row is paused."""


@final
class Pipe:
    """An engine's sink: merges what nobody has taken yet, and pauses the row past a bound.

    Args:
        job_id: of the row.
        ready: set whenever there is something to take; shared by the choices of one request.
    """

    def __init__(self, engine: Engine, job_id: str, ready: asyncio.Event) -> None:
        self.outcome: Outcome | None = None
        """The end; content may still be waiting."""
        self.last = Delta()
        """The newest that was taken."""
        self.ended = False
        """Whether its reader has rendered the end."""
        self._engine = engine
        self._job_id = job_id
        self._ready = ready
        self._pending: Delta | None = None
        self._paused = False

    def __repr__(self) -> str:
        return f"Pipe({self._job_id!r}, <redacted>)"

    def on_delta(self, delta: Delta) -> None:
        """Take the next piece from the engine."""
        self._pending = delta if self._pending is None else merge(self._pending, delta)
        waiting = len(self._pending.text) + len(self._pending.reasoning)
        if waiting > PENDING_CHARS and not self._paused:
            self._paused = True
            self._engine.pause(self._job_id)
        self._ready.set()

    def on_end(self, outcome: Outcome) -> None:
        """Take the engine's last word."""
        self.outcome = outcome
        self._ready.set()

    def take(self) -> Delta | None:
        """Give all that waits to the reader."""
        taken, self._pending = self._pending, None
        if taken is not None:
            self.last = taken
        if self._paused:
            self._paused = False
            self._engine.resume(self._job_id)
        return taken

    def cancel(self) -> None:
        """Stop the row; nobody reads any more."""
        if self.outcome is None:
            self._engine.cancel(self._job_id)
