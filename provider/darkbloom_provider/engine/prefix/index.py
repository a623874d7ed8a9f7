"""Which blocks lie on the disk: sizes and last uses, kept in memory; the disk has the last word."""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(slots=True)
class Entry:
    """One file."""

    path: Path
    size: int
    used_s: float
    """Unix time of its last use."""


class Index:
    """Files by path, least recently used first; safe to share between threads."""

    def __init__(self) -> None:
        self.bytes = 0
        self._entries: OrderedDict[Path, Entry] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._entries)

    def fill(self, entries: Sequence[Entry]) -> None:
        """Take what was found on the disk."""
        for entry in sorted(entries, key=lambda one: one.used_s):
            self.add(entry)

    def add(self, entry: Entry) -> None:
        """Take a file that was just written."""
        with self._lock:
            self._drop(entry.path)
            self._entries[entry.path] = entry
            self.bytes += entry.size

    def get(self, path: Path) -> Entry | None:
        """Return what is known of a file."""
        return self._entries.get(path)

    def use(self, paths: Sequence[Path], now_s: float) -> None:
        """Mark the files of one chain as used, its end first, so that its end is evicted first."""
        with self._lock:
            for path in reversed(paths):
                entry = self._entries.get(path)
                if entry is not None:
                    entry.used_s = now_s
                    self._entries.move_to_end(path)

    def drop(self, path: Path) -> None:
        """Forget a file."""
        with self._lock:
            self._drop(path)

    def drop_folder(self, folder: Path) -> None:
        """Forget every file of a folder."""
        with self._lock:
            for path in [one for one in self._entries if one.parent == folder]:
                self._drop(path)

    def unused_since(self, moment_s: float, now_s: float) -> list[Path]:
        """Return files that nobody has used since, and those that claim to be of the future."""
        with self._lock:
            return [
                one.path for one in self._entries.values() if not moment_s < one.used_s <= now_s
            ]

    def beyond(self, budget: int) -> list[Path]:
        """Return the oldest files whose removal makes the rest fit."""
        with self._lock:
            surplus, found = self.bytes - budget, []
            for entry in self._entries.values():
                if surplus <= 0:
                    break
                surplus -= entry.size
                found.append(entry.path)
            return found

    def _drop(self, path: Path) -> None:
        entry = self._entries.pop(path, None)
        if entry is not None:
            self.bytes -= entry.size
