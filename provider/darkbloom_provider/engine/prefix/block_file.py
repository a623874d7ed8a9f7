"""The file of one block, `.dbk3`: what is in it, and nothing about where it lies.

`DBKV ‖ u16 version 3 ‖ u16 flags ‖ 12 bytes IV ‖ u32 + wrapped data key ‖ u32 + metadata (sorted
JSON) ‖ u32 chunks ‖ (u32 + ciphertext)…`, little-endian. Each chunk is AES-256-GCM under the data
key of the file, with the metadata as associated data. The metadata names the file itself, its epoch
and the number of chunks, so no file, part or order can be put in the place of another.
"""

import json
import secrets
import struct
from collections.abc import Mapping, Sequence
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from darkbloom_provider.engine.prefix.keys import IV_BYTES, KEY_BYTES, CacheKeys, chunk_nonce

MAGIC: Final = b"DBKV"
VERSION: Final = 3
MAX_METADATA_BYTES: Final = 1 << 20
MAX_CHUNK_BYTES: Final = 16 << 20
"""Of ciphertext, its tag included."""
GCM_TAG_BYTES: Final = 16
MAX_CHUNKS: Final = 4096
_HEAD: Final = struct.Struct(f"<4sHH{IV_BYTES}s")
_SIZE: Final = struct.Struct("<I")

Metadata = Mapping[str, Any]


class BadBlockError(Exception):
    """The file is not what its name says: damaged, cut, moved, or of another key or epoch."""


def seal(data: Sequence[memoryview], facts: Metadata, keys: CacheKeys) -> list[bytes]:
    """Return a file in parts to be written one after the other.

    Args:
        data: The content.
        facts: Goes into the metadata: names, shapes, epoch; never tokens, scopes or ids.
        keys: Of the cache.
    """
    data_key, iv = secrets.token_bytes(KEY_BYTES), secrets.token_bytes(IV_BYTES)
    pieces = list(_pieces(data))
    sizes = {"bytes": sum(part.nbytes for part in data), "chunks": len(pieces)}
    metadata = json.dumps({**facts, **sizes}, sort_keys=True, separators=(",", ":")).encode()
    wrapped = keys.wrap(data_key, iv)
    cipher = AESGCM(data_key)
    parts = [
        _HEAD.pack(MAGIC, VERSION, 0, iv),
        _SIZE.pack(len(wrapped)) + wrapped,
        _SIZE.pack(len(metadata)) + metadata,
        _SIZE.pack(len(pieces)),
    ]
    for index, piece in enumerate(pieces):
        sealed = cipher.encrypt(chunk_nonce(data_key, iv, index), piece, metadata)
        parts += [_SIZE.pack(len(sealed)), sealed]
    return parts


def open_block(file: bytes, expected: Metadata, keys: CacheKeys) -> tuple[dict[str, Any], bytes]:
    """Return metadata and content.

    Args:
        file: All of it.
        expected: What the metadata must say.
        keys: Of the cache.

    Raises:
        BadBlockError: it is anything else than what was written under this name.
    """
    reader = _Reader(file)
    magic, version, flags, iv = _HEAD.unpack(reader.take(_HEAD.size))
    if (magic, version, flags) != (MAGIC, VERSION, 0):
        raise BadBlockError("another format")
    wrapped = reader.sized(1024)
    metadata = reader.sized(MAX_METADATA_BYTES)
    count = reader.number()
    if count > MAX_CHUNKS:
        raise BadBlockError("too many chunks")
    try:
        data_key = keys.unwrap(wrapped, iv)
        cipher = AESGCM(data_key)
        chunks = [
            cipher.decrypt(chunk_nonce(data_key, iv, i), reader.sized(MAX_CHUNK_BYTES), metadata)
            for i in range(count)
        ]
    except (InvalidTag, ValueError):
        raise BadBlockError("it does not open") from None
    content = b"".join(chunks)
    try:
        facts = json.loads(metadata)
    except ValueError:
        raise BadBlockError("metadata is no JSON") from None
    right = isinstance(facts, dict) and all(facts.get(k) == v for k, v in expected.items())
    if not right or facts.get("chunks") != count or facts.get("bytes") != len(content):
        raise BadBlockError("another block")
    return facts, content


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = memoryview(data)
        self._at = 0

    def take(self, size: int) -> memoryview:
        part = self._data[self._at : self._at + size]
        if len(part) != size:
            raise BadBlockError("the file is cut")
        self._at += size
        return part

    def number(self) -> int:
        (value,) = _SIZE.unpack(self.take(_SIZE.size))
        return int(value)

    def sized(self, most: int) -> bytes:
        size = self.number()
        if size > most:
            raise BadBlockError("a part is too long")
        return bytes(self.take(size))


def _pieces(data: Sequence[memoryview]) -> list[memoryview]:
    room = MAX_CHUNK_BYTES - GCM_TAG_BYTES
    return [
        flat[at : at + room]
        for flat in (part.cast("B") for part in data)
        for at in range(0, flat.nbytes, room)
    ]
