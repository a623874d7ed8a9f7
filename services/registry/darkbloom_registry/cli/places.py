"""What the registry will name must be there: each file of a manifest, of its size, at each place.

The check of a publisher (spec/registry.md §6). Machines check every byte; this finds the half
upload before anybody is asked to fetch it.
"""

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

import obstore
from darkbloom_edge.manifest import MANIFEST_NAME, MAX_DOCUMENT_BYTES, Manifest, ManifestFile
from darkbloom_edge.model_source import ModelSource, SourceKind
from obstore.exceptions import BaseError
from obstore.store import HTTPStore, S3Store

from darkbloom_registry.cli.upload import UploadError

if TYPE_CHECKING:
    from obstore.store import ClientConfig, S3Config

WORKERS: Final = 8
COUNTED_BYTES: Final = 64 << 20
"""A file without a length is read and counted up to here; a larger one is not believed."""
HUB: Final = "https://huggingface.co"
_SMALL: Final = MAX_DOCUMENT_BYTES + 1


class Place(Protocol):
    """Where files of a version are; paths are relative to the version."""

    async def size(self, path: str) -> int | None:
        """Return the size of a file in bytes; None where the place does not tell.

        Raises:
            UploadError: it is not there.
        """
        ...

    async def read(self, path: str, most: int) -> bytes:
        """Return a file's first bytes, `most` of them.

        Raises:
            UploadError: it is not there.
        """
        ...


async def check_place(place: Place, manifest: Manifest, data: bytes, *, has_manifest: bool) -> None:
    """Find every file of a manifest, each of its size.

    Args:
        place: Where they should be.
        manifest: What should be there.
        data: Its exact bytes.
        has_manifest: Whether the place keeps the manifest, too; it is written last.

    Raises:
        UploadError: a file is missing, or is another one.
    """
    if has_manifest and await place.read(MANIFEST_NAME, _SMALL) != data:
        raise UploadError(f"{MANIFEST_NAME}: not the one that is registered")
    waiting = iter(manifest.files)

    async def work() -> None:
        for file in waiting:
            await _check(place, file)

    try:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(WORKERS):
                tasks.create_task(work())
    except ExceptionGroup as group:
        raise next(iter(_flat(group))) from None


async def _check(place: Place, file: ManifestFile) -> None:
    size = await place.size(file.path)
    if size is None:
        if file.size_bytes > COUNTED_BYTES:
            raise UploadError(f"{file.path}: the place does not tell its size")
        size = len(await place.read(file.path, file.size_bytes + 1))
    if size != file.size_bytes:
        raise UploadError(f"{file.path}: {size} bytes there, {file.size_bytes} in the manifest")


class FolderPlace:
    """A folder of this machine or of its network."""

    def __init__(self, root: Path) -> None:
        self._root = root

    async def size(self, path: str) -> int | None:
        """Return the size of a file."""
        try:
            return (await asyncio.to_thread((self._root / path).stat)).st_size
        except OSError as error:
            raise UploadError(f"{path}: {error.strerror}") from None

    async def read(self, path: str, most: int) -> bytes:
        """Return a file's first bytes."""
        try:
            return await asyncio.to_thread(_head, self._root / path, most)
        except OSError as error:
            raise UploadError(f"{path}: {error.strerror}") from None


class StorePlace:
    """A web folder or a prefix of a bucket, through `obstore`."""

    def __init__(self, store: HTTPStore | S3Store, prefix: str) -> None:
        self._store = store
        self._prefix = prefix

    async def size(self, path: str) -> int | None:
        """Ask for the size alone."""
        try:
            return (await obstore.head_async(self._store, self._prefix + path))["size"]
        except (BaseError, OSError) as error:
            if "Content-Length" in str(error):
                return None
            raise _refused(path, error) from None

    async def read(self, path: str, most: int) -> bytes:
        """Read as far as needed, whatever length was announced."""
        found = bytearray()
        try:
            answer = await obstore.get_async(self._store, self._prefix + path)
            async for block in answer.stream():
                found += bytes(block)
                if len(found) >= most:
                    break
        except (BaseError, OSError) as error:
            raise _refused(path, error) from None
        return bytes(found[:most])


def place_of(source: ModelSource, config: "S3Config", *, plain_http: bool) -> Place:
    """Return the place that a source names.

    Args:
        source: As it is registered.
        config: How to reach an S3-compatible store.
        plain_http: Whether its endpoint may speak plain HTTP.
    """
    options: ClientConfig = {
        "allow_http": plain_http or source.location.startswith("http://"),
        "connect_timeout": timedelta(seconds=10),
        "timeout": timedelta(seconds=60),
    }
    if source.kind is SourceKind.FILE:
        return FolderPlace(Path(source.location))
    if source.kind is SourceKind.S3:
        bucket, _, prefix = source.location.partition("/")
        whole: S3Config = {**config, "virtual_hosted_style_request": False}
        store = S3Store(bucket, config=whole, client_options=options)
        return StorePlace(store, f"{prefix}/" if prefix else "")
    base = source.location
    if source.kind is SourceKind.HUGGING_FACE:
        base = f"{HUB}/{source.location}/resolve/{source.revision}"
    return StorePlace(HTTPStore.from_url(base, client_options=options), "")


def _refused(path: str, error: Exception) -> UploadError:
    return UploadError(f"{path}: the place refuses ({type(error).__name__})")


def _head(path: Path, most: int) -> bytes:
    with path.open("rb") as file:
        return file.read(most)


def _flat(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    return [
        one
        for found in group.exceptions
        for one in (_flat(found) if isinstance(found, BaseExceptionGroup) else [found])
    ]
