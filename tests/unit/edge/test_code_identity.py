"""Code identity: only who holds K and the identity key can answer, once, in time."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from darkbloom_edge.boxes import KeyPair, new_key_pair
from darkbloom_edge.code_identity import (
    MAX_SEALED_BYTES,
    CodeAnswer,
    CodeChallenge,
    CodeIdentityFault,
    CodeIdentityRejected,
    SealedChallenge,
    answer_code_challenge,
    seal_code_challenge,
    verify_code_answer,
)
from darkbloom_edge.errors import EnvelopeError, MalformedError
from darkbloom_edge.signatures import P256Signer
from hypothesis import given
from hypothesis import strategies as st
from nacl.bindings import crypto_box

NOW = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
SIGNER = P256Signer(bytes(range(1, 33)))
K = new_key_pair()
NONCE = bytes(range(32))


def challenge(**changes: Any) -> CodeChallenge:
    fields = {
        "nonce": NONCE,
        "provider_id": "prov_1",
        "encryption_key": K.public,
        "identity_key": SIGNER.public,
        "push_token_hash": "a" * 64,
        "channel": "apns",
        "create_time": NOW,
    }
    return CodeChallenge(**{**fields, **changes})


def sealed(asked: CodeChallenge | None = None) -> SealedChallenge:
    return seal_code_challenge(asked or challenge(), new_key_pair(), bytes(24))


def answered(
    carried: SealedChallenge | None = None, *, provider_id: str = "prov_1", pair: KeyPair = K
) -> CodeAnswer:
    return answer_code_challenge(
        carried or sealed(), provider_id=provider_id, key_pair=pair, signer=SIGNER
    )


def judge(answer: CodeAnswer, asked: CodeChallenge | None = None, **changes: Any) -> None:
    now: dict[str, Any] = {
        "encryption_key": K.public,
        "identity_key": SIGNER.public,
        "push_token_hash": "a" * 64,
        "now": NOW,
    }
    verify_code_answer(answer, asked or challenge(), **{**now, **changes})


def fault(call: Any, *arguments: Any, **options: Any) -> CodeIdentityFault:
    with pytest.raises(CodeIdentityRejected) as refused:
        call(*arguments, **options)
    return refused.value.reason


def test_the_holder_of_both_keys_passes() -> None:
    judge(answered())
    carried = SealedChallenge.from_bytes(sealed().to_bytes())
    judge(answered(carried))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"now": NOW + timedelta(seconds=301)}, CodeIdentityFault.EXPIRED),
        ({"now": NOW - timedelta(seconds=1)}, CodeIdentityFault.EXPIRED),
        ({"encryption_key": bytes(32)}, CodeIdentityFault.KEY_CHANGED),
        ({"identity_key": bytes(65)}, CodeIdentityFault.IDENTITY_CHANGED),
        ({"push_token_hash": "b" * 64}, CodeIdentityFault.TOKEN_CHANGED),
    ],
)
def test_a_session_that_changed_or_an_answer_that_is_late_proves_nothing(
    changes: dict[str, Any], expected: CodeIdentityFault
) -> None:
    assert fault(judge, answered(), **changes) is expected


def test_a_resumed_proof_has_half_a_minute_and_needs_no_token() -> None:
    asked = challenge(channel="resume", push_token_hash="")
    answer = answered(sealed(asked))
    judge(answer, asked, push_token_hash="c" * 64)
    late = NOW + timedelta(seconds=31)
    assert fault(judge, answer, asked, now=late) is CodeIdentityFault.EXPIRED


def test_another_nonce_or_another_signer_proves_nothing() -> None:
    answer = answered()
    assert fault(judge, replace(answer, nonce=bytes(32))) is CodeIdentityFault.NONCE_MISMATCH
    other = answer_code_challenge(
        sealed(), provider_id="prov_1", key_pair=K, signer=P256Signer(bytes(range(2, 34)))
    )
    assert fault(judge, other) is CodeIdentityFault.SIGNATURE_FAILED
    raw = replace(answer, signature=SIGNER.sign_raw(NONCE))
    assert fault(judge, raw) is CodeIdentityFault.SIGNATURE_FAILED
    assert fault(judge, replace(answer, signature=b"")) is CodeIdentityFault.SIGNATURE_FAILED


def test_only_k_opens_a_challenge() -> None:
    assert fault(answered, pair=new_key_pair()) is CodeIdentityFault.NOT_OPENABLE


def test_a_challenge_of_another_connection_is_not_answered() -> None:
    assert fault(answered, provider_id="prov_2") is CodeIdentityFault.WRONG_SESSION


@pytest.mark.parametrize(
    "content",
    [
        b'{"model":"m","messages":[{"role":"user","content":"CANARY"}]}',
        b"CANARY",
        NONCE,
        (
            b'{"nonce":"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=","provider_id":"prov_1",'
            b'"purpose":"darkbloom:request:v1"}'
        ),
    ],
)
def test_the_provider_is_no_oracle_that_opens_other_things_sealed_to_it(content: bytes) -> None:
    sender = new_key_pair()
    box = bytes(24) + bytes(crypto_box(content, bytes(24), K.public, sender.private))
    stolen = SealedChallenge(ephemeral_public_key=sender.public, ciphertext=box)
    with pytest.raises(CodeIdentityRejected) as refused:
        answered(stolen)
    assert refused.value.reason is CodeIdentityFault.WRONG_PURPOSE
    assert "CANARY" not in str(refused.value)


@given(st.binary(max_size=300))
def test_no_sealed_bytes_crash_the_provider(data: bytes) -> None:
    with pytest.raises(CodeIdentityRejected):
        answered(SealedChallenge.from_bytes(data))


def test_a_flipped_bit_is_noticed_everywhere() -> None:
    good = sealed().to_bytes()
    for at in range(len(good)):
        bad = bytearray(good)
        # Not the top bit: X25519 ignores it in a public key.
        bad[at] ^= 1
        with pytest.raises(CodeIdentityRejected):
            answered(SealedChallenge.from_bytes(bytes(bad)))


def test_sizes_are_bounded() -> None:
    for size in (0, 56, MAX_SEALED_BYTES + 1):
        assert fault(SealedChallenge.from_bytes, bytes(size)) is CodeIdentityFault.MALFORMED
    short = SealedChallenge(ephemeral_public_key=K.public, ciphertext=bytes(24))
    assert fault(answered, short) is CodeIdentityFault.MALFORMED


def test_a_challenge_needs_real_randomness_and_a_real_key() -> None:
    with pytest.raises(MalformedError):
        seal_code_challenge(challenge(nonce=b""), new_key_pair(), bytes(24))
    with pytest.raises(EnvelopeError):
        seal_code_challenge(challenge(encryption_key=bytes(32)), new_key_pair(), bytes(24))


def test_neither_nonce_nor_signature_is_shown() -> None:
    assert repr(NONCE)[2:-1] not in repr((challenge(), answered()))
