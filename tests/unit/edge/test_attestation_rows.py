"""Every row of the check tables of registration (security §3.3) and challenge (§5), one case each.

`test_attestation.py` has the behaviour around them; here each row is named, so that none is lost.
"""

import json
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import pytest
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)
from darkbloom_edge.attestation import (
    ChallengeFault,
    Expected,
    FaultKind,
    RegistrationFault,
    RegistrationOutcome,
    Severity,
    StatusReport,
    answer_challenge,
    build_registration,
    canonical_status,
    challenge_status,
    new_challenge,
    verify_challenge,
    verify_registration,
)
from darkbloom_edge.documents import rfc3339
from darkbloom_edge.signatures import to_base64
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.edge.registrations import NOW, OTHER, SIGNER, K, blob

ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def signed(**changes: Any) -> tuple[bytes, bytes]:
    return build_registration(blob(**changes), SIGNER)


def judged(document: bytes, signature: bytes | None = None, **options: Any) -> RegistrationOutcome:
    made = SIGNER.sign_raw(document) if signature is None else signature
    return verify_registration(document, made, **{"encryption_key": K, "now": NOW, **options})


def edited(edit: Any) -> bytes:
    fields = json.loads(signed()[0])
    edit(fields)
    return json.dumps(fields).encode()


class Row(NamedTuple):
    """One row of §3.3: what is presented, and what it is called."""

    number: str
    document: bytes
    fault: RegistrationFault
    kind: FaultKind
    hard: bool = True
    signature: bytes | None = None
    options: dict[str, Any] = {}  # noqa: RUF012 - a constant of the table


GOOD, GOOD_SIGNATURE = signed()
R, S = decode_dss_signature(GOOD_SIGNATURE)
LONG_FORM = b"\x30\x81" + GOOD_SIGNATURE[1:]
PADDED_R = bytes([0x30, GOOD_SIGNATURE[1] + 1, 2, GOOD_SIGNATURE[3] + 1, 0]) + GOOD_SIGNATURE[4:]
F, KIND = RegistrationFault, FaultKind

