"""The sealed envelope: what makes the middle blind (docs/wire.md §3).

Both sides share one NaCl key per attempt. Every box carries its direction, ids and position inside
and is opened at exactly one nonce, so a box that is reflected, replayed, reordered, dropped or cut
does not open, and the attempt ends.
"""

import secrets
import struct
from typing import Annotated, NamedTuple, final

import msgspec
from msgspec import Meta

from darkbloom_edge.boxes import (
    OVERHEAD_BYTES,
    TO_EDGE,
    TO_PROVIDER,
    KeyPair,
    Opener,
    Sealer,
    derive_shared_key,
    fingerprint,
    new_key_pair,
    wipe,
    wiped_on_failure,
)
from darkbloom_edge.errors import EnvelopeError, EnvelopeFault
from darkbloom_edge.ids import id_bytes
from darkbloom_edge.replay import SenderKeyMemory

__all__ = [
    "MAX_CHUNK_BYTES",
    "MAX_LIFETIME_MS",
    "MAX_REQUEST_BYTES",
    "MAX_SKEW_MS",
    "EdgeSession",
    "KeyPair",
    "Opened",
    "ProviderSession",
    "RequestHeader",
    "SenderKeyMemory",
    "check_header",
    "new_edge_nonce",
    "new_key_pair",
    "wipe",
    "wiped_on_failure",
]

MAX_LIFETIME_MS = 600_000
"""A request may be opened for at most this long after its dispatch."""
MAX_SKEW_MS = 120_000
"""How far the clocks of edge and provider may differ."""
MAX_REQUEST_BYTES = 32 * 1024 * 1024
"""Largest sealed request."""
MAX_CHUNK_BYTES = 1024 * 1024
"""Largest sealed chunk, equal to the largest frame."""

_LENGTH = struct.Struct(">I")
_MAX_HEADER_BYTES = 4096

Count = Annotated[int, Meta(ge=0, le=2**53 - 1)]
Bytes32 = Annotated[bytes, Meta(min_length=32, max_length=32)]


class RequestHeader(msgspec.Struct, frozen=True, kw_only=True):
    """What the edge tells the provider beside the request itself; repr is redacted."""

    not_after_ms: Count
    """Unix time in milliseconds after which the request must not be opened."""
    prompt_bound: Count
    """Most prompt tokens that the hold covers."""
    output_bound: Count
    """Most completion tokens that the hold covers."""
    receipt_key: Bytes32
    """Key of all digests in terminal and receipt."""
    verdict_id: Annotated[str, Meta(pattern=r"^ver_[0-9a-f]{32}\Z")]
    """The verdict whose K the request is sealed to."""
    sealed_to: Annotated[int, Meta(ge=1, le=1024)]
    """How many providers this request has been sealed to, this one included."""
    edge_nonce: Bytes32
    """Drawn by the edge; whoever stands at the edge can recognise its own request."""
    end_to_end: bool = False
    """The edge is the consumer: `edge_nonce` comes back in the first delta and in the terminal."""
    whole: bool = False
    """The consumer takes the answer in one piece: after the first content, chunks may be merged."""
    cache_scope: Annotated[bytes, Meta(max_length=32)] = b""
    """Who may share what the provider keeps of this prompt, opaque; empty: nobody, keep nothing."""

    def __repr__(self) -> str:
        return f"RequestHeader(verdict_id={self.verdict_id!r}, <redacted>)"


_header_decoder = msgspec.msgpack.Decoder(RequestHeader)


@final
class EdgeSession:
    """The edge's end of one attempt: seals one request, opens its chunks in order."""

    __slots__ = ("_opener", "_sealer", "sender_key")

    def __init__(self, *, key_pair: KeyPair, provider_key: bytes, ids: bytes) -> None:
        shared = derive_shared_key(provider_key, key_pair)
        self.sender_key = key_pair.public
        """The fresh public key that the provider needs to open the request, 32 bytes."""
        self._sealer = Sealer(shared, TO_PROVIDER, ids)
        self._opener = Opener(shared, TO_EDGE, ids)

    @classmethod
    def create(cls, *, provider_key: bytes, request_id: str, attempt_id: str) -> "EdgeSession":
        """Draw a fresh sender key for one attempt.

        Args:
            provider_key: K of the provider, 32 bytes, out of a verified verdict.
            request_id: `req_…`.
            attempt_id: `att_…`.

        Raises:
            EnvelopeError: K is not a usable key.
            MalformedError: an id is malformed.
        """
        ids = _pack_ids(request_id, attempt_id)

        return cls(key_pair=new_key_pair(), provider_key=provider_key, ids=ids)

    @property
    def opened_frames(self) -> int:
        """How many chunks have been opened."""
        return self._opener.sequence

    def seal_request(self, header: RequestHeader, body: bytes) -> bytes:
        """Seal the one request of this attempt.

        Args:
            header: bounds, expiry and receipt key.
            body: the canonical request.

        Raises:
            EnvelopeError: the header is impossible, the body too large, or one was sealed before.
        """
        head = msgspec.msgpack.encode(header)
        _decode_header(head)
        if len(body) > MAX_REQUEST_BYTES - _MAX_HEADER_BYTES:
            raise EnvelopeError(EnvelopeFault.BAD_SIZE)

        return self._sealer.seal(b"".join((_LENGTH.pack(len(head)), head, body)), final=True)

    def open_chunk(self, payload: bytes) -> tuple[bytes, bool]:
        """Open the next chunk and return (delta bytes, whether it is the final one).

        Raises:
            EnvelopeError: the box is not the next one of this attempt, unaltered. Nothing more
                can be opened afterwards.
        """
        if len(payload) > MAX_CHUNK_BYTES:
            self._opener.close()
            raise EnvelopeError(EnvelopeFault.BAD_SIZE)

        return self._opener.open(payload)

    def __repr__(self) -> str:
        return "EdgeSession(<redacted>)"


