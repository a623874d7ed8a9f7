"""Files of a version to where providers fetch them; `manifest.json` last, and never over another.

A half upload has no manifest, so it can never be registered by mistake; and whoever comes second
with other bytes under the same version is refused by the store itself.
"""

import asyncio
import shutil
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import obstore
from darkbloom_edge.manifest import MANIFEST_NAME, Manifest, ManifestFile
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import S3Store

from darkbloom_registry.cli.snapshot import digest_of

if TYPE_CHECKING:
    from obstore.store import ClientConfig, S3Config

WORKERS = 8
_PART = 32 << 20
"""Of a file, in memory; 10,000 of them are the most that stores take."""
_PARTS = 2
TAKEN = "another version of this name is there already"


class UploadError(Exception):
    """The store refused, or holds another version of this name; the message names no secret."""


class Target(Protocol):
    """Where files go; paths are relative to the target."""

    async def put(self, path: str, file: Path, *, once: bool) -> None:
        """Write a file; `once` refuses to replace other bytes."""
        ...

    def source(self, prefix: str) -> str:
        """Return what the registry is told of the place."""
        ...


async def upload(directory: Path, manifest: Manifest, data: bytes, target: Target) -> str:
    """Write every file of a manifest, then the manifest; return the source to register.

    Raises:
        UploadError: the store refused, or a local file is not what the manifest says.
    """
    waiting = iter(manifest.files)

    async def work() -> None:
        for file in waiting:
            await _put(directory, manifest.r2_prefix, file, target)

    try:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(WORKERS):
                tasks.create_task(work())
    except ExceptionGroup as group:
        raise _first(group) from None

    staged = directory / f".{MANIFEST_NAME}"
    staged.write_bytes(data)
    try:
        name = f"{manifest.r2_prefix}/{MANIFEST_NAME}"
        await target.put(name, staged, once=True)
    finally:
        staged.unlink(missing_ok=True)
    return target.source(manifest.r2_prefix)


async def _put(directory: Path, prefix: str, file: ManifestFile, target: Target) -> None:
    local = directory / file.path
    if not await asyncio.to_thread(_same, local, file):
        raise UploadError(f"{file.path}: not the file that was hashed")
    await target.put(f"{prefix}/{file.path}", local, once=False)


def _same(local: Path, file: ManifestFile) -> bool:
    try:
        return digest_of(local) == (file.size_bytes, file.sha256)
    except OSError:
        return False


class FolderTarget:
    """A folder of this machine or of its network."""

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()

    async def put(self, path: str, file: Path, *, once: bool) -> None:
        """Copy a file into place at once."""
        await asyncio.to_thread(self._copy, self._root / path, file, once=once)

    def source(self, prefix: str) -> str:
        """Return the folder of the version."""
        return f"file://{self._root}/{prefix}"

    def _copy(self, place: Path, file: Path, *, once: bool) -> None:
        try:
            if once and place.exists():
                if place.read_bytes() != file.read_bytes():
                    raise UploadError(TAKEN)
                return
            place.parent.mkdir(parents=True, exist_ok=True)
            staged = place.with_name(f".{place.name}.part")
            shutil.copyfile(file, staged)
            staged.replace(place)
        except OSError as error:
            raise UploadError(f"{place.name}: {error.strerror}") from None


class S3Target:
    """A bucket of an S3-compatible store; `obstore` signs, and sends large files in parts.

    Args:
        bucket: its name.
        config: endpoint, region and credentials.
        plain_http: whether the endpoint may speak plain HTTP; for development.
    """

    def __init__(self, bucket: str, config: "S3Config", *, plain_http: bool = False) -> None:
        options: ClientConfig = {
            "allow_http": plain_http,
            "connect_timeout": timedelta(seconds=10),
            # Of a whole request; a part of a file may take its time.
            "timeout": timedelta(hours=1),
        }
        self._bucket = bucket
        self._store = S3Store(
            bucket,
            config={**config, "virtual_hosted_style_request": False},
            client_options=options,
        )

    async def put(self, path: str, file: Path, *, once: bool) -> None:
        """Send a file."""
        try:
            if once:
                await obstore.put_async(self._store, path, file, mode="create", use_multipart=False)
            else:
                await obstore.put_async(
                    self._store, path, file, chunk_size=_PART, max_concurrency=_PARTS
                )
        except AlreadyExistsError:
            await self._compare(path, file)
        except (BaseError, OSError) as error:
            raise UploadError(f"{path}: the store refuses ({type(error).__name__})") from None

    def source(self, prefix: str) -> str:
        """Return bucket and prefix."""
        return f"s3://{self._bucket}/{prefix}"

    async def _compare(self, path: str, file: Path) -> None:
        """Let the same bytes pass: a repeated upload is none."""
        try:
            found = await obstore.get_async(self._store, path)
            held = bytes(await found.bytes_async())
        except (BaseError, OSError) as error:
            raise UploadError(f"{path}: the store refuses ({type(error).__name__})") from None
        if held != await asyncio.to_thread(file.read_bytes):
            raise UploadError(TAKEN)


def _first(group: ExceptionGroup[Exception]) -> Exception:
    found = group.exceptions[0]
    return _first(found) if isinstance(found, ExceptionGroup) else found