REGISTRATION_ROWS = [
    Row("1 blob present", b"", F.ABSENT, KIND.MALFORMED),
    Row("2 parses", GOOD[:-1], F.MALFORMED, KIND.MALFORMED),
    Row("2 an object", b"[]", F.MALFORMED, KIND.MALFORMED),
    Row("2 utf-8", b"\xff" + GOOD, F.MALFORMED, KIND.MALFORMED),
    Row("2 no trailing data", GOOD + b"{}", F.MALFORMED, KIND.MALFORMED),
    Row("2 no key twice", GOOD[:-1] + b',"sipEnabled":true}', F.MALFORMED, KIND.MALFORMED),
    Row("2 bounded", GOOD[:-1] + b" " * 17_000 + b"}", F.MALFORMED, KIND.MALFORMED),
    Row("2 fields present", edited(lambda b: b.pop("sipEnabled")), F.MALFORMED, KIND.MALFORMED),
    Row(
        "2 fields typed",
        edited(lambda b: b.update(sipEnabled="true")),
        F.MALFORMED,
        KIND.MALFORMED,
    ),
    Row(
        "2 timestamp parses",
        signed(timestamp="31.1.2026")[0],
        F.INVALID_TIMESTAMP,
        KIND.MALFORMED,
    ),
    Row(
        "2 timestamp in utc",
        signed(timestamp="2026-01-31T12:00:00+00:00")[0],
        F.INVALID_TIMESTAMP,
        KIND.MALFORMED,
    ),
    Row("3 key is base64", signed(public_key="%")[0], F.INVALID_PUBLIC_KEY, KIND.MALFORMED),
    Row(
        "3 key has 64 or 65 bytes",
        signed(public_key=to_base64(SIGNER.public + b"\x00"))[0],
        F.INVALID_PUBLIC_KEY,
        KIND.MALFORMED,
    ),
    Row(
        "3 key is not compressed",
        signed(public_key=to_base64(b"\x02" + SIGNER.public[1:33]))[0],
        F.INVALID_PUBLIC_KEY,
        KIND.MALFORMED,
    ),
    Row(
        "3 key is on the curve",
        signed(public_key=to_base64(b"\x04" + bytes(63) + b"\x01"))[0],
        F.POINT_NOT_ON_CURVE,
        KIND.MALFORMED,
    ),
    Row("4 der", GOOD, F.INVALID_DER_SIGNATURE, KIND.MALFORMED, signature=b"\x30\x00"),
    Row("4 der, long form", GOOD, F.INVALID_DER_SIGNATURE, KIND.MALFORMED, signature=LONG_FORM),
    Row("4 der, padded", GOOD, F.INVALID_DER_SIGNATURE, KIND.MALFORMED, signature=PADDED_R),
    Row(
        "4 der, trailing",
        GOOD,
        F.INVALID_DER_SIGNATURE,
        KIND.MALFORMED,
        signature=GOOD_SIGNATURE + b"\x00",
    ),
    Row("4 verifies", GOOD, F.SIGNATURE_FAILED, KIND.BAD_SIGNATURE, signature=OTHER.sign_raw(GOOD)),
    Row(
        "4 over these bytes",
        GOOD,
        F.SIGNATURE_FAILED,
        KIND.BAD_SIGNATURE,
        signature=SIGNER.sign_raw(GOOD + b" "),
    ),
    Row(
        "5 enclave",
        signed(secure_enclave_available=False)[0],
        F.NO_SECURE_ENCLAVE,
        KIND.BAD_POSTURE,
        hard=False,
    ),
    Row("5 sip", signed(sip_enabled=False)[0], F.SIP_DISABLED, KIND.BAD_POSTURE, hard=False),
    Row(
        "5 secure boot",
        signed(secure_boot_enabled=False)[0],
        F.SECURE_BOOT_DISABLED,
        KIND.BAD_POSTURE,
        hard=False,
    ),
    Row("6 not old", GOOD, F.STALE, KIND.STALE, options={"now": NOW + timedelta(seconds=121)}),
    Row(
        "6 not of the future",
        GOOD,
        F.STALE,
        KIND.STALE,
        options={"now": NOW - timedelta(seconds=121)},
    ),
    Row(
        "7 names K",
        signed(encryption_public_key=None)[0],
        F.ENCRYPTION_KEY_MISSING,
        KIND.BAD_BINDING,
    ),
    Row(
        "7 names this K",
        GOOD,
        F.ENCRYPTION_KEY_MISMATCH,
        KIND.BAD_BINDING,
        options={"encryption_key": bytes(32)},
    ),
    Row(
        "7 in canonical base64",
        signed(encryption_public_key=to_base64(K)[:-2] + "9=")[0],
        F.ENCRYPTION_KEY_MISMATCH,
        KIND.BAD_BINDING,
    ),
    Row(
        "8 known binary",
        signed(binary_hash="a")[0],
        F.BINARY_UNKNOWN,
        KIND.UNKNOWN_CODE,
        options={"known_binaries": {"b"}},
    ),
    Row(
        "8 names a binary",
        GOOD,
        F.BINARY_UNKNOWN,
        KIND.UNKNOWN_CODE,
        options={"known_binaries": {"b"}},
    ),
]


@pytest.mark.parametrize("row", REGISTRATION_ROWS, ids=lambda row: row.number)
def test_each_row_of_registration_has_its_reason(row: Row) -> None:
    outcome = judged(row.document, row.signature, **row.options)
    (finding,) = outcome.findings
    assert (finding.code, finding.code.kind, finding.hard) == (row.fault, row.kind, row.hard)
    assert outcome.accepted is not row.hard
    assert outcome.trust_level == "none"


