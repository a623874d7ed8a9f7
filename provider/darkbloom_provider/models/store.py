"""The model store on disk.

    <root>/<slug>--<12 hex>/<version>/…files…, manifest.json     published, never changed
    <root>/<slug>--<12 hex>/.staging-<version>/                   being written
    <root>/<slug>--<12 hex>/.lock                                 writer lease, a kernel file lock
    <root>/<slug>--<12 hex>/.selected                             version that is served
    <root>/<slug>--<12 hex>/.in-use-<version>                     locked by whoever serves it

A version appears by one rename, so a reader sees a whole version or none. Symbolic links are
refused everywhere: the store believes only bytes that live in it.
"""

import contextlib
import dataclasses
import fcntl
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Final

from darkbloom_edge.errors import MalformedError
from darkbloom_edge.manifest import (
    MANIFEST_NAME,
    MAX_DOCUMENT_BYTES,
    Manifest,
    ManifestFile,
    build_manifest,
    parse_manifest,
    role_of,
    store_name,
    valid_model_id,
    valid_version,
)

from darkbloom_provider.models.errors import (
    DiskFullError,
    ManifestError,
    ModelBusyError,
    ModelCorruptError,
    ModelExistsError,
    ModelInUseError,
    ModelNotFoundError,
)
from darkbloom_provider.models.files import (
    hash_file,
    ignore_progress,
    plain_files,
    sync,
    write_durably,
)

DISK_MARGIN_BYTES: Final = 64 << 20
"""What a write leaves free on the volume."""
_STAGING: Final = ".staging-"
_LOCK: Final = ".lock"
_SELECTED: Final = ".selected"
_IN_USE: Final = ".in-use-"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class StoredModel:
    """A published version."""

    manifest: Manifest
    directory: Path


