"""Signed terminals on disk: one append-only file that survives kill -9 and a torn last write.

A file is a header and records `u32 length ‖ u32 CRC-32 ‖ payload`, little-endian. A payload is a
MessagePack array: a terminal, or the id of one that was acknowledged. It holds ids, counts, keyed
digests and signatures, and never content or a key. What does not parse ends the file: everything
before it counts, and the file is written anew.
"""

import os
import struct
import threading
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec
import structlog

MAGIC: Final = b"DBTJ"
VERSION: Final = 1
MAX_RECORD_BYTES: Final = 64 * 1024
"""Longer than any terminal; a length above it is damage."""
MAX_FILE_BYTES: Final = 64 * 1024 * 1024
COMPACT_BYTES: Final = 256 * 1024
"""A file of this size is written anew when most of it is settled."""
_HEADER: Final = struct.Struct("<4sH32s")
_FRAME: Final = struct.Struct("<II")

_log = structlog.get_logger()


class Record(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """A terminal that waits for its acknowledgement."""

    attempt_id: str
    at_ms: int
    """Wall time of its end."""
    document: bytes
    signature: bytes


class _Gone(msgspec.Struct, frozen=True, array_like=True, tag=2):
    attempt_id: str


_DECODER: Final = msgspec.msgpack.Decoder(Record | _Gone)


class Journal:
    """One file, one writer. Calls may come from any thread.

    A disk that fails is tried again with each commit: once it takes the file, all that lives is in
    it. A file that could not be read at the start is never written over: it is set aside, as
    `*.unread`, before the first new one.

    Args:
        path: The file, 0600; its folder exists.
        identity: SHA-256 of the public key that signs. A file of another identity is another
            machine's, and begins anew: this one cannot settle what another signed.
    """

    def __init__(self, path: Path, identity: bytes) -> None:
        self._path = path
        self._identity = identity
        self._file = -1
        self._size = 0
        self._live: dict[str, bytes] = {}
        self._unread = False
        """Whether the file holds what nobody here has read."""
        self._lock = threading.Lock()

    def open(self, oldest_ms: int) -> list[Record]:
        """Read what is left, drop what ended before `oldest_ms`, and write the rest anew.

        A disk that does not take the new file takes nothing away: what was read is returned all
        the same, and the next commit tries again.

        Raises:
            OSError: the file cannot be read; whatever it holds stays on the disk.
        """
        with self._lock:
            self._unread = True
            kept = _unsettled(self._path, self._identity)
            records = [one for one in kept if one.at_ms >= oldest_ms]
            self._unread = False
            self._live = {one.attempt_id: _framed(one) for one in records}
            try:
                self._rewrite()
            except OSError as error:
                _log.warning("terminals_not_rewritten", error_type=type(error).__name__)
        return records

    def commit(self, new: Sequence[Record], gone: Sequence[str]) -> None:
        """Append terminals and acknowledgements; with terminals, return once the disk has them.

        Raises:
            OSError: the disk does not take them.
        """
        with self._lock:
            self._commit(new, gone)

    def close(self) -> None:
        """Free the file."""
        with self._lock:
            self._release()

    def _commit(self, new: Sequence[Record], gone: Sequence[str]) -> None:
        added = {record.attempt_id: _framed(record) for record in new}
        self._live |= added
        left = [one for one in gone if self._live.pop(one, None) is not None]
        data = b"".join((*added.values(), *(_framed(_Gone(one)) for one in left)))
        live_bytes = _HEADER.size + sum(map(len, self._live.values()))
        too_long = self._size > COMPACT_BYTES and self._size > 2 * live_bytes
        if self._file < 0 or too_long:
            self._rewrite()
            return
        self._append(data, durable=bool(new))

    def _release(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _append(self, data: bytes, *, durable: bool) -> None:
        try:
            _write_whole(self._file, data, self._size)
            if durable:
                os.fsync(self._file)
        except OSError:
            # Half a record would hide everything behind it, and after a failed fsync the kernel
            # may take lost pages for written ones: the next commit writes a whole new file.
            self._release()
            raise
        self._size += len(data)

    def _rewrite(self) -> None:
        """Replace the file by one that holds only what lives; atomic, and durable on return."""
        self._release()
        self._set_aside()
        scratch = self._path.with_suffix(".new")
        data = b"".join((_HEADER.pack(MAGIC, VERSION, self._identity), *self._live.values()))
        scratch.unlink(missing_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        file = os.open(scratch, flags, 0o600)
        try:
            _write_whole(file, data, 0)
            os.fsync(file)
            scratch.replace(self._path)
            _sync_folder(self._path.parent)
        except OSError:
            os.close(file)
            scratch.unlink(missing_ok=True)
            raise
        self._file, self._size = file, len(data)

    def _set_aside(self) -> None:
        if not self._unread:
            return
        if self._path.is_file() and not self._path.is_symlink():
            self._path.rename(_free_name(self._path))
        self._unread = False


def count(path: Path) -> int:
    """Return how many terminals of any identity wait in a file; 0 where none can be read."""
    try:
        return sum(1 for _ in _unsettled(path, None))
    except OSError:
        return 0


def _unsettled(path: Path, identity: bytes | None) -> Iterator[Record]:
    data = _read(path)
    if len(data) < _HEADER.size:
        return
    magic, version, owner = _HEADER.unpack_from(data)
    if (magic, version) != (MAGIC, VERSION) or owner != (identity or owner):
        _log.warning("terminals_of_another", reason="identity or format")
        return
    live: dict[str, Record] = {}
    for record in _records(data):
        if isinstance(record, Record):
            live[record.attempt_id] = record
        else:
            live.pop(record.attempt_id, None)
    yield from live.values()


def _records(data: bytes) -> Iterator[Record | _Gone]:
    offset = _HEADER.size
    while offset + _FRAME.size <= len(data):
        length, checksum = _FRAME.unpack_from(data, offset)
        start = offset + _FRAME.size
        payload = data[start : start + length]
        if length > MAX_RECORD_BYTES or len(payload) != length or zlib.crc32(payload) != checksum:
            break
        try:
            yield _DECODER.decode(payload)
        except msgspec.MsgspecError:
            break
        offset = start + length
    if offset != len(data):
        # The last write of a process that was killed; what it said was not sent either.
        _log.warning("terminals_torn", lost_bytes=len(data) - offset)


def _free_name(path: Path) -> Path:
    """Return `*.unread`, numbered where an earlier one is there already."""
    found, number = path.with_name(f"{path.name}.unread"), 1
    while found.exists():
        number += 1
        found = path.with_name(f"{path.name}.unread-{number}")
    return found


def _framed(record: Record | _Gone) -> bytes:
    payload = msgspec.msgpack.encode(record)
    return _FRAME.pack(len(payload), zlib.crc32(payload)) + payload


def _read(path: Path) -> bytes:
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return b""
    with os.fdopen(file, "rb") as stream:
        return stream.read(MAX_FILE_BYTES)


def _write_whole(file: int, data: bytes, offset: int) -> None:
    written = os.pwrite(file, data, offset)
    if written != len(data):
        raise OSError(f"the disk took {written} of {len(data)} bytes")


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
