"""The last rung as a table: what is missing, what is stale, what may be reused."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from darkbloom_attestation import ladder
from darkbloom_attestation.evidence import (
    Continuity,
    Grounds,
    KeyProof,
    KeyProofKind,
    Posture,
    PostureKind,
    TrustReason,
)
from darkbloom_mesh.testing import EPOCH as NOW

SERIAL, KEY = b"s" * 32, b"\x04" + b"k" * 64
PROOF = KeyProof(
    evidence_id="kpr_1",
    kind=KeyProofKind.APP_ATTEST,
    provider_id="prov_1",
    identity_key=KEY,
    encryption_key=b"K" * 32,
    serial_hash=SERIAL,
    document=b"",
    signature=b"",
    key_id=b"i" * 32,
    observe_time=NOW,
    expire_time=NOW + ladder.KEY_PROOF_LIFETIME,
)
POSTURE = Posture(
    evidence_id="pos_1",
    kind=PostureKind.SECURITY_INFO,
    serial_hash=SERIAL,
    identity_key=KEY,
    fingerprint=b"f" * 32,
    sip_enabled=True,
    full_security=True,
    document=b"",
    observe_time=NOW,
    expire_time=NOW + ladder.POSTURE_LIFETIME,
)
BEFORE = Continuity(
    posture_since=NOW - timedelta(hours=3),
    proof_time=NOW,
    seen_time=NOW,
    serial_hash=SERIAL,
    runtime_hash="r",
    binary_hash="b",
)
S = timedelta(seconds=1)


def climb(
    proof: KeyProof | None = PROOF, *postures: Posture, now: Any = NOW
) -> Grounds | TrustReason:
    return ladder.climb(proof, postures, posture_since=NOW, now=now)


def test_both_legs_are_grounds() -> None:
    assert climb(PROOF, POSTURE) == Grounds(proof=PROOF, posture=POSTURE)


def test_no_leg_alone_is() -> None:
    assert climb(None, POSTURE) is TrustReason.KEY_PROOF_MISSING
    assert climb(PROOF) is TrustReason.POSTURE_MISSING


@pytest.mark.parametrize(
    "posture", [replace(POSTURE, serial_hash=b"x" * 32), replace(POSTURE, identity_key=b"x" * 65)]
)
def test_a_posture_of_another_device_or_enclave_key_is_none(posture: Posture) -> None:
    assert climb(PROOF, posture) is TrustReason.POSTURE_MISSING


def test_evidence_counts_until_half_a_minute_before_its_end() -> None:
    last = ladder.KEY_PROOF_LIFETIME - ladder.LEAST_LIFE
    assert isinstance(climb(PROOF, POSTURE, now=NOW + last), Grounds)
    assert climb(PROOF, POSTURE, now=NOW + last + S) is TrustReason.KEY_PROOF_MISSING
    ends = NOW + timedelta(seconds=30)
    assert isinstance(climb(PROOF, replace(POSTURE, expire_time=ends)), Grounds)
    assert climb(PROOF, replace(POSTURE, expire_time=ends - S)) is TrustReason.POSTURE_STALE


def test_a_posture_from_before_counts_no_more() -> None:
    assert climb(PROOF, replace(POSTURE, observe_time=NOW - S)) is TrustReason.POSTURE_STALE


@pytest.mark.parametrize("bad", [{"sip_enabled": False}, {"full_security": False}])
@pytest.mark.parametrize("kind", list(PostureKind))
def test_the_newest_posture_decides_whatever_backs_the_older_ones(
    bad: dict[str, Any], kind: PostureKind
) -> None:
    worse = replace(POSTURE, kind=kind, observe_time=NOW + S, **bad)
    assert climb(PROOF, POSTURE, worse, now=NOW + S) is TrustReason.POSTURE_MISMATCH
    better = replace(POSTURE, observe_time=NOW + 2 * S)
    assert isinstance(climb(PROOF, POSTURE, worse, better, now=NOW + 2 * S), Grounds)


def test_of_two_good_postures_the_one_that_apple_signed_is_named() -> None:
    signed = replace(POSTURE, evidence_id="pos_2", kind=PostureKind.MDA)
    later = replace(POSTURE, observe_time=NOW + S)
    found = climb(PROOF, signed, later, now=NOW + S)
    assert isinstance(found, Grounds)
    assert found.posture == signed


def test_a_verdict_ends_with_whatever_ends_first() -> None:
    grounds = Grounds(proof=PROOF, posture=replace(POSTURE, expire_time=NOW + 5 * S))
    assert ladder.expiry(grounds, NOW + 9 * S) == NOW + 5 * S
    assert ladder.expiry(grounds, NOW + 3 * S) == NOW + 3 * S


def test_only_better_evidence_takes_a_serial() -> None:
    mda, info = PostureKind.MDA, PostureKind.SECURITY_INFO
    assert ladder.outranks(mda, info)
    assert not any((ladder.outranks(info, mda), ladder.outranks(mda, mda)))
    assert not ladder.outranks(info, info)


def begin(before: Continuity | None = BEFORE, **changes: Any) -> ladder.Beginning:
    fields = {
        "now": NOW,
        "serial_hash": SERIAL,
        "runtime_hash": "r",
        "binary_hash": "b",
        "release_known": True,
        **changes,
    }
    return ladder.begin(fields.pop("now"), before=before, **fields)


def test_the_first_session_begins_anew() -> None:
    assert begin(None) == ladder.Beginning(posture_since=NOW - ladder.RECONNECT_GAP, reason=None)


@pytest.mark.parametrize(
    ("ago_proof", "ago_seen", "runtime", "reason"),
    [
        (300, 300, "r", TrustReason.SAME_BINARY),
        (300, 300, "new", TrustReason.APPROVED_RELEASE_TRANSITION),
        (301, 90, "r", TrustReason.CONTINUITY),
        (301, 90, "new", TrustReason.CONTINUITY_RELEASE_TRANSITION),
        (301, 91, "r", None),
        (-1, -1, "r", None),
    ],
)
def test_posture_is_reused_only_across_a_short_gap(
    ago_proof: int, ago_seen: int, runtime: str, reason: TrustReason | None
) -> None:
    before = replace(BEFORE, proof_time=NOW - ago_proof * S, seen_time=NOW - ago_seen * S)
    found = begin(before, runtime_hash=runtime)
    assert found.reason is reason
    since = BEFORE.posture_since if reason else NOW - ladder.RECONNECT_GAP
    assert found.posture_since == since


@pytest.mark.parametrize(
    ("before", "changes"),
    [
        (BEFORE, {"serial_hash": b"x" * 32}),
        (BEFORE, {"serial_hash": b""}),
        (BEFORE, {"runtime_hash": "new", "release_known": False}),
        (BEFORE, {"binary_hash": "new", "release_known": False}),
        (replace(BEFORE, proof_time=None, seen_time=None), {}),
    ],
)
def test_nothing_is_reused_by_another_serial_or_unknown_code(
    before: Continuity, changes: dict[str, Any]
) -> None:
    assert begin(before, **changes).reason is None
