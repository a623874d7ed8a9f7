"""Registrations and challenges: everything that is wrong is named, and posture caps, not kills."""

import base64
import json
import os
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from darkbloom_edge.attestation import (
    Challenge,
    ChallengeFault,
    ChallengeOutcome,
    Expected,
    RegistrationBlob,
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
from darkbloom_edge.errors import MalformedError
from darkbloom_edge.signatures import P256Signer, parse_p256_public, to_base64
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.edge.registrations import NOW, OTHER, SIGNER, K, blob

CHALLENGE = new_challenge(bytes(32), rfc3339(NOW), "prov_" + "0" * 32)


def vectors() -> dict[str, Any]:
    root = os.environ.get("DARKBLOOM_TEST_DATA", "../shared/data")  # noqa: TID251 - where the data lies is the environment's to say
    path = Path(root, "vectors.json")
    if not path.exists():
        pytest.skip(f"no test data: {path.name}")
    loaded: dict[str, Any] = json.loads(path.read_text())
    return loaded


def registered(
    changed: RegistrationBlob | None = None, signer: P256Signer = SIGNER, **options: Any
) -> RegistrationOutcome:
    document, signature = build_registration(changed or blob(), signer)
    return verify_registration(document, signature, **{"encryption_key": K, "now": NOW, **options})


def codes(outcome: RegistrationOutcome | ChallengeOutcome) -> list[str]:
    return [finding.code for finding in outcome.findings]


def test_a_clean_registration_can_reach_self_signed_and_no_more() -> None:
    outcome = registered()
    assert (outcome.accepted, outcome.trust_level, outcome.findings) == (True, "self_signed", ())
    assert outcome.identity_key == SIGNER.public
    assert outcome.blob == blob()


def test_the_signed_bytes_are_sorted_and_hold_no_absent_fields() -> None:
    document, _ = build_registration(blob(), SIGNER)
    fields = json.loads(document)
    assert list(fields) == sorted(fields)
    assert "binaryHash" not in fields
    assert fields["secureEnclaveAvailable"] is True


def test_a_linux_host_is_accepted_at_level_none_and_every_posture_item_is_named() -> None:
    outcome = registered(
        blob(secure_enclave_available=False, sip_enabled=False, secure_boot_enabled=False)
    )
    assert codes(outcome) == ["no_secure_enclave", "sip_disabled", "secure_boot_disabled"]
    assert (outcome.accepted, outcome.trust_level) == (True, "none")


@pytest.mark.parametrize(
    ("changes", "options", "code"),
    [
        ({"timestamp": rfc3339(NOW - timedelta(seconds=121))}, {}, RegistrationFault.STALE),
        ({"timestamp": rfc3339(NOW + timedelta(seconds=121))}, {}, RegistrationFault.STALE),
        ({"timestamp": "yesterday"}, {}, RegistrationFault.INVALID_TIMESTAMP),
        ({"encryption_public_key": None}, {}, RegistrationFault.ENCRYPTION_KEY_MISSING),
        ({"encryption_public_key": "x"}, {}, RegistrationFault.ENCRYPTION_KEY_MISMATCH),
        ({}, {"encryption_key": bytes(32)}, RegistrationFault.ENCRYPTION_KEY_MISMATCH),
        ({"public_key": to_base64(bytes(64))}, {}, RegistrationFault.POINT_NOT_ON_CURVE),
        ({"public_key": to_base64(bytes(63))}, {}, RegistrationFault.INVALID_PUBLIC_KEY),
        ({"binary_hash": "a"}, {"known_binaries": {"b"}}, RegistrationFault.BINARY_UNKNOWN),
        ({}, {"signer": OTHER}, RegistrationFault.SIGNATURE_FAILED),
    ],
)
def test_a_hard_fault_is_named_and_not_accepted(
    changes: dict[str, Any], options: dict[str, Any], code: RegistrationFault
) -> None:
    outcome = registered(blob(**changes), **options)
    assert codes(outcome) == [code]
    assert (outcome.accepted, outcome.trust_level) == (False, "none")


def test_all_faults_are_reported_not_just_the_last() -> None:
    outcome = registered(
        blob(sip_enabled=False, encryption_public_key=None, timestamp="2020-01-01T00:00:00Z"),
        signer=OTHER,
    )
    assert codes(outcome) == [
        "signature_failed",
        "sip_disabled",
        "stale",
        "encryption_key_missing",
    ]


def test_the_exact_bytes_are_checked_not_a_new_encoding() -> None:
    document, _ = build_registration(blob(chip_name="a/b"), SIGNER)
    swift = document.replace(b"/", b"\\/")
    outcome = verify_registration(swift, SIGNER.sign_raw(swift), encryption_key=K, now=NOW)
    assert outcome.accepted
    outcome = verify_registration(swift, SIGNER.sign_raw(document), encryption_key=K, now=NOW)
    assert codes(outcome) == ["signature_failed"]


@pytest.mark.parametrize(
    "document",
    [b"[]", b'{"chipName":1}', b'{"a":1,"a":2}', b"{} x"],
)
def test_a_malformed_blob_is_told_from_a_bad_signature(document: bytes) -> None:
    outcome = verify_registration(document, SIGNER.sign_raw(document), encryption_key=K, now=NOW)
    assert codes(outcome) == ["malformed"]
    outcome = verify_registration(
        build_registration(blob(), SIGNER)[0], b"0", encryption_key=K, now=NOW
    )
    assert codes(outcome) == ["invalid_der_signature"]


@given(st.binary(max_size=60), st.binary(max_size=60))
def test_no_registration_or_answer_crashes_the_judge(document: bytes, signature: bytes) -> None:
    assert not verify_registration(document, signature, encryption_key=K, now=NOW).accepted
    assert not verify_registration(
        document, SIGNER.sign_raw(document), encryption_key=K, now=NOW
    ).accepted
    assert not verify_challenge(document, signature, expected(), NOW).passed
    assert not verify_challenge(document, SIGNER.sign_raw(document), expected(), NOW).passed


def test_a_serial_number_is_not_shown() -> None:
    assert "C02CANARY1" not in repr(blob(serial_number="C02CANARY1"))


def test_the_canonical_status_matches_the_golden_values() -> None:
    for case in vectors()["canonical_status"]["cases"]:
        data = canonical_status(json.loads(case["canonical"]))
        assert data == case["canonical"].encode()
        assert len(data) == case["length"]


def test_both_published_encodings_of_a_key_are_one_identity() -> None:
    for case in vectors()["se_key_encodings"]["cases"]:
        point = base64.b64decode(case["point65"])
        assert parse_p256_public(case["raw64"]) == parse_p256_public(case["point65"]) == point


def test_the_canonical_status_keeps_false_and_drops_what_is_absent() -> None:
    assert canonical_status({"nonce": "n", "timestamp": "t"}) == b'{"nonce":"n","timestamp":"t"}'
    assert canonical_status(
        {
            "timestamp": "",
            "nonce": "n",
            "sip_enabled": False,
            "binary_hash": "",
            "model_hashes": {},
            "rdma_disabled": None,
            "template_hashes": {"b": "", "a": "<\u2028\u2029>"},
        }
    ) == (
        b'{"nonce":"n","sip_enabled":false,"template_hashes":{"a":"<\\u2028\\u2029>","b":""},'
        b'"timestamp":""}'
    )


def report(**changes: Any) -> StatusReport:
    fields = {
        "public_key": to_base64(K),
        "sip_enabled": True,
        "secure_boot_enabled": True,
        "rdma_disabled": True,
    }
    return StatusReport(**{**fields, **changes})


def expected(**changes: Any) -> Expected:
    fields = {
        "challenge": CHALLENGE,
        "identity_key": SIGNER.public,
        "encryption_key": K,
        "posture_required": True,
    }
    return Expected(**{**fields, **changes})


def answered(
    changed: StatusReport | None = None,
    *,
    challenge: Challenge = CHALLENGE,
    signer: P256Signer = SIGNER,
    now: datetime = NOW,
    **changes: Any,
) -> ChallengeOutcome:
    status, signature = answer_challenge(challenge, changed or report(), signer)
    return verify_challenge(status, signature, expected(**changes), now)


def test_a_good_answer_passes() -> None:
    outcome = answered()
    assert (outcome.passed, outcome.untrust, outcome.posture_clean) == (True, False, True)
    assert outcome.report == report()


@pytest.mark.parametrize(
    ("changes", "posture", "code", "severity"),
    [
        ({"sip_enabled": None}, True, ChallengeFault.SIP_NOT_REPORTED, Severity.STRIKE),
        ({"sip_enabled": False}, True, ChallengeFault.SIP_DISABLED, Severity.UNTRUST),
        (
            {"secure_boot_enabled": None},
            True,
            ChallengeFault.SECURE_BOOT_NOT_REPORTED,
            Severity.STRIKE,
        ),
        (
            {"secure_boot_enabled": False},
            True,
            ChallengeFault.SECURE_BOOT_DISABLED,
            Severity.UNTRUST,
        ),
        ({"rdma_disabled": None}, True, ChallengeFault.RDMA_NOT_REPORTED, Severity.STRIKE),
        ({"sip_enabled": None}, False, ChallengeFault.SIP_NOT_REPORTED, Severity.RECORDED),
        ({"sip_enabled": False}, False, ChallengeFault.SIP_DISABLED, Severity.RECORDED),
        ({"public_key": "x"}, False, ChallengeFault.PUBLIC_KEY_MISMATCH, Severity.STRIKE),
    ],
)
def test_what_a_report_says_has_its_consequence(
    changes: dict[str, Any], posture: bool, code: ChallengeFault, severity: Severity
) -> None:
    outcome = answered(report(**changes), posture_required=posture)
    assert outcome.findings == ((code, severity),)
    assert outcome.passed is (severity is Severity.RECORDED)
    assert outcome.untrust is (severity is Severity.UNTRUST)
    assert not outcome.posture_clean


def test_an_rdma_value_is_only_informational() -> None:
    assert answered(report(rdma_disabled=False)).passed


@pytest.mark.parametrize(
    ("changes", "known", "code"),
    [
        ({"binary_hash": "b"}, {"binary_hash": "a"}, ChallengeFault.BINARY_HASH_MISMATCH),
        ({"binary_hash": "b"}, {"known_binaries": ["a"]}, ChallengeFault.BINARY_HASH_MISMATCH),
        (
            {"model_hashes": {"m": "1"}},
            {"model_hashes": {"m": "2"}},
            ChallengeFault.WEIGHT_HASH_MISMATCH,
        ),
        (
            {"active_model_hash": "1"},
            {"model_hashes": {"m": "2"}},
            ChallengeFault.WEIGHT_HASH_MISMATCH,
        ),
    ],
)
def test_changed_code_or_weights_untrust_at_once_at_every_level(
    changes: dict[str, Any], known: dict[str, Any], code: ChallengeFault
) -> None:
    outcome = answered(report(**changes), posture_required=False, **known)
    assert codes(outcome) == [code]
    assert outcome.untrust


def test_weights_that_the_catalog_does_not_name_are_not_compared() -> None:
    assert answered(report(model_hashes={"m": "1"}), model_hashes={"other": "2"}).passed


@pytest.mark.parametrize(
    ("challenge", "code"),
    [
        (CHALLENGE._replace(nonce="x"), ChallengeFault.NONCE_MISMATCH),
        (CHALLENGE._replace(timestamp="x"), ChallengeFault.NONCE_MISMATCH),
        (CHALLENGE._replace(provider_id="x"), ChallengeFault.WRONG_PROVIDER),
    ],
)
def test_an_answer_to_another_challenge_does_not_pass(
    challenge: Challenge, code: ChallengeFault
) -> None:
    outcome = answered(challenge=challenge)
    assert codes(outcome) == [code]
    assert not outcome.passed


def test_a_late_answer_does_not_pass() -> None:
    assert codes(answered(now=NOW + timedelta(seconds=36))) == [ChallengeFault.STALE]
    assert codes(answered(now=NOW - timedelta(seconds=121))) == [ChallengeFault.STALE]


def test_only_the_key_of_the_registration_counts() -> None:
    outcome = answered(signer=OTHER)
    assert codes(outcome) == [ChallengeFault.SIGNATURE_FAILED]
    assert outcome.report is None
    status = challenge_status(CHALLENGE, report())
    assert codes(verify_challenge(status, b"", expected(), NOW)) == ["empty_signature"]


def test_a_status_without_the_domain_or_in_another_form_does_not_pass() -> None:
    fields = json.loads(challenge_status(CHALLENGE, report()))
    del fields["domain"]
    bare = canonical_status(fields)
    outcome = verify_challenge(bare, SIGNER.sign_raw(bare), expected(), NOW)
    assert codes(outcome) == [ChallengeFault.WRONG_DOMAIN]

    spaced = challenge_status(CHALLENGE, report()).replace(b":", b": ", 1)
    outcome = verify_challenge(spaced, SIGNER.sign_raw(spaced), expected(), NOW)
    assert codes(outcome) == [ChallengeFault.MALFORMED]


def test_a_nonce_has_32_bytes() -> None:
    with pytest.raises(MalformedError):
        new_challenge(bytes(31), rfc3339(NOW), "p")
