"""NaCl boxes of one direction of one attempt: the inner header and the counted nonce."""

import hashlib
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import final

from nacl._sodium import ffi, lib
from nacl.bindings import (
    crypto_box_beforenm,
    crypto_box_keypair,
    crypto_box_open_easy_afternm,
)
from nacl.exceptions import CryptoError

from darkbloom_edge.errors import EnvelopeError, EnvelopeFault

VERSION = 1
"""The only version of the inner header."""
TO_PROVIDER = 1
"""Direction byte of a request."""
TO_EDGE = 2
"""Direction byte of a chunk."""
HEADER_BYTES = 48
"""Size of the inner header: 8 of lead, 8 of position, 32 of ids."""
KEY_BYTES = 32
"""Size of an X25519 key."""
PREFIX_BYTES = 16
"""Random part of a nonce, drawn once per side and attempt."""
_MAC_BYTES = 16
OVERHEAD_BYTES = PREFIX_BYTES + _MAC_BYTES + HEADER_BYTES
"""How much longer a first payload is than its content."""

_COUNTER_BYTES = 8
_FINAL = 1
_LEAD_BYTES = 8
_IDS_AT = _LEAD_BYTES + _COUNTER_BYTES


@dataclass(frozen=True, slots=True)
class KeyPair:
    """An X25519 key pair: a provider's K, or the sender key of one attempt."""

    public: bytes
    """32 bytes, for everybody."""
    private: bytes = field(repr=False)
    """32 bytes, for this process only."""


def new_key_pair() -> KeyPair:
    """Draw a key pair from the system's randomness."""
    public, private = crypto_box_keypair()

    return KeyPair(public=public, private=private)


def derive_shared_key(their_public: bytes, ours: KeyPair) -> bytes:
    """Compute the key that both sides of one attempt share, once.

    Raises:
        EnvelopeError: a key has the wrong size, or theirs is a point of low order.
    """
    if len(their_public) != KEY_BYTES or len(ours.private) != KEY_BYTES:
        raise EnvelopeError(EnvelopeFault.BAD_KEY)

    try:
        shared: bytes = crypto_box_beforenm(their_public, ours.private)
    except CryptoError:
        raise EnvelopeError(EnvelopeFault.BAD_KEY) from None

    return shared


def fingerprint(shared: bytes) -> bytes:
    """Name a shared key without keeping it, for the memory of what was opened.

    The sender key itself would not do: X25519 ignores its top bit and clears its low-order part, so
    a relay can respell it in many ways that all lead to the same shared key.
    """
    return hashlib.sha256(b"darkbloom:opened\0" + shared).digest()


@final
class Sealer:
    """Seals what one side sends: position and nonce rise together and never repeat."""

    __slots__ = ("_ended", "_ids", "_last", "_lead", "_prefix", "_shared", "sequence")

    def __init__(self, shared: bytes, direction: int, ids: bytes) -> None:
        self._shared = shared
        self._ids = ids
        self._lead = _lead(direction, 0)
        self._last = _lead(direction, _FINAL)
        self._prefix = secrets.token_bytes(PREFIX_BYTES)
        self._ended = False
        self.sequence = 0
        """Position of the next box."""

    def seal(self, content: bytes | bytearray, *, final: bool) -> bytes:
        """Seal the next box; the first one carries the nonce prefix in front.

        The copy that this makes of the content is overwritten before it is let go.

        Raises:
            EnvelopeError: the final box was sealed before.
        """
        if self._ended:
            raise EnvelopeError(EnvelopeFault.AFTER_FINAL)

        counter = self.sequence.to_bytes(_COUNTER_BYTES, "big")
        first = self.sequence == 0
        self.sequence += 1
        self._ended = final
        lead = self._last if final else self._lead
        message = bytearray().join((lead, counter, self._ids, content))
        box = _seal(message, self._prefix + counter, self._shared)
        wipe(message)

        return self._prefix + box if first else box


