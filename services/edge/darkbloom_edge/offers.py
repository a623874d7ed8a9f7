"""Offers of end-to-end mode: what a client asks for, and what a gateway signs (docs/end-to-end.md).

The client names sizes and abilities, never content. The gateway answers with the ids, bounds and
price that the sealed header must repeat, and signs them together with the client's nonce, so that
an old offer cannot be passed off as a new one.
"""

import hashlib
import re
from collections.abc import Mapping
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from darkbloom_edge.documents import (
    Count,
    HexDigest,
    Instant,
    Key32,
    Name,
    Version,
    convert_document,
    encode_document,
)
from darkbloom_edge.errors import MalformedError
from darkbloom_edge.ids import ID_BYTES
from darkbloom_edge.signatures import Ed25519Signer
from darkbloom_edge.signed import open_signed
from darkbloom_edge.strict_json import parse_json_object
from darkbloom_edge.verdict import TrustLevel

KIND = "offer"
"""Domain of the signature."""
MAX_REQUEST_BYTES = 16_384
"""Largest JSON of a request for an offer."""
MAX_RESERVE_MS = 2000
"""Longest time that a place is kept for a sealed request."""
MAX_OPEN = 8
"""Most offers of one account that may be open at once."""
MAX_EXCLUDED = 16
"""Most providers that a client may exclude."""
BOUND_FACTOR, BOUND_SLACK = 8, 4096
"""`prompt_bound` is at most so many times `prompt_tokens`, and so many tokens."""

_ROUTE_BYTES = 8
_OFFER_ID = re.compile(r"off_([0-9a-f]{16})([0-9a-f]{32})\Z")

Tokens = Annotated[int, Meta(ge=1, le=1 << 24)]
ProviderId = Annotated[str, Meta(pattern=r"^prov_[0-9a-f]{32}\Z")]
Need = Literal["tools", "json_mode", "structured_outputs", "logprobs", "vision"]
ToolChoice = Literal["", "auto", "none", "required", "named"]


class OfferRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a client needs of a provider."""

    model: Name
    """Alias or build."""
    nonce: Key32
    """32 fresh bytes, in base64."""
    prompt_tokens: Tokens
    """What the client believes that the prompt is."""
    prompt_bound: Tokens
    """A provider refuses a longer prompt."""
    output_bound: Tokens | None = None
    """Most tokens of the answer; absent is the model's own bound."""
    body_bytes: Annotated[int, Meta(ge=1, le=32 * 1024 * 1024)]
    """Most bytes of ciphertext."""
    needs: Annotated[tuple[Need, ...], Meta(max_length=8)] = ()
    tool_choice: ToolChoice = ""
    """Where there are tools."""
    parallel_tool_calls: bool = True
    trust_floor: TrustLevel | None = None
    """Raises the gateway's own floor."""
    exclude: Annotated[tuple[ProviderId, ...], Meta(max_length=MAX_EXCLUDED)] = ()
    """Providers that have failed this request."""


class OfferedPrice(msgspec.Struct, frozen=True, kw_only=True):
    """Micro-USD per 1,000,000 tokens."""

    price_id: Annotated[str, Meta(max_length=512)]
    input_micros: Count
    output_micros: Count
    cache_read_micros: Count
    minimum_charge_micros: Count


class OfferDocument(msgspec.Struct, frozen=True, kw_only=True):
    """One reserved attempt."""

    version: Version = 1
    offer_id: Annotated[str, Meta(pattern=r"^off_[0-9a-f]{48}\Z")]
    nonce: Key32
    """The client's."""
    request_id: Annotated[str, Meta(pattern=r"^req_[0-9a-f]{32}\Z")]
    attempt_id: Annotated[str, Meta(pattern=r"^att_[0-9a-f]{32}\Z")]
    provider_id: ProviderId
    build: Name
    """What serves: `model` of the canonical request."""
    requested_model: Name
    verdict_sha256: HexDigest
    """Of the verdict that comes beside it."""
    prompt_bound: Tokens
    output_bound: Tokens
    body_bytes: Count
    price: OfferedPrice | None = None
    """What will be settled at; absent where nobody pays."""
    hold_micro_usd: Count
    """The most that this attempt can cost."""
    issued_at: Instant
    reserve_ms: Annotated[int, Meta(ge=1, le=MAX_RESERVE_MS)]
    """How long the place waits for the sealed request."""


def parse_offer_request(data: bytes) -> OfferRequest:
    """Read a client's request.

    Raises:
        MalformedError: not JSON, or a field missing, unknown or out of range; `field` says which.
    """
    fields = parse_json_object(data, max_bytes=MAX_REQUEST_BYTES)
    unknown = fields.keys() - _FIELDS
    if unknown:
        # Named only where it is a plain word: nothing else of a body is ever repeated.
        name = min(unknown)
        raise MalformedError("is not known", name if name.isidentifier() else "offer")
    asked = convert_document(fields, OfferRequest)
    if not asked.prompt_tokens <= asked.prompt_bound <= most_bound(asked.prompt_tokens):
        raise MalformedError("must be between prompt_tokens and 8 times that", "prompt_bound")
    return asked


def most_bound(prompt_tokens: int) -> int:
    """Return the highest `prompt_bound` that may go with an estimate."""
    return BOUND_FACTOR * prompt_tokens + BOUND_SLACK


def sign_offer(document: OfferDocument, signer: Ed25519Signer) -> tuple[bytes, bytes]:
    """Return (document, signature)."""
    data = encode_document(document)
    return data, signer.sign(KIND, data)


def verify_offer(
    document: bytes, signature: bytes, key_id: str, keys: Mapping[str, bytes]
) -> OfferDocument:
    """Check a gateway's offer and read it.

    Args:
        document: the exact bytes.
        signature: Ed25519, 64 bytes.
        key_id: which key signed.
        keys: the gateway's receipt keys by id.

    Raises:
        SignatureRejected: unknown key, bad signature, or malformed.
    """
    return open_signed(document, signature, key_id, keys=keys, kind=KIND, shape=OfferDocument)


def verdict_sha256(verdict: bytes) -> str:
    """Return the hash by which an offer names a verdict's document."""
    return hashlib.sha256(verdict).hexdigest()


def offer_id(tag: str, attempt_id: str) -> str:
    """Name an offer.

    Args:
        tag: of the router's replica that keeps it, see `replica_tag`.
        attempt_id: `att_…`.
    """
    return f"off_{tag}{attempt_id.partition('_')[2]}"


def replica_tag(replica: str) -> str:
    """Return 16 hex digits that stand for a router's replica, whose name is nobody's business."""
    data = b"darkbloom:replica:v1\x00" + replica.encode()
    return hashlib.sha256(data).digest()[:_ROUTE_BYTES].hex()


def parse_offer_id(text: str) -> tuple[str, str]:
    """Return (tag of the replica, attempt id).

    Raises:
        MalformedError: it is no id of an offer.
    """
    match = _OFFER_ID.match(text)
    if match is None or len(match.group(2)) != 2 * ID_BYTES:
        raise MalformedError("not an off id")
    return match.group(1), f"att_{match.group(2)}"


_FIELDS = frozenset(OfferRequest.__struct_fields__)