def test_row_9_success_is_self_signed() -> None:
    assert judged(GOOD).trust_level == "self_signed"
    edge = timedelta(minutes=2)
    assert judged(GOOD, now=NOW + edge).accepted
    assert judged(GOOD, now=NOW - edge).accepted
    assert judged(signed(timestamp="2026-01-31T12:00:00.123456789Z")[0]).accepted


def test_every_fault_that_bytes_can_cause_has_a_row() -> None:
    """Only the file of the command line carries the signature as text."""
    rows = {row.fault for row in REGISTRATION_ROWS}
    assert rows == set(RegistrationFault) - {RegistrationFault.INVALID_SIGNATURE_BASE64}


def test_all_posture_items_are_reported_beside_a_key_that_is_none() -> None:
    document = signed(
        public_key="%",
        sip_enabled=False,
        secure_boot_enabled=False,
        secure_enclave_available=False,
    )[0]
    codes = [finding.code for finding in judged(document).findings]
    assert codes == [
        F.INVALID_PUBLIC_KEY,
        F.NO_SECURE_ENCLAVE,
        F.SIP_DISABLED,
        F.SECURE_BOOT_DISABLED,
    ]


def test_both_forms_of_a_key_are_one_identity() -> None:
    short = judged(signed(public_key=to_base64(SIGNER.public[1:]))[0])
    assert short.accepted
    assert short.identity_key == judged(GOOD).identity_key == SIGNER.public


def test_both_halves_of_the_curve_sign() -> None:
    """The Secure Enclave does not promise a low S, and nothing is keyed by a signature."""
    for s in (S, ORDER - S):
        assert judged(GOOD, encode_dss_signature(R, s)).accepted
    assert not judged(GOOD, encode_dss_signature(R, S ^ 1)).accepted


def test_legacy_fields_and_other_orders_verify_over_the_bytes_that_came() -> None:
    fields = json.loads(GOOD)
    document = json.dumps(
        {**dict(reversed(fields.items())), "hypervisorActive": True}, indent=1
    ).encode()
    assert judged(document).accepted
    swift = GOOD.replace(b"/", b"\\/")
    assert swift != GOOD
    assert judged(swift).accepted
    assert judged(swift, GOOD_SIGNATURE).findings[0].code is F.SIGNATURE_FAILED


@given(st.data())
def test_no_flipped_byte_is_accepted(data: st.DataObject) -> None:
    whole = GOOD + GOOD_SIGNATURE
    at = data.draw(st.integers(0, len(whole) - 1))
    bad = bytearray(whole)
    bad[at] ^= data.draw(st.integers(1, 255))
    assert not judged(bytes(bad[: len(GOOD)]), bytes(bad[len(GOOD) :])).accepted


CHALLENGE = new_challenge(bytes(32), rfc3339(NOW), "prov_" + "0" * 32)
REPORT: dict[str, Any] = {
    "public_key": to_base64(K),
    "sip_enabled": True,
    "secure_boot_enabled": True,
    "rdma_disabled": True,
}
C = ChallengeFault


class Answer(NamedTuple):
    """One row of §5: what is answered, and what follows."""

    name: str
    fault: ChallengeFault
    severity: Severity
    report: dict[str, Any] = {}  # noqa: RUF012 - a constant of the table
    known: dict[str, Any] = {}  # noqa: RUF012 - a constant of the table
    asked: dict[str, Any] = {}  # noqa: RUF012 - a constant of the table
    now: datetime = NOW


