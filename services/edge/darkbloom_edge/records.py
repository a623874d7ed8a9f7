"""Records of a sealed stream between gateway and client (docs/end-to-end.md §2).

`kind u8 ‖ tokens u32 ‖ length u32 ‖ payload`, big-endian. Binary, because the payload is
ciphertext that would grow by a third in text, and because a reader needs no look at it to find the
next one.
"""

import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import Final, NamedTuple, final

from darkbloom_edge.errors import MalformedError

MEDIA_TYPE: Final = "application/vnd.darkbloom.sealed-stream"
"""Of the stream."""
SEALED_MEDIA_TYPE: Final = "application/vnd.darkbloom.sealed"
"""Of the sealed request: sender key ‖ ciphertext."""
OFFER_HEADER: Final = "x-darkbloom-offer"
"""Request header with the offer's id."""
RETRY_HEADER: Final = "x-darkbloom-retry"
"""Response header of a failure that another offer may cure; its value is `NEW_OFFER`."""
NEW_OFFER: Final = "new-offer"
HEAD_BYTES: Final = 9
MAX_PAYLOAD_BYTES: Final = 1024 * 1024
"""Largest payload: that of a chunk."""
SENDER_KEY_BYTES: Final = 32

_HEAD = struct.Struct(">BII")


class RecordKind(IntEnum):
    """What a record is."""

    KEEP_ALIVE = 0
    PREAMBLE = 1
    CONTENT = 2
    FINAL = 3
    END = 4
    ERROR = 5


KEEP_ALIVE: Final = _HEAD.pack(RecordKind.KEEP_ALIVE, 0, 0)
"""The whole record."""


class Record(NamedTuple):
    """One record of a stream."""

    kind: RecordKind
    tokens: int
    """Cumulative completion tokens that the frame claims in plaintext; 0 where it is no chunk."""
    payload: bytes

    def __repr__(self) -> str:
        return f"Record({self.kind.name}, tokens={self.tokens}, {len(self.payload)} bytes)"


def write_record(kind: int, payload: bytes, tokens: int = 0) -> bytes:
    """Write one record."""
    return _HEAD.pack(kind, tokens, len(payload)) + payload


@final
class RecordReader:
    """Cuts a stream into records, however it arrives; holds at most one unfinished record.

    Nothing may follow END or ERROR.
    """

    __slots__ = ("_buffer", "ended")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self.ended = False
        """Whether the last record has come; a stream that ends before was cut off."""

    def feed(self, data: bytes) -> Iterator[Record]:
        """Yield the records that are complete with these bytes.

        Raises:
            MalformedError: a kind that nobody knows, a length out of range, or bytes after the end.
        """
        buffer = self._buffer
        buffer += data
        while len(buffer) >= HEAD_BYTES:
            if self.ended:
                raise MalformedError("a record follows the last one")
            number, tokens, length = _HEAD.unpack_from(buffer)
            if length > MAX_PAYLOAD_BYTES or number not in _KINDS:
                raise MalformedError("not a record")
            end = HEAD_BYTES + length
            if len(buffer) < end:
                return
            payload = bytes(buffer[HEAD_BYTES:end])
            del buffer[:end]
            kind = RecordKind(number)
            self.ended = kind in (RecordKind.END, RecordKind.ERROR)
            yield Record(kind, tokens, payload)
        if self.ended and buffer:
            raise MalformedError("a record follows the last one")


_KINDS = frozenset(RecordKind)
