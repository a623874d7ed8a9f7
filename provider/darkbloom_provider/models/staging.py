"""A download on its way: whole files in one folder, begun ones in another, both kept for later.

    <build>/.staging-<version>-<12 hex>/     files that are whole and have their digest
    <build>/.parts-<version>-<12 hex>/<n>    the beginning of file n of the manifest

The 12 digits are of the identity hash, so bytes of one manifest never meet those of another.
Everything here belongs to whoever holds the writer lease of the build.
"""

import errno
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

from darkbloom_edge.manifest import Manifest, ManifestFile

from darkbloom_provider.models.errors import DiskFullError, ManifestError, ModelCorruptError
from darkbloom_provider.models.files import hash_file
from darkbloom_provider.models.store import ModelStore

STAGING_PREFIX: Final = ".staging-"
PARTS_PREFIX: Final = ".parts-"
_READ: Final = 1 << 20
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


class Staging:
    """The two folders of one download."""

    def __init__(self, files: Path, parts: Path, manifest: Manifest) -> None:
        self.files = files
        """What `ModelStore.publish` takes."""
        self._parts = parts
        self._manifest = manifest
        self._numbers = {file.path: number for number, file in enumerate(manifest.files)}

    def has(self, file: ManifestFile) -> bool:
        """Tell whether a file is whole; it had its digest when it came here."""
        path = self.files / file.path
        return path.is_file() and not path.is_symlink() and path.stat().st_size == file.size_bytes

    def begun_bytes(self, file: ManifestFile) -> int:
        """Give how many bytes of a file are here, whole or begun."""
        if self.has(file):
            return file.size_bytes
        try:
            size = self._part(file).stat(follow_symlinks=False).st_size
        except OSError:
            return 0
        return size if size <= file.size_bytes else 0

    def missing_bytes(self) -> int:
        """Give how many bytes are still to come."""
        total = sum(self.begun_bytes(file) for file in self._manifest.files)
        return self._manifest.total_size_bytes - total

    def resume(self, file: ManifestFile) -> "PartFile":
        """Open the beginning of a file, hash what is there, and go on behind it.

        Raises:
            DiskFullError, ModelCorruptError: It cannot be opened.
        """
        return PartFile(self._part(file), file)

    def finish(self, file: ManifestFile) -> None:
        """Move a file that is whole and has its digest to its place.

        Raises:
            ManifestError: A folder is where the file shall be, or the other way round.
        """
        self._place(file, self._part(file).rename)

    def link(self, file: ManifestFile, source: Path) -> bool:
        """Take an equal file of another version without a copy; False where that cannot be.

        The bytes are hashed first: a version that has rotted on the disk is no source.
        """
        try:
            if source.stat(follow_symlinks=False).st_size != file.size_bytes:
                return False
            if hash_file(source) != file.sha256:
                return False
            self._place(file, lambda target: os.link(source, target, follow_symlinks=False))
        except (OSError, ModelCorruptError, ManifestError):
            return False
        return True

    def clean(self) -> None:
        """Remove what was begun; the whole files stay for `publish`."""
        shutil.rmtree(self._parts, ignore_errors=True)

    def discard(self) -> None:
        """Remove everything."""
        self.clean()
        shutil.rmtree(self.files, ignore_errors=True)

    def _place(self, file: ManifestFile, put: Callable[[Path], object]) -> None:
        target = self.files / file.path
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            put(target)
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            raise ManifestError(f"file {file.path} is also a folder") from None

    def _part(self, file: ManifestFile) -> Path:
        return self._parts / str(self._numbers[file.path])


class PartFile:
    """One file as far as it has come; its digest is kept along the way."""

    def __init__(self, path: Path, file: ManifestFile) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            self._stream: IO[bytes] = os.fdopen(os.open(path, flags, 0o600), "r+b", buffering=0)
        except OSError as error:
            raise disk_error(error, path.name) from None
        self.size_bytes = 0
        if os.fstat(self._stream.fileno()).st_size > file.size_bytes:
            self.restart()
        while block := self._stream.read(_READ):
            self._digest.update(block)
            self.size_bytes += len(block)

    @property
    def missing_bytes(self) -> int:
        """Bytes that are still to come."""
        return self._file.size_bytes - self.size_bytes

    @property
    def whole(self) -> bool:
        """Whether size and digest are those of the manifest."""
        return not self.missing_bytes and self._digest.hexdigest() == self._file.sha256

    def append(self, block: bytes) -> None:
        """Write the next bytes.

        Raises:
            DiskFullError: The volume is full.
            ModelCorruptError: It cannot be written.
        """
        try:
            view = memoryview(block)
            while view:
                view = view[self._stream.write(view) :]
        except OSError as error:
            raise disk_error(error, self._file.path) from None
        self._digest.update(block)
        self.size_bytes += len(block)

    def restart(self) -> None:
        """Forget all bytes."""
        self._stream.seek(0)
        self._stream.truncate()
        self._digest = hashlib.sha256()
        self.size_bytes = 0

    def close(self) -> None:
        """Close the file; what was written stays."""
        self._stream.close()


def disk_error(error: OSError, name: str) -> DiskFullError | ModelCorruptError:
    """Say what a failed write means."""
    if error.errno in _FULL:
        return DiskFullError(f"the volume is full at {name}; what is here is kept")
    return ModelCorruptError(f"{name} cannot be written ({error.strerror})")


@contextmanager
def staged(store: ModelStore, manifest: Manifest) -> Iterator[Staging]:
    """Hold the writer lease of a build and give its staging, as the last attempt left it.

    Stagings of other manifests under the same version are removed: they can never be finished.

    Raises:
        ModelBusyError: Another process is writing this build.
    """
    target = store.directory(manifest.model_id, manifest.version)
    with store.lease(manifest.model_id):
        mark = f"{manifest.version}-{manifest.identity_sha256[:12]}"
        files = target.parent / f"{STAGING_PREFIX}{mark}"
        parts = target.parent / f"{PARTS_PREFIX}{mark}"
        for prefix, keep in ((STAGING_PREFIX, files), (PARTS_PREFIX, parts)):
            for other in target.parent.glob(f"{prefix}{manifest.version}-*"):
                if other != keep and len(other.name) == len(keep.name):
                    shutil.rmtree(other, ignore_errors=True)
            if keep.is_symlink():
                keep.unlink()
            keep.mkdir(mode=0o700, exist_ok=True)
        yield Staging(files, parts, manifest)
