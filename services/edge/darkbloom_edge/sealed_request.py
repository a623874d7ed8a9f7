"""Sealed requests: what a consumer and a gateway say to each other through TLS that others end.

Byte for byte in `docs/sealed.md`. Two formats share the envelope and the keys. The *plain* one is
what clients of the public original speak: a box holds the bytes and nothing else. In the *framed*
one every box begins with a header, so that a box that is reflected, moved, dropped, cut off or
answered to somebody else is noticed.
"""

import binascii
import hashlib
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, NamedTuple, final

import msgspec
from msgspec import Meta
from nacl.bindings import crypto_box_easy_afternm, crypto_box_open_easy_afternm
from nacl.exceptions import CryptoError

from darkbloom_edge.boxes import KEY_BYTES, PREFIX_BYTES, KeyPair, derive_shared_key
from darkbloom_edge.errors import EnvelopeError, EnvelopeFault

PLAIN_TYPE = b"application/eigeninference-sealed+json"
"""Media type of the plain format."""
FRAMED_TYPE = b"application/darkbloom-sealed+json"
"""Media type of the framed format."""
HEADER_BYTES = 56
"""Size of the header of a framed box."""
NONCE_BYTES = 24
"""Random or counted, in front of every box."""
MAX_AGE_MS = 600_000
"""How old a framed request may be."""
MAX_SKEW_MS = 120_000
"""How far ahead of the gateway's clock it may be."""

_VERSION, _TO_GATEWAY, _TO_CONSUMER, _FINAL = 1, 1, 2, 1
_HEADER = struct.Struct(">BBBBHHQQ32s")


class SealedFault(StrEnum):
    """Why a sealed request is refused."""

    MALFORMED = "malformed"
    """No envelope, or a field of it is not what it must be."""
    UNKNOWN_KEY = "unknown_key"
    """Sealed to no key that is held."""
    NOT_OPENABLE = "not_openable"
    """The box is not authentic."""
    WRONG_HEADER = "wrong_header"
    """Authentic, but not a request to this route with this credential."""
    STALE = "stale"
    """Authentic, but sealed too long ago, or in the future."""


class SealedError(Exception):
    """A sealed request is refused; never carries content."""

    def __init__(self, fault: SealedFault) -> None:
        super().__init__(fault.value)
        self.fault = fault


class Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """What travels; nothing of it has been trusted yet."""

    kid: Annotated[str, Meta(min_length=1, max_length=64)]
    ephemeral_public_key: Annotated[str, Meta(max_length=128)]
    """32 bytes in base64."""
    ciphertext: str
    """Nonce and box in base64."""

    def __repr__(self) -> str:
        return f"Envelope(kid={self.kid!r}, <redacted>)"


class Sealed(NamedTuple):
    """An envelope whose fields have their sizes."""

    ephemeral_public_key: bytes
    nonce: bytes
    box: bytes


@dataclass(frozen=True, slots=True)
class Asked:
    """What a framed request must have been sealed for."""

    route: str
    """Such as `POST /v1/chat/completions`."""
    credential: bytes = field(repr=False)
    """What stands behind `Bearer`."""
    now_ms: int
    """Unix time in milliseconds."""

    @property
    def context(self) -> bytes:
        """The 32 bytes of the header that bind a request to route and credential."""
        return hashlib.sha256(self.route.encode() + b"\n" + self.credential).digest()


@dataclass(frozen=True, slots=True)
class OpenedRequest:
    """A sealed request that has been opened."""

    body: bytes = field(repr=False)
    """What a handler of plaintext requests would have received."""
    mark: bytes = field(repr=False)
    """Equal for the same request however its key is spelled; 32 bytes, reveals nothing."""
    answer: "AnswerSealer"
    """Seals the answer."""


_decoder = msgspec.json.Decoder(Envelope)


def key_id(public: bytes) -> str:
    """Name an encryption key: the first 16 hex digits of its SHA-256."""
    return hashlib.sha256(public).hexdigest()[:16]


def read_envelope(body: bytes) -> Envelope:
    """Read the JSON of an envelope.

    Raises:
        SealedError: MALFORMED.
    """
    try:
        return _decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise SealedError(SealedFault.MALFORMED) from None


def unpack(envelope: Envelope) -> Sealed:
    """Read the binary fields of an envelope.

    Raises:
        SealedError: MALFORMED: not base64, a key of another size, no whole nonce.
    """
    key, cipher = _from_base64(envelope.ephemeral_public_key), _from_base64(envelope.ciphertext)
    if len(key) != KEY_BYTES or len(cipher) < NONCE_BYTES:
        raise SealedError(SealedFault.MALFORMED)

    return Sealed(key, cipher[:NONCE_BYTES], cipher[NONCE_BYTES:])


