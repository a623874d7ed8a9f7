"""The rules around a push: budgets, stored proofs, the provider token."""

from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from darkbloom_attestation.apns.budget import Denied, PushBudget, Refusal
from darkbloom_attestation.apns.credentials import ProviderToken
from darkbloom_attestation.apns.model import PushEnvironment, PushMode, PushToken
from darkbloom_attestation.apns.payload import MAX_PAYLOAD_BYTES, challenge_push
from darkbloom_attestation.apns.proofs import Asked, CodeProof, Resume, may_resume
from darkbloom_attestation.errors import PushKeyError, PushTokenError
from darkbloom_edge.code_identity import SealedChallenge
from darkbloom_mesh.testing import FakeClock

NOW = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
BACKGROUND, ALERT = PushMode.BACKGROUND, PushMode.ALERT


def budget(per_minute: int = 100, jitter: float = 0.0, devices: int = 10) -> PushBudget:
    return PushBudget(per_minute, lambda: jitter, devices)


def refusal(denied: Denied | None) -> Refusal:
    assert denied is not None
    return denied.refusal


def test_a_series_has_three_attempts_fifteen_to_thirty_seconds_apart() -> None:
    rules = budget(jitter=0.5)
    assert rules.take("d", "s1", BACKGROUND, 0) is None
    assert rules.take("d", "s1", BACKGROUND, 22) == Denied(Refusal.TOO_EARLY, 0.5)
    assert rules.take("d", "s1", BACKGROUND, 22.5) is None
    assert rules.take("d", "s1", BACKGROUND, 45) is None
    assert rules.take("d", "s1", BACKGROUND, 9999) == Denied(Refusal.ATTEMPTS_USED, None)


@pytest.mark.parametrize(("mode", "spacing"), [(BACKGROUND, 1200), (ALERT, 75)])
def test_a_device_that_reconnects_waits_for_its_next_series(mode: PushMode, spacing: float) -> None:
    rules = budget()
    assert rules.take("d", "s1", mode, 0) is None
    assert rules.take("d", "s2", mode, 1) == Denied(Refusal.DEVICE_SPACING, spacing - 1)
    assert rules.take("other", "s3", mode, 1) is None
    assert rules.take("d", "s2", mode, spacing) is None


def test_all_devices_together_have_one_share_of_a_minute() -> None:
    rules = budget(per_minute=2)
    assert rules.take("a", "1", ALERT, 0) is None
    assert rules.take("b", "2", ALERT, 10) is None
    assert rules.take("c", "3", ALERT, 20) == Denied(Refusal.GLOBAL, 40)
    assert rules.take("c", "3", ALERT, 60) is None


def test_what_was_refused_costs_nothing() -> None:
    rules = budget(per_minute=1)
    rules.take("a", "1", ALERT, 0)
    for second in range(1, 50):
        assert refusal(rules.take("b", "2", ALERT, second)) is Refusal.GLOBAL
    assert rules.take("b", "2", ALERT, 60) is None


def test_a_budget_of_nothing_sends_nothing() -> None:
    assert budget(per_minute=0).take("a", "1", ALERT, 0) == Denied(Refusal.GLOBAL, 60)


def test_only_so_many_devices_are_remembered() -> None:
    rules = budget(devices=2)
    for name in ("a", "b", "c"):
        assert rules.take(name, name, BACKGROUND, 0) is None
    assert rules.take("a", "again", BACKGROUND, 1) is None
    assert refusal(rules.take("c", "again", BACKGROUND, 1)) is Refusal.DEVICE_SPACING


def proof(**changes: Any) -> CodeProof:
    fields = {
        "identity_key": b"i",
        "encryption_key": b"k",
        "push_token_hash": "t",
        "version": "1.0.0",
        "prove_time": NOW,
        "last_seen_time": NOW,
    }
    return CodeProof(**{**fields, **changes})


def asked(**changes: Any) -> Asked:
    fields = {
        "identity_key": b"i",
        "encryption_key": b"k",
        "push_token_hash": "t",
        "version": "1.0.0",
    }
    return Asked(**{**fields, **changes})