CHALLENGE_ROWS = [
    Answer("nonce", C.NONCE_MISMATCH, Severity.STRIKE, asked={"nonce": "other"}),
    Answer("timestamp", C.NONCE_MISMATCH, Severity.STRIKE, asked={"timestamp": "other"}),
    Answer("session", C.WRONG_PROVIDER, Severity.STRIKE, asked={"provider_id": "other"}),
    Answer("late", C.STALE, Severity.STRIKE, now=NOW + timedelta(seconds=36)),
    Answer("early", C.STALE, Severity.STRIKE, now=NOW - timedelta(seconds=121)),
    Answer("K", C.PUBLIC_KEY_MISMATCH, Severity.STRIKE, report={"public_key": "x"}),
    Answer("sip missing", C.SIP_NOT_REPORTED, Severity.STRIKE, report={"sip_enabled": None}),
    Answer("sip off", C.SIP_DISABLED, Severity.UNTRUST, report={"sip_enabled": False}),
    Answer(
        "secure boot missing",
        C.SECURE_BOOT_NOT_REPORTED,
        Severity.STRIKE,
        report={"secure_boot_enabled": None},
    ),
    Answer(
        "secure boot off",
        C.SECURE_BOOT_DISABLED,
        Severity.UNTRUST,
        report={"secure_boot_enabled": False},
    ),
    Answer("rdma missing", C.RDMA_NOT_REPORTED, Severity.STRIKE, report={"rdma_disabled": None}),
    Answer(
        "binary changed",
        C.BINARY_HASH_MISMATCH,
        Severity.UNTRUST,
        report={"binary_hash": "b"},
        known={"binary_hash": "a"},
    ),
    Answer("binary not told", C.BINARY_HASH_MISMATCH, Severity.UNTRUST, known={"binary_hash": "a"}),
    Answer(
        "binary not known",
        C.BINARY_HASH_MISMATCH,
        Severity.UNTRUST,
        report={"binary_hash": "a"},
        known={"binary_hash": "a", "known_binaries": {"b"}},
    ),
    Answer(
        "metallib changed",
        C.METALLIB_HASH_MISMATCH,
        Severity.UNTRUST,
        report={"metallib_hash": "b"},
        known={"metallib_hash": "a"},
    ),
    Answer(
        "weights changed",
        C.WEIGHT_HASH_MISMATCH,
        Severity.UNTRUST,
        report={"model_hashes": {"m": "1"}},
        known={"model_hashes": {"m": "2"}},
    ),
    Answer(
        "active weights strange",
        C.WEIGHT_HASH_MISMATCH,
        Severity.UNTRUST,
        report={"active_model_hash": "1"},
        known={"model_hashes": {"m": "2"}},
    ),
    Answer(
        "capability gained",
        C.CAPABILITIES_MISMATCH,
        Severity.UNTRUST,
        report={"runtime_capabilities": ["apple_m5"]},
    ),
    Answer(
        "capability lost",
        C.CAPABILITIES_MISMATCH,
        Severity.UNTRUST,
        report={"runtime_capabilities": []},
        known={"runtime_capabilities": ["apple_m5"]},
    ),
]


def expecting(**known: Any) -> Expected:
    fields = {
        "challenge": CHALLENGE,
        "identity_key": SIGNER.public,
        "encryption_key": K,
        "posture_required": True,
    }
    return Expected(**{**fields, **known})


@pytest.mark.parametrize("row", CHALLENGE_ROWS, ids=lambda row: row.name)
def test_each_row_of_a_challenge_has_its_reason_and_its_consequence(row: Answer) -> None:
    asked = CHALLENGE._replace(**row.asked)
    status, signature = answer_challenge(asked, StatusReport(**{**REPORT, **row.report}), SIGNER)
    outcome = verify_challenge(status, signature, expecting(**row.known), row.now)
    assert outcome.findings == ((row.fault, row.severity),)
    assert not outcome.passed
    assert outcome.untrust is (row.severity is Severity.UNTRUST)


SIGNATURE_ROWS = [
    ("empty", b"", C.EMPTY_SIGNATURE),
    (
        "another key",
        OTHER.sign_raw(challenge_status(CHALLENGE, StatusReport(**REPORT))),
        C.SIGNATURE_FAILED,
    ),
    ("no der", b"\x01", C.SIGNATURE_FAILED),
]


