"""Fetch one version: resume, count, hash, publish whole or not at all.

The manifest has been checked before; nothing that a source says is believed. Every block goes to a
thread: hashing and writing gigabytes must not hold up a loop that also answers requests.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from darkbloom_edge.manifest import Manifest, ManifestFile
from darkbloom_mesh.backoff import Backoff
from darkbloom_mesh.clock import Clock

from darkbloom_provider.models.errors import (
    ModelCorruptError,
    ModelError,
    ModelExistsError,
    ModelNotFoundError,
)
from darkbloom_provider.models.opened import open_on_thread
from darkbloom_provider.models.sources.interface import (
    AlteredError,
    LostError,
    RangeIgnoredError,
    Source,
    SourceError,
)
from darkbloom_provider.models.staging import PartFile, Staging, staged
from darkbloom_provider.models.store import ModelStore, StoredModel

PARALLEL: Final = 4
"""Files at a time when a person waits."""
TRIES: Final = 5
"""Attempts at one place without a single new byte before the next place is asked."""
WRITE_BYTES: Final = 1 << 20
"""Blocks are gathered up to this before a thread hashes and writes them."""
PACE_S: Final = 60.0
PACE_BYTES: Final = 64 << 10
"""A place that gives less than this in that time is lost: a trickle is no download."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """How far one file is."""

    path: str
    done_bytes: int
    size_bytes: int


Report = Callable[[Progress], None]
"""Hears of each file: when it begins, as it grows, when it is whole."""


def _silent(_progress: Progress) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Downloader:
    """Fetches versions into a store.

    Args:
        store: Where they go.
        clock: Time.
        uniform: Randomness of waits, in [0, 1).
        parallel: Files at a time.
    """

    store: ModelStore
    clock: Clock
    uniform: Callable[[], float]
    parallel: int = PARALLEL

    async def fetch(
        self,
        manifest: Manifest,
        document: bytes,
        sources: Sequence[Source],
        report: Report = _silent,
    ) -> StoredModel:
        """Bring a version into the store; what is there already is not fetched again.

        What has come stays on disk after any failure but a poisoned manifest, so that the next
        call goes on from there.

        Args:
            manifest: What to fetch; its signature has been checked.
            document: The exact bytes of the manifest.
            sources: Places, best first.
            report: Hears of progress.

        Raises:
            DiskFullError: Too little room, before or during the download.
            SourceError: No place has given every file.
            ModelBusyError: Another process is writing this build.
            ModelExistsError: The version exists with other bytes.
            ManifestError: The files cannot lie side by side.
            ModelCorruptError: The disk does not keep what was written.
        """
        known = self._published(manifest)
        if known is not None:
            return known
        with staged(self.store, manifest) as staging:
            await asyncio.to_thread(self._reuse, manifest, staging)
            self.store.require_space(staging.missing_bytes())
            await self._fetch_all(manifest, staging, sources, report)
            staging.clean()
            try:
                stored = await asyncio.to_thread(self.store.publish, staging.files, document)
            except (ModelCorruptError, ModelExistsError):
                # Whole files that cannot become this version will never become it.
                staging.discard()
                raise
            staging.discard()
            return stored

    async def _fetch_all(
        self, manifest: Manifest, staging: Staging, sources: Sequence[Source], report: Report
    ) -> None:
        gate = asyncio.Semaphore(self.parallel)
        try:
            async with asyncio.TaskGroup() as tasks:
                for file in manifest.files:
                    work = self._fetch_one(file, staging, sources, report, gate)
                    tasks.create_task(work, name="download.file")
        except ExceptionGroup as group:
            first = next((one for one in group.exceptions if isinstance(one, ModelError)), None)
            if first is None:
                raise
            raise first from None

    def _published(self, manifest: Manifest) -> StoredModel | None:
        """Return the version where it is here already, by its identity."""
        try:
            known = self.store.get(manifest.model_id, manifest.version)
        except (ModelNotFoundError, ModelCorruptError):
            return None
        return known if known.manifest.identity_sha256 == manifest.identity_sha256 else None

    def _reuse(self, manifest: Manifest, staging: Staging) -> None:
        """Link files that another version has already."""
        for file in manifest.files:
            if staging.has(file):
                continue
            for known in self.store.equal_files(file.sha256, file.size_bytes):
                if staging.link(file, known):
                    break

    async def _fetch_one(
        self,
        file: ManifestFile,
        staging: Staging,
        sources: Sequence[Source],
        report: Report,
        gate: asyncio.Semaphore,
    ) -> None:
        async with gate:
            if not staging.has(file):
                part = await open_on_thread(partial(staging.resume, file))
                try:
                    await self._fill(part, file, sources, report)
                finally:
                    part.close()
                await asyncio.to_thread(staging.finish, file)
            report(Progress(path=file.path, done_bytes=file.size_bytes, size_bytes=file.size_bytes))

    async def _fill(
        self, part: PartFile, file: ManifestFile, sources: Sequence[Source], report: Report
    ) -> None:
        """Ask one place after the other until the file is whole."""
        failures: list[SourceError] = []
        for source in sources:
            try:
                await self._fill_from(source, part, file, report)
            except SourceError as error:
                failures.append(error)
                continue
            return
        if part.whole:
            return
        if len(failures) == 1:
            raise failures[0]
        if not failures:
            raise SourceError(f"no place is known for {file.path}")
        altered = any(isinstance(failure, AlteredError) for failure in failures)
        kind = AlteredError if altered else SourceError
        raise kind(f"no place gives {file.path}: {'; '.join(map(str, failures))}")

    async def _fill_from(
        self, source: Source, part: PartFile, file: ManifestFile, report: Report
    ) -> None:
        """Read from one place, again and again while that brings anything.

        Raises:
            SourceError: It does not give this file.
        """
        backoff, tries, most = Backoff(self.uniform), 0, part.size_bytes
        while True:
            before = part.size_bytes
            try:
                if part.missing_bytes:
                    await self._read(source, part, file, report)
            except RangeIgnoredError:
                part.restart()
            except LostError:
                # Only what was never here before counts: a file can be read anew for ever.
                tries = 1 if part.size_bytes > most else tries + 1
                most = max(most, part.size_bytes)
                if tries >= TRIES:
                    raise
                await self.clock.sleep(backoff.next_s())
                continue
            else:
                if part.whole:
                    return
                # Wrong bytes, ours of an earlier attempt or theirs: once more from the beginning.
                part.restart()
                if before == 0:
                    raise AlteredError(f"{source.name} has other bytes for {file.path}")
            tries += 1
            if tries >= TRIES:
                raise SourceError(f"{source.name} never gives {file.path} whole")

    async def _read(
        self, source: Source, part: PartFile, file: ManifestFile, report: Report
    ) -> None:
        pace, waiting = _Pace(self.clock), bytearray()

        def tell() -> None:
            done = part.size_bytes
            report(Progress(path=file.path, done_bytes=done, size_bytes=file.size_bytes))

        tell()
        try:
            async with source.open(file.path, part.size_bytes) as blocks:
                async for block in blocks:
                    if len(block) + len(waiting) > part.missing_bytes:
                        waiting.clear()
                        part.restart()
                        raise AlteredError(f"{source.name} has a longer {file.path}")
                    waiting += block
                    if len(waiting) >= WRITE_BYTES:
                        await _append(part, waiting)
                        tell()
                    pace.count(len(block), source.name)
        finally:
            await _append(part, waiting)
        if part.missing_bytes:
            raise LostError(f"{source.name} ended {file.path} early")


async def _append(part: PartFile, waiting: bytearray) -> None:
    """Hash and write on a thread; whoever is cancelled meanwhile waits for it to end."""
    if not waiting:
        return
    block = bytes(waiting)
    waiting.clear()
    work = asyncio.ensure_future(asyncio.to_thread(part.append, block))
    try:
        await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait([work])
        raise


class _Pace:
    """Notices a place that keeps the line open and gives next to nothing."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._since = clock.monotonic()
        self._bytes = 0

    def count(self, size: int, name: str) -> None:
        self._bytes += size
        now = self._clock.monotonic()
        if now - self._since < PACE_S:
            return
        if self._bytes < PACE_BYTES:
            raise LostError(f"{name} is too slow")
        self._since, self._bytes = now, 0