class ModelStore:
    """Published versions under one root.

    Invariant: a directory whose name does not begin with a dot holds a complete version.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    @property
    def root(self) -> Path:
        """Where the store is."""
        return self._root

    def directory(self, model_id: str, version: str) -> Path:
        """Give the folder of a version, whether or not it exists.

        Raises:
            ManifestError: An id outside the rules.
        """
        require_ids(model_id, version)
        return self._root / store_name(model_id) / version

    def list(self) -> list[StoredModel]:
        """Give every readable version, by id and then newest first; does not hash."""
        found = []
        for build in _folders(self._root):
            for directory in _folders(build):
                with contextlib.suppress(ModelCorruptError, ModelNotFoundError):
                    found.append(self._open(directory))
        found.sort(key=lambda stored: stored.manifest.created_at, reverse=True)
        found.sort(key=lambda stored: stored.manifest.model_id)
        return found

    def get(self, model_id: str, version: str | None = None) -> StoredModel:
        """Open a version, when none is named the selected or else the newest; does not hash.

        Raises:
            ManifestError: An id outside the rules.
            ModelNotFoundError: Not here.
            ModelCorruptError: Its manifest is unreadable.
        """
        if version is not None:
            return self._open(self.directory(model_id, version))
        require_ids(model_id)
        versions = [
            self._open(directory) for directory in _folders(self._root / store_name(model_id))
        ]
        if not versions:
            raise ModelNotFoundError(f"model {model_id} is not in the store")
        selected = self.selected(model_id)
        return max(
            versions,
            key=lambda one: (one.manifest.version == selected, one.manifest.created_at),
        )

    def served(self) -> Sequence[StoredModel]:
        """Give one version of each build, as `get` chooses it, by id; does not hash."""
        found: dict[str, StoredModel] = {}
        for one in self.list():
            model_id = one.manifest.model_id
            if model_id not in found or one.manifest.version == self.selected(model_id):
                found[model_id] = one
        return tuple(found.values())

    def selected(self, model_id: str) -> str:
        """Give the version that was selected; empty where none was."""
        try:
            text = (self._root / store_name(model_id) / _SELECTED).read_text("ascii").strip()
        except (OSError, UnicodeDecodeError):
            return ""
        return text if valid_version(text) else ""

    def select(self, stored: StoredModel) -> None:
        """Make a version the one that is served from the next start on; atomic."""
        path = stored.directory.parent / _SELECTED
        scratch = path.with_name(f"{_SELECTED}.new")
        write_durably(scratch, f"{stored.manifest.version}\n".encode())
        scratch.replace(path)

    def use(self, stored: StoredModel) -> IO[bytes]:
        """Mark a version as served; it is removed by force only, until the file is closed.

        A kernel lock, so that a killed agent leaves no mark.
        """
        file = (stored.directory.parent / f"{_IN_USE}{stored.manifest.version}").open("wb")
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return file

    def in_use(self, model_id: str, version: str) -> bool:
        """Tell whether somebody serves a version now."""
        path = self.directory(model_id, version).parent / f"{_IN_USE}{version}"
        try:
            with path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except OSError:
            return True
        return False

    def equal_files(self, sha256: str, size_bytes: int) -> Iterator[Path]:
        """Give files of published versions that should have this content; does not hash."""
        for stored in self.list():
            for file in stored.manifest.files:
                if file.sha256 == sha256 and file.size_bytes == size_bytes:
                    yield stored.directory / file.path

    def verify(self, stored: StoredModel, progress: Callable[[int], None] = ignore_progress) -> str:
        """Hash every byte of a version.

        Args:
            stored: What to hash.
            progress: Called with the size of each block as it is read.

        Returns:
            The weight hash, computed from the bytes on disk.

        Raises:
            ModelCorruptError: A file is missing, surplus or different.
        """
        check_layout(stored.directory, stored.manifest)
        for file in stored.manifest.files:
            if hash_file(stored.directory / file.path, progress) != file.sha256:
                raise ModelCorruptError(f"file {file.path} has another digest than its manifest")
        return stored.manifest.aggregate_sha256

    @contextlib.contextmanager
    def staging(self, model_id: str, version: str) -> Iterator[Path]:
        """Hold the writer lease of a build and give an empty folder to fill.

        Nothing of it remains unless `publish` was called inside.

        Raises:
            ManifestError: An id outside the rules.
            ModelBusyError: Another writer holds the lease.
        """
        target = self.directory(model_id, version)
        with self.lease(model_id):
            staging = target.parent / f"{_STAGING}{version}"
            shutil.rmtree(staging, ignore_errors=True)
            staging.mkdir(mode=0o700)
            try:
                yield staging
            finally:
                shutil.rmtree(staging, ignore_errors=True)

    def publish(self, staging: Path, document: bytes) -> StoredModel:
        """Turn a filled staging folder into a version, whole or not at all.

        The same bytes again are a no-op.

        Args:
            staging: From `staging`; files only, without a manifest.
            document: The exact bytes of `manifest.json`.

        Raises:
            ManifestError: The document breaks a rule.
            ModelCorruptError: The folder does not hold what the manifest says.
            ModelExistsError: The version exists with other bytes.
        """
        manifest = _parse(document)
        target = self.directory(manifest.model_id, manifest.version)
        check_layout(staging, manifest)
        if target.exists():
            existing = self._open(target)
            if existing.manifest.identity_sha256 != manifest.identity_sha256:
                raise ModelExistsError(
                    f"version {manifest.version} of {manifest.model_id} exists with other bytes"
                )
            return existing

        write_durably(staging / MANIFEST_NAME, document)
        for file in manifest.files:
            sync(staging / file.path)
        sync(staging)
        staging.rename(target)
        sync(target.parent)
        return StoredModel(manifest=manifest, directory=target)

    def remove(self, model_id: str, version: str, *, force: bool = False) -> None:
        """Delete a version; links are not followed.

        Raises:
            ManifestError: An id outside the rules.
            ModelNotFoundError: Not here.
            ModelBusyError: A writer holds the lease of the build.
            ModelInUseError: It is served, and `force` was not given.
        """
        target = self.directory(model_id, version)
        if target.is_symlink() or target.parent.is_symlink() or not target.is_dir():
            raise ModelNotFoundError(f"model {model_id} {version} is not in the store")
        with self.lease(model_id):
            if self.in_use(model_id, version) and not force:
                raise ModelInUseError(f"model {model_id} {version} is being served")
            # Renamed first, so that no reader ever meets a half-deleted version.
            doomed = target.parent / f"{_STAGING}removed-{version}"
            shutil.rmtree(doomed, ignore_errors=True)
            target.rename(doomed)
            shutil.rmtree(doomed)
            if self.selected(model_id) == version:
                (target.parent / _SELECTED).unlink(missing_ok=True)

    def require_space(self, size_bytes: int) -> None:
        """Check the volume before a write begins.

        Raises:
            DiskFullError: Less than `size_bytes` and a margin are free.
        """
        self._root.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self._root).free
        if free < size_bytes + DISK_MARGIN_BYTES:
            raise DiskFullError(f"{size_bytes} bytes needed, {free} bytes free")

    def _open(self, directory: Path) -> StoredModel:
        path = directory / MANIFEST_NAME
        try:
            with path.open("rb") as file:
                data = file.read(MAX_DOCUMENT_BYTES + 1)
        except OSError as error:
            raise ModelNotFoundError(f"no manifest in {directory.name}") from error
        try:
            manifest = _parse(data)
        except ManifestError as error:
            raise ModelCorruptError(f"manifest in {directory.name} is not valid") from error
        if self.directory(manifest.model_id, manifest.version) != directory:
            raise ModelCorruptError(f"manifest in {directory.name} names another version")
        return StoredModel(manifest=manifest, directory=directory)

    @contextlib.contextmanager
    def lease(self, model_id: str) -> Iterator[None]:
        """Be the one writer of a build.

        Raises:
            ManifestError: An id outside the rules.
            ModelBusyError: Another process is.
        """
        require_ids(model_id)
        build = self._root / store_name(model_id)
        build.mkdir(parents=True, exist_ok=True)
        with (build / _LOCK).open("wb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise ModelBusyError(f"another process is writing {build.name}") from error
            yield


def require_ids(model_id: str, version: str | None = None) -> None:
    """Refuse names that the registry would refuse.

    Raises:
        ManifestError: An id outside the rules.
    """
    if not valid_model_id(model_id):
        raise ManifestError("not an id of a build")
    if version is not None and not valid_version(version):
        raise ManifestError("not a version")


def describe(directory: Path, model_id: str, version: str, created_at: str) -> bytes:
    """Hash a folder's integrity surface into the bytes of a manifest.

    Raises:
        ManifestError: Nothing to describe, or names outside the rules.
        ModelCorruptError: A link or a special file where a plain file is expected.
    """
    files = []
    for path in sorted(plain_files(directory)):
        role = role_of(path)
        if role is not None:
            full = directory / path
            files.append(
                ManifestFile(
                    path=path, size_bytes=full.stat().st_size, sha256=hash_file(full), role=role
                )
            )
    try:
        return build_manifest(model_id, version, files, created_at)
    except MalformedError as error:
        raise ManifestError(f"files cannot be described, {error}") from error


def _parse(document: bytes) -> Manifest:
    try:
        return parse_manifest(document)
    except MalformedError as error:
        raise ManifestError(f"manifest is not valid, {error}") from error


def check_layout(directory: Path, manifest: Manifest) -> None:
    """Check that a folder holds exactly the manifest's files, by name and size.

    Raises:
        ModelCorruptError: A file is missing, surplus, of another size, or not a plain file.
    """
    present = set(plain_files(directory))
    for file in manifest.files:
        if file.path not in present:
            raise ModelCorruptError(f"file {file.path} is missing")
        if (directory / file.path).stat().st_size != file.size_bytes:
            raise ModelCorruptError(f"file {file.path} has another size than its manifest")
    surplus = present - {file.path for file in manifest.files}
    # Notes beside the weights are harmless; a file that the loader would read is not.
    if any(role_of(path) is not None for path in surplus):
        raise ModelCorruptError("folder holds a model file that its manifest does not list")


def _folders(parent: Path) -> list[Path]:
    try:
        entries = sorted(parent.iterdir())
    except OSError:
        return []
    return [
        entry
        for entry in entries
        if not entry.name.startswith(".") and entry.is_dir() and not entry.is_symlink()
    ]
