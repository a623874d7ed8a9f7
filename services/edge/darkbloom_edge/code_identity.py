"""APNs code identity: only the signed app with K in memory can answer (spec/security.md §10).

A nonce is boxed to K and pushed through Apple, who delivers it only to a process signed by the
team with the topic's entitlement; or, to resume a recent proof, sent over the provider's stream.
The answer is signed by the identity key of the registration.

What is boxed names its purpose. Without that, whoever holds a recorded request could have the
provider open it as a "challenge" and send the plaintext back.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Literal

import msgspec
from nacl.bindings import crypto_box, crypto_box_NONCEBYTES, crypto_box_open
from nacl.exceptions import CryptoError

from darkbloom_edge.boxes import KEY_BYTES, KeyPair, derive_shared_key
from darkbloom_edge.documents import Key32, Name, decode_document, encode_document
from darkbloom_edge.errors import EdgeError, EnvelopeError, MalformedError, SignatureRejected
from darkbloom_edge.signatures import IdentitySigner, from_base64, to_base64, verify_p256

NONCE_BYTES = 32
"""Random bytes of a code challenge."""
MAX_AGE = timedelta(seconds=300)
"""How long a pushed challenge can be answered."""
RESUME_AGE = timedelta(seconds=30)
"""How long a challenge over the stream can be answered."""
MAX_SEALED_BYTES = 2048
"""Largest sealed challenge that is opened; a push carries at most 4 KiB."""
KIND = "code_identity"
"""The signature's domain."""
_PURPOSE = "darkbloom:code-challenge:v1"


class CodeIdentityFault(StrEnum):
    """Why an answer proves nothing."""

    MALFORMED = "malformed"
    """The sealed challenge or what is inside has not its shape."""
    NOT_OPENABLE = "not_openable"
    """It was not sealed to this K, or was altered."""
    WRONG_PURPOSE = "wrong_purpose"
    """It is no code challenge: somebody wants something else opened."""
    WRONG_SESSION = "wrong_session"
    """It was made for another connection."""
    NONCE_MISMATCH = "nonce_mismatch"
    """Not the outstanding nonce."""
    EXPIRED = "expired"
    """Answered too late, or before it was asked."""
    KEY_CHANGED = "key_changed"
    """K is another than the one that was asked."""
    TOKEN_CHANGED = "token_changed"  # noqa: S105 - a reason, not a secret
    """The push token is another than the one that was asked."""
    IDENTITY_CHANGED = "identity_changed"
    """The identity key is another than the one that was asked."""
    SIGNATURE_FAILED = "signature_failed"
    """Not signed by the identity key of the registration."""


class CodeIdentityRejected(EdgeError):  # noqa: N818 - the name says what happened to the answer
    """A code challenge or its answer was refused."""

    def __init__(self, reason: CodeIdentityFault) -> None:
        super().__init__(f"code identity rejected, {reason.value}")
        self.reason = reason


