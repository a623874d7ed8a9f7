"""The SSD tier: encrypted blocks that outlive the process; whatever goes wrong is a cold miss.

Reading happens beside the engine thread, before a row begins. Writing happens on a thread of its
own behind a short queue, and what does not fit is dropped: no answer waits for a disk.
"""

import asyncio
import contextlib
import errno
import os
import queue
import shutil
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Final, NamedTuple

import structlog
from darkbloom_mesh.clock import Clock

from darkbloom_provider.engine.prefix.allowance import Allowance
from darkbloom_provider.engine.prefix.block_file import BadBlockError, open_block, seal
from darkbloom_provider.engine.prefix.cache import Prefix
from darkbloom_provider.engine.prefix.codec import Codec, Lowered
from darkbloom_provider.engine.prefix.epoch import enter, folder_name
from darkbloom_provider.engine.prefix.facts import CacheFacts
from darkbloom_provider.engine.prefix.files import SCRATCH, read_file, write_file
from darkbloom_provider.engine.prefix.index import Entry, Index
from darkbloom_provider.engine.prefix.keys import CacheKeys
from darkbloom_provider.engine.prefix.limits import UNKNOWN_BUDGET, DiskCounts, DiskLimits
from darkbloom_provider.engine.prefix.memory import Block

SUFFIX: Final = ".dbk3"
ORPHAN_S: Final = 3600.0
"""A file that is being written for so long belongs to nobody."""
MAINTENANCE_S: Final = 60.0
CLOSE_S: Final = 5.0
STAGE_S: Final = 2.0
"""Longest wait for the disk before a prompt is read instead."""
_log = structlog.get_logger()


class _Home(NamedTuple):
    folder: Path
    epoch: str


class _Job(NamedTuple):
    home: _Home
    blocks: Sequence[tuple[str, Lowered]]
    size: int
    new: bool


