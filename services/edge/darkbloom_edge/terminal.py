"""Terminals: a provider's signed last word on one attempt."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from darkbloom_edge.delta import FinishReason
from darkbloom_edge.documents import Count, Key32, Name, Version, encode_document
from darkbloom_edge.errors import RejectReason, SignatureRejected
from darkbloom_edge.signatures import IdentitySigner, verify_p256
from darkbloom_edge.signed import read_signed
from darkbloom_edge.transcript import Digests

KIND = "terminal"
"""Domain of the signature."""

Outcome = Literal["completed", "cancelled", "error"]
"""How an attempt ended."""


class Terminal(msgspec.Struct, frozen=True, kw_only=True):
    """What a provider says it did in one attempt."""

    version: Version = 1
    request_id: Annotated[str, Meta(pattern=r"^req_[0-9a-f]{32}\Z")]
    attempt_id: Annotated[str, Meta(pattern=r"^att_[0-9a-f]{32}\Z")]
    build: Name
    weight_hash: Name
    """Hash of the weights that answered."""
    prompt_tokens: Count
    completion_tokens: Count
    """Tokens generated, reasoning included."""
    cached_tokens: Count
    """Prompt tokens out of a cache, at most `prompt_tokens`."""
    reasoning_tokens: Count
    """At most `completion_tokens`."""
    chunks: Count
    """Boxes sealed, the final one included."""
    finish_reason: FinishReason | None = None
    """Absent where the answer has no end."""
    encryption_key: Key32
    """K that opened the request."""
    verdict_id: Annotated[str, Meta(pattern=r"^ver_[0-9a-f]{32}\Z")]
    sealed_to: Annotated[int, Meta(ge=1, le=1024)]
    """To how many providers the request had been sealed, this one included."""
    digests: Digests
    outcome: Outcome
    edge_nonce: Key32 | None = None
    """In end-to-end mode: the client's nonce, so that no earlier answer passes for this one."""


def encode(terminal: Terminal) -> bytes:
    """Write the canonical bytes that are signed and carried."""
    return encode_document(terminal)


def sign_terminal(terminal: Terminal, signer: IdentitySigner) -> tuple[bytes, bytes]:
    """Return (document, signature)."""
    document = encode(terminal)

    return document, signer.sign(KIND, document)


def verify_terminal(document: bytes, signature: bytes, identity_key: str | bytes) -> Terminal:
    """Check a terminal and read it.

    Args:
        document: the exact bytes that were carried.
        signature: ECDSA P-256, DER.
        identity_key: the provider's key out of a verified verdict, base64 or bytes.

    Raises:
        SignatureRejected: bad key, bad signature, malformed, or with impossible counts.
    """
    verify_p256(identity_key, KIND, document, signature)
    terminal = read_signed(document, Terminal)

    if terminal.cached_tokens > terminal.prompt_tokens:
        raise SignatureRejected(RejectReason.MALFORMED, "more cached than prompt tokens")
    if terminal.reasoning_tokens > terminal.completion_tokens:
        raise SignatureRejected(RejectReason.MALFORMED, "more reasoning than completion tokens")

    return terminal