@final
class Opener:
    """Opens what the other side has sealed, strictly in order; the first fault is the last."""

    __slots__ = ("_ended", "_ids", "_last", "_lead", "_prefix", "_shared", "sequence")

    def __init__(self, shared: bytes, direction: int, ids: bytes) -> None:
        self._shared = shared
        self._ids = ids
        self._lead = _lead(direction, 0)
        self._last = _lead(direction, _FINAL)
        self._prefix = b""
        self._ended: EnvelopeFault | None = None
        self.sequence = 0
        """Position of the next box, equal to the number of boxes opened."""

    def close(self) -> None:
        """Refuse everything from now on."""
        self._ended = EnvelopeFault.BROKEN

    def open(self, payload: bytes) -> tuple[bytes, bool]:
        """Open the next box and return (content, whether it is the final one).

        Raises:
            EnvelopeError: this is not the next box, or it was altered.
        """
        box, counter = self._begin(payload)
        try:
            plain: bytes = crypto_box_open_easy_afternm(box, self._prefix + counter, self._shared)
        except CryptoError:
            raise EnvelopeError(EnvelopeFault.NOT_OPENABLE) from None
        final = self._accept(plain[:HEADER_BYTES], counter)

        return plain[HEADER_BYTES:], final

    def open_into(self, payload: bytes) -> tuple[bytearray, bool]:
        """As `open`, into memory that the caller can and must overwrite when it has read it."""
        box, counter = self._begin(payload)
        plain = bytearray(len(box) - _MAC_BYTES)
        nonce = self._prefix + counter
        with ffi.from_buffer(plain, require_writable=True) as target:
            opened = lib.crypto_box_open_easy_afternm(target, box, len(box), nonce, self._shared)
        if opened != 0:
            raise EnvelopeError(EnvelopeFault.NOT_OPENABLE)
        with wiped_on_failure(plain):
            final = self._accept(bytes(plain[:HEADER_BYTES]), counter)
        del plain[:HEADER_BYTES]

        return plain, final

    def _begin(self, payload: bytes) -> tuple[bytes, bytes]:
        """Return the next box and its counter; until `_accept` the session is closed."""
        if self._ended is not None:
            raise EnvelopeError(self._ended)
        # Set first, so that whatever is raised from here on leaves the session closed.
        self._ended = EnvelopeFault.BROKEN

        if self.sequence == 0:
            self._prefix, payload = payload[:PREFIX_BYTES], payload[PREFIX_BYTES:]
        if len(payload) < _MAC_BYTES + HEADER_BYTES:
            raise EnvelopeError(EnvelopeFault.BAD_SIZE)

        return payload, self.sequence.to_bytes(_COUNTER_BYTES, "big")

    def _accept(self, header: bytes, counter: bytes) -> bool:
        """Compare the inner header; returns whether this is the final box."""
        rest = counter + self._ids
        if header == self._lead + rest:
            self._ended = None
        elif header == self._last + rest:
            self._ended = EnvelopeFault.AFTER_FINAL
        else:
            raise EnvelopeError(self._diagnose(header, counter))
        self.sequence += 1

        return self._ended is not None

    def _diagnose(self, header: bytes, counter: bytes) -> EnvelopeFault:
        if header[0] != VERSION:
            return EnvelopeFault.BAD_VERSION
        if header[1] != self._lead[1]:
            return EnvelopeFault.BAD_DIRECTION
        if header[_LEAD_BYTES:_IDS_AT] != counter:
            return EnvelopeFault.BAD_SEQUENCE
        if header[_IDS_AT:] != self._ids:
            return EnvelopeFault.BAD_IDS

        return EnvelopeFault.BAD_HEADER


def wipe(buffer: bytearray) -> None:
    """Overwrite plaintext that nobody needs any more, in place."""
    buffer[:] = bytes(len(buffer))


@contextmanager
def wiped_on_failure(buffer: bytearray) -> Iterator[None]:
    """Overwrite plaintext where the block that reads it fails."""
    try:
        yield
    except BaseException:
        wipe(buffer)
        raise


def _seal(message: bytearray, nonce: bytes, shared: bytes) -> bytes:
    # As `nacl.bindings.crypto_box_easy_afternm`, which takes only what cannot be overwritten.
    size = len(message)
    box = ffi.new("unsigned char[]", size + _MAC_BYTES)
    if lib.crypto_box_easy_afternm(box, ffi.from_buffer(message), size, nonce, shared) != 0:
        raise EnvelopeError(EnvelopeFault.BROKEN)

    return bytes(ffi.buffer(box))


def _lead(direction: int, flags: int) -> bytes:
    return bytes((VERSION, direction, flags, 0, 0, 0, 0, 0))
