"""Files of a version to where providers fetch them; `manifest.json` last, and never over another.

A half upload has no manifest, so it can never be registered by mistake. Before the first file the
place is reserved by what all files come to: whoever comes second with others under the same version
is refused by the store itself, and has overwritten nothing.
"""

import asyncio
import os
import secrets
import shutil
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import obstore
from darkbloom_edge.manifest import MANIFEST_NAME, Manifest, ManifestFile
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    NotFoundError,
    PermissionDeniedError,
)
from obstore.store import S3Store

from darkbloom_registry.cli.snapshot import digest_of

if TYPE_CHECKING:
    from obstore.store import ClientConfig, S3Config

WORKERS = 8
_PART = 32 << 20
"""Of a file, in memory; 10,000 of them are the most that stores take."""
_PARTS = 2
RESERVED = ".reserved"
"""Beside the files: whose place it is. No file of a model is hidden, so none is called so."""
TAKEN = "another version of this name is there already"


class UploadError(Exception):
    """The store refused, or holds another version of this name; the message names no secret."""


class Target(Protocol):
    """Where files go; paths are relative to the target."""

    async def put(self, path: str, file: Path) -> None:
        """Write a file over whatever is there."""
        ...

    async def put_once(self, path: str, data: bytes) -> None:
        """Write what is not there yet; the same bytes pass, and others are `UploadError`."""
        ...

    async def get(self, path: str) -> bytes | None:
        """Return what is there."""
        ...

    def source(self, prefix: str) -> str:
        """Return what the registry is told of the place."""
        ...


async def upload(directory: Path, manifest: Manifest, data: bytes, target: Target) -> str:
    """Reserve the place, write every file, then the manifest; return the source to register.

    Raises:
        UploadError: the store refused, a local file is not what the manifest says, or others were
            uploaded, or begun, under this version.
    """
    name = f"{manifest.r2_prefix}/{MANIFEST_NAME}"
    # Of a place that is older than reservations, its manifest says whose it is: before, lest others
    # reserve what is its owner's, and after, as the owner may have come to an end meanwhile.
    await _check_owner(name, data, target)
    await target.put_once(f"{manifest.r2_prefix}/{RESERVED}", manifest.identity_sha256.encode())
    await _check_owner(name, data, target)
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

    await target.put_once(name, data)
    return target.source(manifest.r2_prefix)


async def _check_owner(name: str, data: bytes, target: Target) -> None:
    if await target.get(name) not in {None, data}:
        raise UploadError(TAKEN)


async def _put(directory: Path, prefix: str, file: ManifestFile, target: Target) -> None:
    local = directory / file.path
    if not await asyncio.to_thread(_same, local, file):
        raise UploadError(f"{file.path}: not the file that was hashed")
    await target.put(f"{prefix}/{file.path}", local)


def _same(local: Path, file: ManifestFile) -> bool:
    try:
        return digest_of(local) == (file.size_bytes, file.sha256)
    except OSError:
        return False


class FolderTarget:
    """A folder of this machine or of its network."""

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()

    async def put(self, path: str, file: Path) -> None:
        """Copy a file into place at once."""
        await asyncio.to_thread(self._copy, self._root / path, file)

    async def put_once(self, path: str, data: bytes) -> None:
        """Write a small file where none is."""
        await asyncio.to_thread(self._create, self._root / path, data)

    async def get(self, path: str) -> bytes | None:
        """Read a small file."""
        return await asyncio.to_thread(_read, self._root / path)

    def source(self, prefix: str) -> str:
        """Return the folder of the version."""
        return f"file://{self._root}/{prefix}"

    def _create(self, place: Path, data: bytes) -> None:
        staged = place.with_name(f".{place.name}.{secrets.token_hex(8)}.part")
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            staged.write_bytes(data)
            try:
                # Unlike a rename it refuses what is there; unlike opening it is whole at once.
                os.link(staged, place)
            except FileExistsError:
                if place.read_bytes() != data:
                    raise UploadError(TAKEN) from None
            finally:
                staged.unlink()
        except OSError as error:
            raise UploadError(f"{place.name}: {error.strerror}") from None

    def _copy(self, place: Path, file: Path) -> None:
        try:
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

    async def put(self, path: str, file: Path) -> None:
        """Send a file."""
        try:
            await obstore.put_async(
                self._store, path, file, chunk_size=_PART, max_concurrency=_PARTS
            )
        except (BaseError, OSError) as error:
            raise _refused(path, error) from None

    async def put_once(self, path: str, data: bytes) -> None:
        """Send a small file where none is."""
        try:
            await obstore.put_async(self._store, path, data, mode="create", use_multipart=False)
        except AlreadyExistsError:
            if await self.get(path) != data:
                raise UploadError(TAKEN) from None
        except (BaseError, OSError) as error:
            raise _refused(path, error) from None

    async def get(self, path: str) -> bytes | None:
        """Fetch a small file."""
        try:
            found = await obstore.get_async(self._store, path)
            return bytes(await found.bytes_async())
        except (NotFoundError, FileNotFoundError, PermissionDeniedError):
            # A store that may not be listed says "forbidden" of what is not there.
            return None
        except (BaseError, OSError) as error:
            raise _refused(path, error) from None

    def source(self, prefix: str) -> str:
        """Return bucket and prefix."""
        return f"s3://{self._bucket}/{prefix}"


def _read(place: Path) -> bytes | None:
    try:
        return place.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UploadError(f"{place.name}: {error.strerror}") from None


def _refused(path: str, error: Exception) -> UploadError:
    return UploadError(f"{path}: the store refuses ({type(error).__name__})")


def _first(group: ExceptionGroup[Exception]) -> Exception:
    found = group.exceptions[0]
    return _first(found) if isinstance(found, ExceptionGroup) else found