@pytest.mark.parametrize(
    ("name", "signature", "fault"), SIGNATURE_ROWS, ids=[row[0] for row in SIGNATURE_ROWS]
)
def test_each_row_of_a_status_signature_is_a_strike(
    name: str, signature: bytes, fault: ChallengeFault
) -> None:
    status = challenge_status(CHALLENGE, StatusReport(**REPORT))
    outcome = verify_challenge(status, signature, expecting(), NOW)
    assert outcome.findings == ((fault, Severity.STRIKE),)
    assert outcome.report is None


GOOD_STATUS = challenge_status(CHALLENGE, StatusReport(**REPORT))
STATUS_SIGNATURE = SIGNER.sign_raw(GOOD_STATUS)


@pytest.mark.parametrize(
    "status",
    [
        b"",
        GOOD_STATUS[:-1],
        GOOD_STATUS + b" ",
        GOOD_STATUS[:-1] + b',"sip_enabled":true}',
        GOOD_STATUS.replace(b"{", b'{"z":null,', 1),
        GOOD_STATUS.replace(b",", b", ", 1),
        GOOD_STATUS.replace(b"true", b"1", 1),
        json.dumps(dict(reversed(json.loads(GOOD_STATUS).items())), separators=(",", ":")).encode(),
    ],
)
def test_only_the_canonical_spelling_of_a_status_counts(status: bytes) -> None:
    outcome = verify_challenge(status, SIGNER.sign_raw(status), expecting(), NOW)
    assert outcome.findings == ((C.MALFORMED, Severity.STRIKE),)


def test_a_status_of_another_domain_does_not_count() -> None:
    fields = json.loads(GOOD_STATUS)
    for domain in ("", "darkbloom:challenge:v2"):
        status = canonical_status({**fields, "domain": domain})
        outcome = verify_challenge(status, SIGNER.sign_raw(status), expecting(), NOW)
        assert outcome.findings == ((C.WRONG_DOMAIN, Severity.STRIKE),)


def test_every_fault_of_a_challenge_has_a_row() -> None:
    rows = {row.fault for row in CHALLENGE_ROWS} | {fault for _, _, fault in SIGNATURE_ROWS}
    assert rows | {C.MALFORMED, C.WRONG_DOMAIN} == set(ChallengeFault)


def test_an_unsigned_or_foreign_answer_says_nothing_about_posture() -> None:
    report = StatusReport(**{**REPORT, "sip_enabled": False})
    status, signature = answer_challenge(CHALLENGE, report, OTHER)
    outcome = verify_challenge(status, signature, expecting(), NOW)
    assert not outcome.untrust


@given(st.data())
def test_no_flipped_byte_of_an_answer_passes(data: st.DataObject) -> None:
    whole = bytearray(GOOD_STATUS + STATUS_SIGNATURE)
    whole[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    status, changed = bytes(whole[: len(GOOD_STATUS)]), bytes(whole[len(GOOD_STATUS) :])
    assert not verify_challenge(status, changed, expecting(), NOW).passed


@pytest.mark.parametrize(
    ("fields", "canonical"),
    [
        ({"nonce": "n", "timestamp": "t"}, '{"nonce":"n","timestamp":"t"}'),
        (
            {"timestamp": "t", "sip_enabled": False, "nonce": "n"},
            '{"nonce":"n","sip_enabled":false,"timestamp":"t"}',
        ),
        (
            {"nonce": "n", "timestamp": "t", "model_hashes": {"é": "<&>", "z": "\u2028", "A": ""}},
            '{"model_hashes":{"A":"","z":"\\u2028","é":"<&>"},"nonce":"n","timestamp":"t"}',
        ),
        (
            {"nonce": "n", "timestamp": "t", "m": {"\ue000": "1", "\U00010000": "2"}},
            '{"m":{"\ue000":"1","\U00010000":"2"},"nonce":"n","timestamp":"t"}',
        ),
    ],
)
def test_canonical_statuses_have_golden_bytes(fields: dict[str, Any], canonical: str) -> None:
    assert canonical_status(fields) == canonical.encode()