@pytest.mark.parametrize(
    ("stored", "session", "after_s", "approved", "expected"),
    [
        ({}, {}, 0, False, Resume.SAME_PROCESS),
        ({}, {}, 1799, False, Resume.SAME_PROCESS),
        ({}, {}, 1800, False, Resume.PUSH),
        ({"last_seen_time": NOW + timedelta(hours=5)}, {}, 18_120, False, Resume.CONTINUITY),
        ({"last_seen_time": NOW + timedelta(hours=5)}, {}, 18_121, False, Resume.PUSH),
        ({}, {"encryption_key": b"x"}, 0, True, Resume.PUSH),
        ({}, {"identity_key": b"x"}, 0, True, Resume.PUSH),
        ({}, {"push_token_hash": "x"}, 0, True, Resume.PUSH),
        ({}, {"version": "1.1.0", "encryption_key": b"x"}, 60, False, Resume.PUSH),
        (
            {},
            {"version": "1.1.0", "encryption_key": b"x"},
            60,
            True,
            Resume.APPROVED_RELEASE_TRANSITION,
        ),
        ({}, {"version": "1.1.0", "encryption_key": b"x"}, 1800, True, Resume.PUSH),
        ({}, {}, -1, True, Resume.PUSH),
    ],
)
def test_a_stored_proof_only_shortens_the_way_to_the_question(
    stored: dict[str, Any],
    session: dict[str, Any],
    after_s: float,
    approved: bool,
    expected: Resume,
) -> None:
    now = NOW + timedelta(seconds=after_s)
    found = may_resume(proof(**stored), asked(**session), now, transition_approved=approved)
    assert found is expected


def test_without_a_proof_there_is_only_the_push() -> None:
    assert may_resume(None, asked(), NOW, transition_approved=True) is Resume.PUSH


def pem(key: Any) -> bytes:
    encoded: bytes = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return encoded


async def test_a_provider_token_lives_fifty_minutes() -> None:
    clock, key = FakeClock(), ec.generate_private_key(ec.SECP256R1())
    made = ProviderToken.load(pem(key), key_id="ABC123DEFG", team_id="TEAM123456", clock=clock)
    first = made.current()
    await clock.advance(2999)
    assert made.current() == first
    await clock.advance(1)
    second = made.current()
    assert second != first
    iat = {"verify_iat": False}
    ages = [
        jwt.decode(token, key.public_key(), algorithms=["ES256"], options=iat)["iat"]
        for token in (first, second)
    ]
    assert ages[1] - ages[0] == 3000
    assert first not in repr(made)


async def test_a_refused_token_of_the_past_changes_nothing() -> None:
    clock, key = FakeClock(), ec.generate_private_key(ec.SECP256R1())
    made = ProviderToken.load(pem(key), key_id="ABC123DEFG", team_id="TEAM123456", clock=clock)
    current = made.current()
    made.refuse("another")
    await clock.advance(1201)
    assert made.current() == current


@pytest.mark.parametrize(
    ("content", "key_id"),
    [
        (b"", "ABC123DEFG"),
        (b"CANARY", "ABC123DEFG"),
        (pem(ec.generate_private_key(ec.SECP384R1())), "ABC123DEFG"),
        (pem(rsa.generate_private_key(65537, 2048)), "ABC123DEFG"),
        (pem(ec.generate_private_key(ec.SECP256R1())), "short"),
        (pem(ec.generate_private_key(ec.SECP256R1())), "ABC123DEF/"),
    ],
)
def test_a_key_that_cannot_sign_for_apple_is_refused_without_being_shown(
    content: bytes, key_id: str
) -> None:
    with pytest.raises(PushKeyError) as refused:
        ProviderToken.load(content, key_id=key_id, team_id="TEAM123456", clock=FakeClock())
    assert "CANARY" not in str(refused.value)


@pytest.mark.parametrize(
    "text", ["", "a" * 63, "a" * 201, "../" + "a" * 64, "g" * 64, "a" * 64 + "\n"]
)
def test_a_token_cannot_steer_the_request_elsewhere(text: str) -> None:
    with pytest.raises(PushTokenError):
        PushToken(text)


def test_one_token_has_one_digest_and_is_not_shown() -> None:
    token = PushToken("AB" * 32)
    assert token.digest == PushToken("ab" * 32).digest
    assert "AB" not in repr(token)


def test_a_push_fits() -> None:
    token = PushToken("ab" * 32)
    sealed = SealedChallenge(ephemeral_public_key=bytes(32), ciphertext=bytes(400))
    made = challenge_push(sealed, token, PushEnvironment.DEVELOPMENT, ALERT)
    assert len(made.payload) <= MAX_PAYLOAD_BYTES
    huge = SealedChallenge(ephemeral_public_key=bytes(32), ciphertext=bytes(4000))
    with pytest.raises(ValueError, match="4 KiB"):
        challenge_push(huge, token, PushEnvironment.DEVELOPMENT, ALERT)
