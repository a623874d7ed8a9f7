"""What the watchdog sees of versions: which one lived, for how long, and when to go back."""

from __future__ import annotations

from datetime import datetime
from typing import final

import structlog

from darkbloom_provider.state import AgentState
from darkbloom_provider.update.quarantine import (
    STABLE_S,
    note_death,
    note_stable,
    read_health,
    write_health,
)
from darkbloom_provider.update.store import AppStore

_log = structlog.get_logger()


@final
class Deaths:
    """Counts the early deaths of the version in use, and takes it back after three.

    Args:
        store: of the versions; one where nothing was ever installed is left alone.
    """

    def __init__(self, store: AppStore) -> None:
        self._store = store

    def alive(self, snapshot: AgentState | None, now: datetime) -> None:
        """Note a running agent; ten minutes prove its version."""
        current = self._store.current
        if current is None or snapshot is None or _lived_s(snapshot, now) < STABLE_S:
            return
        if snapshot.version != current or snapshot.connection == "stopped":
            # While an update drains, the old process lives on: its age says nothing of the new
            # version. Nor does an agent that has ended grow older.
            return
        health = read_health(self._store.state)
        if self._store.proven == current and current not in health.deaths:
            return
        if self._store.prove(current):
            _log.info("version_proven", version=current)
            write_health(self._store.state, note_stable(health, current))

    def died(self, snapshot: AgentState | None) -> str | None:
        """Count a death; returns the version that was returned to, None where nothing changed."""
        store = self._store
        current = store.current
        if current is None or current == store.proven:
            return None
        ran_s = 0.0
        if snapshot is not None and snapshot.version == current:
            if snapshot.connection == "stopped":
                # It ended as it was told to, by whomever.
                return None
            ran_s = _lived_s(snapshot, _instant(snapshot.updated_at))
        health = note_death(read_health(store.state), current, ran_s)
        write_health(store.state, health)
        if current not in health.quarantined:
            return None
        back = store.roll_back()
        if back is not None:
            _log.error("version_quarantined", version=current, back_to=back)
        return back


def _lived_s(snapshot: AgentState, until: datetime | None) -> float:
    started = _instant(snapshot.started_at)
    if started is None or until is None:
        return 0.0
    return (until - started).total_seconds()


def _instant(text: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo is not None else None
