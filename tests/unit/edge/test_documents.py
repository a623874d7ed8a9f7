"""Signed documents: only the right bytes, by the right key, of the right kind, in their time."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from darkbloom_edge import revocation, terminal, verdict
from darkbloom_edge.documents import parse_rfc3339, rfc3339
from darkbloom_edge.errors import MalformedError, RejectReason, SignatureRejected
from darkbloom_edge.ids import new_id
from darkbloom_edge.revocation import Revocation, sign_revocation, verify_revocation
from darkbloom_edge.signatures import (
    Ed25519Signer,
    P256Signer,
    domain_bytes,
    from_base64,
    is_canonical_der,
    parse_p256_public,
    to_base64,
    verify_ed25519,
    verify_p256,
)
from darkbloom_edge.strict_json import canonical_json
from darkbloom_edge.terminal import Terminal, sign_terminal, verify_terminal
from darkbloom_edge.transcript import Digests
from darkbloom_edge.verdict import Verdict, sign_verdict, trust_level_rank, verify_verdict
from hypothesis import given
from hypothesis import strategies as st

NOW = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
SERVICE = Ed25519Signer(bytes(range(32)))
PROVIDER = P256Signer(bytes(range(1, 33)))
KEYS = {SERVICE.key_id: SERVICE.public}


def a_verdict(**changes: Any) -> Verdict:
    fields = {
        "verdict_id": new_id("ver", bytes(16)),
        "provider_id": new_id("prov", bytes(16)),
        "identity_key": PROVIDER.public_text,
        "encryption_key": to_base64(bytes(32)),
        "trust_level": "none",
        "admission": "development",
        "evidence": ["reg_1"],
        "code_release": "sha256:00",
        "issued_at": rfc3339(NOW),
        "expires_at": rfc3339(NOW + timedelta(minutes=16)),
    }
    return Verdict(**{**fields, **changes})


def a_terminal(**changes: Any) -> Terminal:
    fields = {
        "request_id": new_id("req", bytes(16)),
        "attempt_id": new_id("att", bytes(16)),
        "build": "b",
        "weight_hash": "w",
        "prompt_tokens": 5,
        "completion_tokens": 4,
        "cached_tokens": 1,
        "reasoning_tokens": 1,
        "chunks": 3,
        "finish_reason": "stop",
        "encryption_key": to_base64(bytes(32)),
        "verdict_id": new_id("ver", bytes(16)),
        "sealed_to": 1,
        "digests": Digests(request="0" * 64, content="1" * 64, reasoning="2" * 64),
        "outcome": "completed",
    }
    return Terminal(**{**fields, **changes})


SIGNED_TERMINAL = sign_terminal(a_terminal(), PROVIDER)


def reason_of(raised: pytest.ExceptionInfo[SignatureRejected]) -> RejectReason:
    return raised.value.reason


def test_a_verdict_is_read_back_as_it_was_signed() -> None:
    document, signature = sign_verdict(a_verdict(), SERVICE)
    assert verify_verdict(document, signature, SERVICE.key_id, KEYS, NOW) == a_verdict()
    assert document == canonical_json(msgspec.json.decode(document))
    assert msgspec.json.decode(document)["version"] == 1


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"issued_at": rfc3339(NOW + timedelta(minutes=3))}, RejectReason.NOT_YET_VALID),
        (
            {
                "issued_at": rfc3339(NOW - timedelta(minutes=16)),
                "expires_at": rfc3339(NOW),
            },
            RejectReason.EXPIRED,
        ),
        ({"expires_at": rfc3339(NOW + timedelta(minutes=16, seconds=1))}, RejectReason.LIFETIME),
        ({"expires_at": rfc3339(NOW)}, RejectReason.LIFETIME),
        ({"expires_at": "2026-02-30T12:00:00Z"}, RejectReason.MALFORMED),
        ({"expires_at": "2026-01-31T12:10:00+01:00"}, RejectReason.MALFORMED),
        ({"identity_key": to_base64(b"\x04" + bytes(64))}, RejectReason.MALFORMED),
        ({"encryption_key": "short"}, RejectReason.MALFORMED),
        ({"trust_level": "gold"}, RejectReason.MALFORMED),
        ({"admission": "all"}, RejectReason.MALFORMED),
        ({"verdict_id": "ver_1"}, RejectReason.MALFORMED),
        ({"evidence": ["x"] * 65}, RejectReason.MALFORMED),
        ({"version": 2}, RejectReason.MALFORMED),
    ],
)
def test_a_signed_verdict_that_must_not_count_is_rejected(
    changes: dict[str, Any], reason: RejectReason
) -> None:
    if "issued_at" in changes and "expires_at" not in changes:
        changes = {**changes, "expires_at": rfc3339(NOW + timedelta(minutes=10))}
    document, signature = sign_verdict(a_verdict(**changes), SERVICE)
    with pytest.raises(SignatureRejected) as raised:
        verify_verdict(document, signature, SERVICE.key_id, KEYS, NOW)
    assert reason_of(raised) is reason


def test_a_verdict_of_an_unpinned_or_a_broken_key_is_rejected() -> None:
    document, signature = sign_verdict(a_verdict(), SERVICE)
    for keys, reason in (
        ({}, RejectReason.UNKNOWN_KEY),
        ({SERVICE.key_id: b"short"}, RejectReason.BAD_KEY),
        ({SERVICE.key_id: Ed25519Signer(bytes(32)).public}, RejectReason.BAD_SIGNATURE),
    ):
        with pytest.raises(SignatureRejected) as raised:
            verify_verdict(document, signature, SERVICE.key_id, keys, NOW)
        assert reason_of(raised) is reason


@given(st.data())
def test_a_changed_bit_of_document_or_signature_is_rejected(data: st.DataObject) -> None:
    document, signature = SIGNED_TERMINAL
    parts = [bytearray(document), bytearray(signature)]
    part = data.draw(st.sampled_from(parts))
    bit = data.draw(st.integers(0, len(part) * 8 - 1))
    part[bit // 8] ^= 1 << (bit % 8)
    with pytest.raises(SignatureRejected) as raised:
        verify_terminal(bytes(parts[0]), bytes(parts[1]), PROVIDER.public)
    assert reason_of(raised) is RejectReason.BAD_SIGNATURE


def test_a_signature_of_one_kind_does_not_serve_another() -> None:
    document = b"{}"
    verify_ed25519(SERVICE.public, "verdict", document, SERVICE.sign("verdict", document))
    with pytest.raises(SignatureRejected):
        verify_ed25519(SERVICE.public, "receipt", document, SERVICE.sign("verdict", document))
    with pytest.raises(SignatureRejected):
        verify_p256(PROVIDER.public, "terminal", document, PROVIDER.sign("other", document))
    assert domain_bytes("terminal", document) == b"darkbloom:terminal:v1\x00{}"


@pytest.mark.parametrize(
    "changes",
    [
        {"cached_tokens": 6},
        {"reasoning_tokens": 5},
        {"completion_tokens": -1},
        {"prompt_tokens": 2**53},
        {"sealed_to": 0},
        {"outcome": "won"},
        {"finish_reason": "bored"},
        {"request_id": "req_1"},
        {"encryption_key": ""},
        {"digests": Digests(request="x", content="1" * 64, reasoning="2" * 64)},
    ],
)
def test_a_signed_terminal_with_impossible_values_is_rejected(changes: dict[str, Any]) -> None:
    document, signature = sign_terminal(a_terminal(**changes), PROVIDER)
    with pytest.raises(SignatureRejected) as raised:
        verify_terminal(document, signature, PROVIDER.public_text)
    assert reason_of(raised) is RejectReason.MALFORMED


def test_a_terminal_is_read_back_also_without_a_finish_reason() -> None:
    for changes in ({}, {"finish_reason": None, "outcome": "error"}):
        document, signature = sign_terminal(a_terminal(**changes), PROVIDER)
        assert verify_terminal(document, signature, PROVIDER.public) == a_terminal(**changes)


@given(st.binary(max_size=100))
def test_signed_rubbish_is_rejected_and_never_crashes(rubbish: bytes) -> None:
    for check in (
        lambda: verify_terminal(rubbish, PROVIDER.sign(terminal.KIND, rubbish), PROVIDER.public),
        lambda: verify_verdict(
            rubbish, SERVICE.sign(verdict.KIND, rubbish), SERVICE.key_id, KEYS, NOW
        ),
        lambda: verify_revocation(
            rubbish, SERVICE.sign(revocation.KIND, rubbish), SERVICE.key_id, KEYS
        ),
        lambda: verify_terminal(b"{}", rubbish, PROVIDER.public),
        lambda: verify_terminal(b"{}", b"", rubbish),
    ):
        with pytest.raises(SignatureRejected):
            check()


def test_a_revocation_names_what_it_revokes() -> None:
    fields = {
        "revocation_id": new_id("rev", bytes(16)),
        "reason": "unopenable",
        "issued_at": rfc3339(NOW),
    }
    for target in (
        {"verdict_id": new_id("ver", bytes(16))},
        {"identity_key": PROVIDER.public_text},
    ):
        sent = Revocation(**fields, **target)
        document, signature = sign_revocation(sent, SERVICE)
        assert verify_revocation(document, signature, SERVICE.key_id, KEYS) == sent
        assert b"null" not in document

    document, signature = sign_revocation(Revocation(**fields), SERVICE)
    with pytest.raises(SignatureRejected):
        verify_revocation(document, signature, SERVICE.key_id, KEYS)


def test_both_spellings_of_an_identity_key_are_one_identity() -> None:
    point = PROVIDER.public
    for spelling in (point, point[1:], to_base64(point), to_base64(point[1:])):
        assert parse_p256_public(spelling) == point


@pytest.mark.parametrize(
    "key", [b"", bytes(64), bytes(65), b"\x02" + bytes(32), b"\x05" + bytes(64), "a", "YR=="]
)
def test_what_is_no_identity_key_is_refused(key: str | bytes) -> None:
    with pytest.raises(MalformedError):
        parse_p256_public(key)


def test_only_the_one_der_spelling_is_a_signature() -> None:
    good = PROVIDER.sign("terminal", b"x")
    assert is_canonical_der(good)
    padded = bytes([0x30, good[1] + 1, 0x02, good[3] + 1, 0]) + good[4:]
    long_form = b"\x30\x81" + good[1:]
    for bad in (
        b"",
        good + b"\x00",
        good[:-1],
        padded,
        long_form,
        b"\x30\x06\x02\x01\x00\x02\x01\x01",
    ):
        assert not is_canonical_der(bad)


def test_signing_keys_are_stored_and_read_back_and_never_shown() -> None:
    for signer in (Ed25519Signer.generate(), P256Signer.generate()):
        again = type(signer)(signer.private_bytes())
        assert again.public == signer.public
        assert repr(signer.private_bytes())[2:10] not in repr(signer)
    for kind in (Ed25519Signer, P256Signer):
        with pytest.raises(MalformedError):
            kind(b"short")
    with pytest.raises(MalformedError):
        P256Signer(bytes(32))


def test_trust_levels_rise() -> None:
    ranks = [trust_level_rank(level) for level in ("none", "self_signed", "hardware")]
    assert ranks == [0, 1, 2]


@given(st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30)))  # noqa: DTZ001 - the zone is given below
def test_times_are_read_back_in_whole_seconds(instant: datetime) -> None:
    aware = instant.replace(tzinfo=UTC, microsecond=0)
    assert parse_rfc3339(rfc3339(aware)) == aware


def test_a_fraction_of_a_second_is_read_only_where_it_may_be() -> None:
    text = "2026-01-31T12:00:00.25Z"
    assert parse_rfc3339(text, fraction=True) == NOW + timedelta(milliseconds=250)
    for bad in (text, "2026-01-31", "2026-13-31T12:00:00Z", "2026-01-31T12:00:00Z\n"):
        with pytest.raises(MalformedError):
            parse_rfc3339(bad)


@pytest.mark.parametrize("bad", ["YR==", "YQ", "Y Q==", "YQ==\n", "_w==", "é"])
def test_base64_has_one_spelling(bad: str) -> None:
    with pytest.raises(MalformedError):
        from_base64(bad)