class Opened(NamedTuple):
    """A request that has been opened, once."""

    session: "ProviderSession"
    """Seals the chunks of the answer."""
    header: RequestHeader
    """What the edge says; compare with `check_header`."""
    body: bytearray
    """The canonical request; whoever has read it overwrites it with `wipe`."""

    def __repr__(self) -> str:
        return "Opened(<redacted>)"


@final
class ProviderSession:
    """The provider's end of one attempt: made by opening a request, seals its chunks."""

    __slots__ = ("_sealer",)

    def __init__(self, sealer: Sealer) -> None:
        self._sealer = sealer

    @classmethod
    def open_request(
        cls,
        *,
        key_pair: KeyPair,
        sender_key: bytes,
        request_id: str,
        attempt_id: str,
        payload: bytes,
        now_ms: int,
        memory: SenderKeyMemory,
    ) -> Opened:
        """Open a request, at most once per sender key and only in its time.

        Args:
            key_pair: K of this process.
            sender_key: the attempt's fresh key, 32 bytes.
            request_id: `req_…` of the attempt.
            attempt_id: `att_…`.
            payload: the whole ciphertext.
            now_ms: Unix time in milliseconds.
            memory: every sender key that K has opened; one per K.

        Raises:
            EnvelopeError: the box is not an unaltered, fresh, first-time request of this attempt.
            MalformedError: an id is malformed.
        """
        ids = _pack_ids(request_id, attempt_id)
        if len(payload) > MAX_REQUEST_BYTES:
            raise EnvelopeError(EnvelopeFault.BAD_SIZE)

        shared = derive_shared_key(sender_key, key_pair)
        content, final_flag = Opener(shared, TO_PROVIDER, ids).open_into(payload)
        with wiped_on_failure(content):
            if not final_flag:
                raise EnvelopeError(EnvelopeFault.NOT_FINAL)
            header = _take_header(content)
            if header.not_after_ms > now_ms + MAX_LIFETIME_MS + MAX_SKEW_MS:
                raise EnvelopeError(EnvelopeFault.LIFETIME)
            # Only an authentic box may take a place in the memory, or strangers could fill it.
            memory.remember(fingerprint(shared), not_after_ms=header.not_after_ms, now_ms=now_ms)

        return Opened(cls(Sealer(shared, TO_EDGE, ids)), header, content)

    @property
    def sealed_frames(self) -> int:
        """How many chunks have been sealed."""
        return self._sealer.sequence

    def seal_chunk(self, delta: bytes | bytearray, *, final: bool = False) -> bytes:
        """Seal the next chunk of the answer.

        Raises:
            EnvelopeError: the final chunk was sealed before, or this one is too large.
        """
        if len(delta) > MAX_CHUNK_BYTES - OVERHEAD_BYTES:
            raise EnvelopeError(EnvelopeFault.BAD_SIZE)

        return self._sealer.seal(delta, final=final)

    def __repr__(self) -> str:
        return "ProviderSession(<redacted>)"


def check_header(
    header: RequestHeader, *, prompt_bound: int, output_bound: int, verdict_id: str
) -> None:
    """Compare what was sealed with what the attempt says in plaintext.

    Raises:
        EnvelopeError: the router has changed the bounds, or the request was sealed under another
            verdict than the one this provider holds.
    """
    if (header.prompt_bound, header.output_bound) != (prompt_bound, output_bound):
        raise EnvelopeError(EnvelopeFault.WRONG_BOUNDS)
    if header.verdict_id != verdict_id:
        raise EnvelopeError(EnvelopeFault.WRONG_VERDICT)


def new_edge_nonce() -> bytes:
    """Draw the 32 bytes of `RequestHeader.edge_nonce` or of a receipt key."""
    return secrets.token_bytes(32)


def _pack_ids(request_id: str, attempt_id: str) -> bytes:
    return id_bytes(request_id, "req") + id_bytes(attempt_id, "att")


def _take_header(content: bytearray) -> RequestHeader:
    """Read the header of a request and cut it off, so that the body is left."""
    if len(content) < _LENGTH.size:
        raise EnvelopeError(EnvelopeFault.BAD_HEADER)
    (size,) = _LENGTH.unpack_from(content)
    end = _LENGTH.size + size
    if size > _MAX_HEADER_BYTES or end > len(content):
        raise EnvelopeError(EnvelopeFault.BAD_HEADER)
    header = _decode_header(bytes(content[_LENGTH.size : end]))
    del content[:end]

    return header


def _decode_header(data: bytes) -> RequestHeader:
    try:
        return _header_decoder.decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise EnvelopeError(EnvelopeFault.BAD_HEADER) from None