class SsdTier:
    """Blocks on a disk.

    Args:
        root: Folder of the tier, ours alone.
        keys: Names and encryption.
        codec: Between blocks and bytes.
        clock: Ages and allowances.
        limits: What it may take.
        free_bytes: How much the disk has left; None where that is not known.
    """

    def __init__(
        self,
        root: Path,
        keys: CacheKeys,
        codec: Codec,
        clock: Clock,
        *,
        limits: DiskLimits | None = None,
        free_bytes: Callable[[], int | None] | None = None,
    ) -> None:
        self.counts = DiskCounts()
        self._root = root
        self._keys = keys
        self._codec = codec
        self._clock = clock
        self._limits = limits or DiskLimits()
        self._free_bytes = free_bytes or self._measured
        self._budget = 0
        self._index = Index()
        self._allowance = Allowance.full(self._limits.daily_bytes, clock.monotonic())
        self._homes: dict[str, _Home] = {}
        self._jobs: queue.Queue[_Job | None] = queue.Queue(self._limits.queue_jobs)
        self._queued_bytes = self._staged_bytes = 0
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._writer = threading.Thread(target=self._run, name="darkbloom-prefix", daemon=True)
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="darkbloom-prefix-read")

    # Life.

    def open(self) -> None:
        """Find what is there and begin to write; blocks, so call it beside the loop.

        Raises:
            OSError: the folder cannot be made or read.
        """
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._root.chmod(0o700)
        for folder in self._folders():
            self._index.fill(self._scan(folder, orphan_s=0.0))
        free = self._free_bytes()
        half = UNKNOWN_BUDGET if free is None else (free + self._index.bytes) // 2
        wanted = self._limits.budget_bytes
        self._budget = half if wanted is None else wanted
        self.maintain()
        self._writer.start()

    def enter(self, build_id: str, weight_hash: str, identity: Mapping[str, str]) -> None:
        """Get ready for one build; blocks.

        Raises:
            OSError: its folder cannot be made.
        """
        folder = self._root / folder_name(build_id)
        facts = {**identity, "weight_hash": weight_hash, "key": self._keys.fingerprint}
        epoch = enter(folder, facts)
        self._index.drop_folder(folder)
        self._index.fill(self._scan(folder, orphan_s=ORPHAN_S))
        self._homes[weight_hash] = _Home(folder, epoch)

    def close(self) -> None:
        """Stop writing, within a bounded time; what is queued is dropped."""
        self._stopping.set()
        with contextlib.suppress(queue.Full):
            self._jobs.put_nowait(None)
        if self._writer.is_alive():
            self._writer.join(CLOSE_S)
        self._reader.shutdown(wait=False, cancel_futures=True)

    @property
    def bytes(self) -> int:
        """What lies on the disk."""
        return self._index.bytes

    def __len__(self) -> int:
        return len(self._index)

    @property
    def room(self) -> int:
        """Most bytes of one offer."""
        return self._limits.queue_bytes

    def add_to(self, facts: CacheFacts) -> CacheFacts:
        """Report the tier as well."""
        counts = self.counts
        return replace(
            facts,
            disk=True,
            disk_bytes=self._index.bytes,
            disk_files=len(self._index),
            disk_written=counts.written,
            disk_bad=counts.bad,
            disk_dropped=counts.dropped,
        )

    # Reading.

    def known(self, prefix: Prefix) -> int:
        """Return how many blocks from the first on need not be offered."""
        home = self._homes.get(prefix.weight_hash)
        if home is None or len(prefix.chain) * prefix.block_tokens < self._limits.floor_tokens:
            return len(prefix.chain)
        for number, path in enumerate(self._paths(home, prefix)):
            if self._index.get(path) is None:
                return number
        return len(prefix.chain)

    async def stage(self, prefix: Prefix, start: int) -> Sequence[Block]:
        """Read blocks from `start` on, as many as are there and may be held in memory."""
        home = self._homes.get(prefix.weight_hash)
        if home is None or self._stopping.is_set():
            return ()
        paths = self._worth_reading(self._paths(home, prefix)[start:])
        if not paths:
            return ()
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(STAGE_S):
                return await loop.run_in_executor(self._reader, self._read, home, paths)
        except (TimeoutError, RuntimeError):
            # A disk that hangs, or a reader that is closed: the prompt is read instead.
            return ()

    def _worth_reading(self, paths: Sequence[Path]) -> list[Path]:
        room = min(
            self._limits.staged_bytes - self._staged_bytes,
            int(self._limits.read_bytes_per_s * self._limits.read_s),
        )
        oldest_s = self._now_s() - self._limits.ttl_s
        found = []
        for path in paths:
            entry = self._index.get(path)
            if entry is None or entry.used_s < oldest_s or entry.size > room:
                break
            room -= entry.size
            found.append(path)
        return found

    def _read(self, home: _Home, paths: Sequence[Path]) -> list[Block]:
        blocks: list[Block] = []
        for path in paths:
            entry = self._index.get(path)
            try:
                # Other prompts that were measured at the same time may have taken the room.
                if entry is None or self._staged_bytes + entry.size > self._limits.staged_bytes:
                    break
                block = self._read_one(home, path, entry.size)
            except (OSError, BadBlockError, ValueError):
                # Gone, cut, swapped or of another epoch: never asked for again.
                self.counts.bad += 1
                self._remove(path)
                break
            blocks.append(block)
        now_s = self._now_s()
        self._index.use(paths[: len(blocks)], now_s)
        for path in paths[: len(blocks)]:
            with contextlib.suppress(OSError):
                self._stamp(path, now_s)
        self.counts.read += len(blocks)
        return blocks

    def _read_one(self, home: _Home, path: Path, size: int) -> Block:
        expected = {"tag": path.stem, "epoch": home.epoch}
        facts, content = open_block(read_file(path, size), expected, self._keys)
        block = self._codec.lift(facts, content)
        with self._lock:
            self._staged_bytes += block.nbytes
        weakref.finalize(block, self._unstage, block.nbytes)
        return block

    def _unstage(self, size: int) -> None:
        with self._lock:
            self._staged_bytes -= size

    # Writing.

    def offer(self, prefix: Prefix, start: int, blocks: Sequence[Block]) -> None:
        """Queue blocks to be written, or drop them; on the engine thread, never waits."""
        home = self._homes.get(prefix.weight_hash)
        end = start + len(blocks)
        if home is None or end * prefix.block_tokens < self._limits.floor_tokens:
            return
        paths = self._paths(home, prefix)
        fresh = [
            (path.stem, lowered)
            for path, block in zip(paths[start:end], blocks, strict=True)
            if self._index.get(path) is None and (lowered := self._codec.lower(block)) is not None
        ]
        size = sum(part.nbytes for _, lowered in fresh for part in lowered.data)
        if not fresh:
            return
        new = self._index.get(paths[0]) is None
        with self._lock:
            fits = self._queued_bytes + size <= self._limits.queue_bytes
            if fits:
                self._queued_bytes += size
        if not fits:
            self.counts.dropped += 1
            return
        try:
            self._jobs.put_nowait(_Job(home, fresh, size, new))
        except queue.Full:
            self.counts.dropped += 1
            self._unqueue(size)

    def settle(self) -> None:
        """Wait until everything queued is written or dropped; for tests and for a drain."""
        self._jobs.join()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                job = self._jobs.get(timeout=MAINTENANCE_S)
            except queue.Empty:
                self.maintain()
                continue
            try:
                if job is not None:
                    self._write(job)
            except Exception as error:  # noqa: BLE001 - a cache may fail in any way and end nothing
                _log.warning("prefix_not_written", error_type=type(error).__name__)
            finally:
                if job is not None:
                    self._unqueue(job.size)
                self._jobs.task_done()

    def _write(self, job: _Job) -> None:
        for tag, lowered in job.blocks:
            size = sum(part.nbytes for part in lowered.data)
            free = self._free_bytes()
            now_s = self._clock.monotonic()
            low = free is not None and free - size < self._limits.min_free_bytes
            if self._stopping.is_set() or low or not self._allowance.take(size, now_s, new=job.new):
                self.counts.dropped += 1
                return
            facts = {**lowered.facts, "tag": tag, "epoch": job.home.epoch}
            path = job.home.folder / f"{tag}{SUFFIX}"
            try:
                written = write_file(path, seal(lowered.data, facts, self._keys))
                self._stamp(path, self._now_s())
            except OSError as error:
                if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                    self._allowance.pause(now_s)
                self.counts.dropped += 1
                return
            self._index.add(Entry(path, written, self._now_s()))
            self.counts.written += 1
        self._evict(self._index.beyond(self._budget))

    def _unqueue(self, size: int) -> None:
        with self._lock:
            self._queued_bytes -= size

    # Housekeeping.

    def maintain(self) -> None:
        """Remove what is too old, too much, or belongs to nobody."""
        now_s = self._now_s()
        self._evict(self._index.unused_since(now_s - self._limits.ttl_s, now_s + MAINTENANCE_S))
        self._evict(self._index.beyond(self._budget))
        for folder in self._folders():
            with contextlib.suppress(OSError):
                self._scan(folder, orphan_s=ORPHAN_S)

    def _evict(self, paths: Sequence[Path]) -> None:
        for path in paths:
            self._remove(path)
            self.counts.evicted += 1

    def _remove(self, path: Path) -> None:
        self._index.drop(path)
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)

    def _folders(self) -> list[Path]:
        with os.scandir(self._root) as entries:
            return [Path(one.path) for one in entries if one.is_dir(follow_symlinks=False)]

    def _scan(self, folder: Path, *, orphan_s: float) -> list[Entry]:
        """Return the blocks of a folder; half-written files of that age are removed on the way."""
        oldest_s = self._now_s() - orphan_s
        found = []
        with os.scandir(folder) as entries:
            for one in entries:
                facts = one.stat(follow_symlinks=False)
                if one.name.endswith(SCRATCH):
                    if facts.st_mtime <= oldest_s:
                        Path(one.path).unlink(missing_ok=True)
                elif one.name.endswith(SUFFIX) and one.is_file(follow_symlinks=False):
                    found.append(Entry(Path(one.path), facts.st_size, facts.st_mtime))
        return found

    def _paths(self, home: _Home, prefix: Prefix) -> list[Path]:
        return [
            home.folder / f"{self._keys.tag(prefix.scope, name)}{SUFFIX}" for name in prefix.chain
        ]

    @staticmethod
    def _stamp(path: Path, now_s: float) -> None:
        """Note a use where the next process finds it."""
        os.utime(path, (now_s, now_s), follow_symlinks=False)

    def _now_s(self) -> float:
        return self._clock.now().timestamp()

    def _measured(self) -> int | None:
        try:
            return shutil.disk_usage(self._root).free
        except OSError:
            return None
