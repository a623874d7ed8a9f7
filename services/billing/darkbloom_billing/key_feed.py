"""Key changes as they commit, to every gateway that watches."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from darkbloom_mesh.errors import OverloadedError

from darkbloom_billing.freshness import keep_fresh
from darkbloom_billing.model import KeyChange
from darkbloom_billing.ports import AccountStore

MAX_WATCHERS = 1024
MAX_WAITING = 256


class Watch:
    """One watcher's changes; where they overflow, the watcher is told to forget everything."""

    def __init__(self, generation: int) -> None:
        self.generation = generation
        """Of the last event that was handed out."""
        self.ended = False
        """No more events will come."""
        self._waiting: list[KeyChange] = []
        self._overflowed = False
        self._more = asyncio.Event()

    def reset(self) -> None:
        """Have the watcher forget everything: changes were lost."""
        self._waiting.clear()
        self._overflowed = True
        self._more.set()

    def push(self, change: KeyChange) -> None:
        """Add a change; never blocks."""
        if len(self._waiting) >= MAX_WAITING:
            self.reset()
        self._waiting.append(change)
        self._more.set()

    def end(self) -> None:
        """Let the watcher leave."""
        self.ended = True
        self._more.set()

    async def take(self, silence_s: float) -> list[KeyChange] | None:
        """Return changes, oldest first; an empty list after silence, None: forget everything."""
        try:
            async with asyncio.timeout(silence_s):
                await self._more.wait()
        except TimeoutError:
            return []
        changes, self._waiting = self._waiting, []
        overflowed, self._overflowed = self._overflowed, False
        if not self.ended:
            self._more.clear()
        if changes:
            self.generation = changes[-1].generation
        return None if overflowed else changes


class KeyFeed:
    """Reads changes once for all watchers, when told that there are some and now and then."""

    def __init__(self, store: AccountStore) -> None:
        self._store = store
        self._stale = asyncio.Event()
        self._watches: set[Watch] = set()
        self._generation = 0
        self._closed = False

    async def start(self) -> None:
        """Learn the present generation; nothing older is ever sent."""
        self._generation = await self._store.key_generation()

    @contextmanager
    def watch(self) -> Iterator[Watch]:
        """Watch from the present generation on.

        Raises:
            OverloadedError: There are too many watchers.
        """
        if len(self._watches) >= MAX_WATCHERS:
            raise OverloadedError("too many key watches")
        watch = Watch(self._generation)
        if self._closed:
            watch.end()
        self._watches.add(watch)
        try:
            yield watch
        finally:
            self._watches.discard(watch)

    def invalidate(self) -> None:
        """Read changes soon."""
        self._stale.set()

    async def refresh(self) -> None:
        """Read changes and hand them out."""
        for change in await self._store.key_changes(self._generation):
            # Generations have no gaps, but old ones are forgotten after a week.
            lost = change.generation > self._generation + 1
            self._generation = change.generation
            for watch in self._watches:
                if lost:
                    watch.reset()
                watch.push(change)

    async def run(self, period_s: float) -> None:
        """Hand out changes for ever."""
        await keep_fresh(self.refresh, self._stale, period_s, failed="key_changes_not_read")

    async def close(self) -> None:
        """End every watch: this replica is leaving."""
        self._closed = True
        for watch in self._watches:
            watch.end()