class _Inside(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    nonce: Key32
    provider_id: Name
    purpose: Name


class _Statement(msgspec.Struct, frozen=True, kw_only=True):
    encryption_key: Key32
    nonce: Key32
    provider_id: Name


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeChallenge:
    """An outstanding challenge, and what must not change until its answer."""

    nonce: bytes = field(repr=False)
    """32 random bytes."""
    provider_id: str
    """The session that was asked."""
    encryption_key: bytes
    """K when it was asked."""
    identity_key: bytes
    """The 65-byte key of the registration."""
    push_token_hash: str
    """SHA-256 of the push token, hex; empty over the stream."""
    channel: Literal["apns", "resume"]
    create_time: datetime

    @property
    def max_age(self) -> timedelta:
        """How long an answer counts."""
        return MAX_AGE if self.channel == "apns" else RESUME_AGE


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeAnswer:
    """What came back."""

    nonce: bytes = field(repr=False)
    signature: bytes = field(repr=False)
    """DER, over the statement of nonce, K and session."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedChallenge:
    """A nonce boxed to K, as it travels."""

    ephemeral_public_key: bytes
    """32 bytes, fresh."""
    ciphertext: bytes
    """24 bytes of nonce and the box."""

    def to_bytes(self) -> bytes:
        """Return the one field that a stream frame has room for."""
        return self.ephemeral_public_key + self.ciphertext

    @classmethod
    def from_bytes(cls, data: bytes) -> "SealedChallenge":
        """Split what `to_bytes` joined.

        Raises:
            CodeIdentityRejected: too short or too long.
        """
        if not KEY_BYTES + crypto_box_NONCEBYTES < len(data) <= MAX_SEALED_BYTES:
            raise CodeIdentityRejected(CodeIdentityFault.MALFORMED)
        return cls(ephemeral_public_key=data[:KEY_BYTES], ciphertext=data[KEY_BYTES:])


def seal_code_challenge(
    challenge: CodeChallenge, ephemeral: KeyPair, box_nonce: bytes
) -> SealedChallenge:
    """Box a challenge to K.

    Args:
        challenge: what to ask.
        ephemeral: a fresh key pair, used for nothing else.
        box_nonce: 24 random bytes.

    Raises:
        MalformedError: a nonce of another size.
        EnvelopeError: K is no usable key.
    """
    if len(challenge.nonce) != NONCE_BYTES or len(box_nonce) != crypto_box_NONCEBYTES:
        raise MalformedError("a code challenge has 32 random bytes, and its box 24")
    # Refuses points of low order, which a box to would open for everybody.
    derive_shared_key(challenge.encryption_key, ephemeral)

    inside = _Inside(
        nonce=to_base64(challenge.nonce), provider_id=challenge.provider_id, purpose=_PURPOSE
    )
    sealed = crypto_box(
        encode_document(inside), box_nonce, challenge.encryption_key, ephemeral.private
    )

    return SealedChallenge(
        ephemeral_public_key=ephemeral.public, ciphertext=box_nonce + bytes(sealed)
    )


def answer_code_challenge(
    sealed: SealedChallenge, *, provider_id: str, key_pair: KeyPair, signer: IdentitySigner
) -> CodeAnswer:
    """Open a challenge with K and sign it: the provider's half.

    Raises:
        CodeIdentityRejected: not sealed to this K, for another session, or not a code challenge.
    """
    nonce = _open(sealed, provider_id, key_pair)
    statement = _statement(nonce, key_pair.public, provider_id)

    return CodeAnswer(nonce=nonce, signature=signer.sign(KIND, statement))


def verify_code_answer(
    answer: CodeAnswer,
    challenge: CodeChallenge,
    *,
    encryption_key: bytes,
    identity_key: bytes,
    push_token_hash: str,
    now: datetime,
) -> None:
    """Check an answer against its challenge and against what the session is now.

    Args:
        answer: what came.
        challenge: the outstanding one of this session; the store consumes it with this call.
        encryption_key: K of the session now.
        identity_key: identity of the session now, 65 bytes.
        push_token_hash: hash of its push token now; not compared for a resumed proof.
        now: the present, time zone aware.

    Raises:
        CodeIdentityRejected: it proves nothing, and why.
    """
    pushed = challenge.channel == "apns"
    rows = (
        (answer.nonce == challenge.nonce, CodeIdentityFault.NONCE_MISMATCH),
        (
            challenge.create_time <= now <= challenge.create_time + challenge.max_age,
            CodeIdentityFault.EXPIRED,
        ),
        (encryption_key == challenge.encryption_key, CodeIdentityFault.KEY_CHANGED),
        (identity_key == challenge.identity_key, CodeIdentityFault.IDENTITY_CHANGED),
        (
            not pushed or push_token_hash == challenge.push_token_hash,
            CodeIdentityFault.TOKEN_CHANGED,
        ),
    )
    for holds, fault in rows:
        if not holds:
            raise CodeIdentityRejected(fault)

    statement = code_statement(challenge)
    try:
        verify_p256(challenge.identity_key, KIND, statement, answer.signature)
    except SignatureRejected:
        raise CodeIdentityRejected(CodeIdentityFault.SIGNATURE_FAILED) from None


def code_statement(challenge: CodeChallenge) -> bytes:
    """Return the canonical bytes that an answer signs."""
    return _statement(challenge.nonce, challenge.encryption_key, challenge.provider_id)


def _statement(nonce: bytes, encryption_key: bytes, provider_id: str) -> bytes:
    return encode_document(
        _Statement(
            encryption_key=to_base64(encryption_key),
            nonce=to_base64(nonce),
            provider_id=provider_id,
        )
    )


def _open(sealed: SealedChallenge, provider_id: str, key_pair: KeyPair) -> bytes:
    cipher = sealed.ciphertext
    if not crypto_box_NONCEBYTES < len(cipher) <= MAX_SEALED_BYTES:
        raise CodeIdentityRejected(CodeIdentityFault.MALFORMED)
    try:
        derive_shared_key(sealed.ephemeral_public_key, key_pair)
        opened = crypto_box_open(
            cipher[crypto_box_NONCEBYTES:],
            cipher[:crypto_box_NONCEBYTES],
            sealed.ephemeral_public_key,
            key_pair.private,
        )
    except (CryptoError, EnvelopeError):
        raise CodeIdentityRejected(CodeIdentityFault.NOT_OPENABLE) from None

    try:
        inside = decode_document(bytes(opened), _Inside, max_bytes=MAX_SEALED_BYTES)
    except MalformedError:
        # Whatever it was, it was no challenge, and nobody hears what it says.
        raise CodeIdentityRejected(CodeIdentityFault.WRONG_PURPOSE) from None
    if inside.purpose != _PURPOSE:
        raise CodeIdentityRejected(CodeIdentityFault.WRONG_PURPOSE)
    if inside.provider_id != provider_id:
        raise CodeIdentityRejected(CodeIdentityFault.WRONG_SESSION)

    return from_base64(inside.nonce)