def open_request(
    sealed: Sealed, key_pair: KeyPair, asked: Asked | None, entropy: Callable[[int], bytes]
) -> OpenedRequest:
    """Open a request; whether it came before is for the caller to remember, by its mark.

    Args:
        sealed: as `unpack` returns it.
        key_pair: the gateway's.
        asked: what a framed one must be for; None for a plain one.
        entropy: for the nonces of the answer.

    Raises:
        SealedError: it is not an authentic request of that format, for that route, of that time.
    """
    try:
        shared = derive_shared_key(sealed.ephemeral_public_key, key_pair)
    except EnvelopeError:
        raise SealedError(SealedFault.MALFORMED) from None
    try:
        content = crypto_box_open_easy_afternm(sealed.box, sealed.nonce, shared)
    except (CryptoError, ValueError):
        raise SealedError(SealedFault.NOT_OPENABLE) from None

    frame = None
    if asked is not None:
        time_ms = _check_header(content, asked)
        binding = hashlib.sha256(sealed.nonce + sealed.box).digest()
        frame = Frame(time_ms=time_ms, context=binding)
        content = content[HEADER_BYTES:]
    mark = hashlib.sha256(b"darkbloom:sealed-request\0" + shared + sealed.nonce).digest()

    return OpenedRequest(content, mark, AnswerSealer(shared, frame, entropy(PREFIX_BYTES)))


@dataclass(frozen=True, slots=True)
class Frame:
    """What the headers of an answer repeat of its request."""

    time_ms: int
    context: bytes
    """SHA-256 of the request's nonce and box."""


@final
class AnswerSealer:
    """Seals an answer box by box; position and nonce rise together and never repeat."""

    __slots__ = ("_ended", "_frame", "_prefix", "_sequence", "_shared")

    def __init__(self, shared: bytes, frame: Frame | None, prefix: bytes) -> None:
        self._shared = shared
        self._frame = frame
        self._prefix = prefix
        self._sequence = 0
        self._ended = False

    @property
    def framed(self) -> bool:
        """Whether each box says its place."""
        return self._frame is not None

    def seal(self, content: bytes, *, status: int, final: bool) -> bytes:
        """Return base64(nonce ‖ box) of the next part of the answer.

        Args:
            content: a whole body, or one event.
            status: HTTP status of the answer.
            final: whether nothing follows.

        Raises:
            EnvelopeError: the final box was sealed before, or the library refuses.
        """
        if self._ended:
            raise EnvelopeError(EnvelopeFault.AFTER_FINAL)
        sequence = self._sequence
        self._sequence += 1
        self._ended = final
        if self._frame is not None:
            content = _header(_TO_CONSUMER, status, sequence, self._frame, final=final) + content
        nonce = self._prefix + sequence.to_bytes(8, "big")
        try:
            box: bytes = crypto_box_easy_afternm(content, nonce, self._shared)
        except CryptoError:
            raise EnvelopeError(EnvelopeFault.BROKEN) from None

        return binascii.b2a_base64(nonce + box, newline=False)

    def __repr__(self) -> str:
        return "AnswerSealer(<redacted>)"


def _header(direction: int, status: int, sequence: int, frame: Frame, *, final: bool) -> bytes:
    flags = _FINAL if final else 0
    return _HEADER.pack(
        _VERSION, direction, flags, 0, status, 0, sequence, frame.time_ms, frame.context
    )


def _check_header(content: bytes, asked: Asked) -> int:
    """Check the header of a request and return its time, in Unix milliseconds."""
    if len(content) < HEADER_BYTES:
        raise SealedError(SealedFault.WRONG_HEADER)
    *_, time_ms, _context = _HEADER.unpack(content[:HEADER_BYTES])
    frame = Frame(time_ms=time_ms, context=asked.context)
    if content[:HEADER_BYTES] != _header(_TO_GATEWAY, 0, 0, frame, final=True):
        raise SealedError(SealedFault.WRONG_HEADER)
    if not asked.now_ms - MAX_AGE_MS <= time_ms <= asked.now_ms + MAX_SKEW_MS:
        raise SealedError(SealedFault.STALE)

    return int(time_ms)


def _from_base64(text: str) -> bytes:
    """Read standard, padded base64, in one pass over what may be many megabytes."""
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except (binascii.Error, ValueError):
        raise SealedError(SealedFault.MALFORMED) from None
