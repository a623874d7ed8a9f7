"""`verify-blob` and `verify-challenge`: one file in, one judgement out."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from darkbloom_attestation.cli.blob import verify_blob
from darkbloom_attestation.cli.challenge import verify_answer
from darkbloom_edge.attestation import (
    RegistrationBlob,
    StatusReport,
    answer_challenge,
    build_registration,
    new_challenge,
)
from darkbloom_edge.documents import rfc3339
from darkbloom_edge.errors import MalformedError
from darkbloom_edge.signatures import P256Signer, to_base64
from hypothesis import given
from hypothesis import strategies as st

NOW = rfc3339(datetime(2026, 1, 31, 12, 0, tzinfo=UTC))
SIGNER = P256Signer(bytes(range(1, 33)))
K = to_base64(bytes(range(32)))


def blob_file(edit: Any = None, document: bytes | None = None, **changes: Any) -> bytes:
    fields: dict[str, Any] = {
        "authenticated_root_enabled": True,
        "chip_name": "Apple M4/Max",
        "encryption_public_key": K,
        "hardware_model": "Mac16,1",
        "os_version": "15.3.0",
        "public_key": SIGNER.public_text,
        "rdma_disabled": True,
        "secure_boot_enabled": True,
        "secure_enclave_available": True,
        "sip_enabled": True,
        "timestamp": NOW,
    }
    fields.update(edit or {})
    made, _ = build_registration(RegistrationBlob(**fields), SIGNER)
    document = document or made
    file = {"signature": to_base64(SIGNER.sign_raw(document)), "verify_at": NOW, **changes}
    rest = json.dumps(file).encode()
    return b'{"attestation": ' + document + b", " + rest[1:]


def challenge_file(report: dict[str, Any] | None = None, **changes: Any) -> bytes:
    challenge = new_challenge(bytes(32), NOW, "prov_1")
    fields = {"sip_enabled": True, "secure_boot_enabled": True, "rdma_disabled": True}
    status, signature = answer_challenge(
        challenge, StatusReport(**{"public_key": K, **fields, **(report or {})}), SIGNER
    )
    file = {
        **challenge._asdict(),
        "status": status.decode(),
        "status_signature": to_base64(signature),
        "identity_key": SIGNER.public_text,
        "public_key": K,
        "verify_at": NOW,
    }
    return json.dumps({**file, **changes}).encode()


def test_a_good_blob_is_valid_and_says_how_little_that_is() -> None:
    said = verify_blob(blob_file(public_key=K))
    assert (said["result"], said["reason"], said["trust_level"]) == ("valid", None, "self_signed")
    assert said["identity_key"] == SIGNER.public_text
    assert (said["encryption_key"], said["encryption_key_checked"]) == (K, True)
    assert not verify_blob(blob_file())["encryption_key_checked"]


def test_the_bytes_of_the_file_are_what_is_judged() -> None:
    """Swift escapes slashes; to decode and encode again would lose that."""
    document = blob_file().split(b'"attestation": ')[1].split(b', "signature"')[0]
    swift = document.replace(b"M4/Max", b"M4\\/Max")
    assert swift != document
    assert verify_blob(blob_file(document=swift))["result"] == "valid"
    good = json.loads(blob_file())["signature"]
    assert verify_blob(blob_file(document=swift, signature=good))["reason"] == "signature_failed"


@pytest.mark.parametrize(
    ("edit", "changes", "reason", "kind"),
    [
        ({}, {"signature": "%"}, "invalid_signature_base64", "malformed"),
        ({}, {"signature": "AAAA"}, "invalid_der_signature", "malformed"),
        ({}, {"verify_at": "2026-01-31T12:02:01Z"}, "stale", "stale"),
        ({}, {"public_key": to_base64(bytes(32))}, "encryption_key_mismatch", "bad_binding"),
        ({"encryption_public_key": None}, {}, "encryption_key_missing", "bad_binding"),
        ({"public_key": "x"}, {}, "invalid_public_key", "malformed"),
        ({}, {"known_binaries": []}, "binary_unknown", "unknown_code"),
    ],
)
def test_a_bad_blob_is_invalid_with_its_reason(
    edit: dict[str, Any], changes: dict[str, Any], reason: str, kind: str
) -> None:
    said = verify_blob(blob_file(edit, **changes))
    assert (said["result"], said["reason"], said["reason_kind"]) == ("invalid", reason, kind)


def test_posture_is_listed_and_caps_the_level() -> None:
    said = verify_blob(blob_file({"sip_enabled": False, "secure_boot_enabled": False}))
    assert (said["result"], said["trust_level"]) == ("valid", "none")
    assert said["posture"] == ["sip_disabled", "secure_boot_disabled"]


def test_an_answer_is_valid_or_says_what_follows() -> None:
    said = verify_answer(challenge_file())
    assert (said["result"], said["posture_clean"]) == ("valid", True)
    said = verify_answer(challenge_file({"sip_enabled": False}))
    assert (said["result"], said["reason"], said["consequence"]) == (
        "invalid",
        "sip_disabled",
        "untrust",
    )
    said = verify_answer(challenge_file({"sip_enabled": False}, posture_required=False))
    assert (said["result"], said["posture_clean"]) == ("valid", False)
    said = verify_answer(challenge_file(status_signature="%"))
    assert (said["reason"], said["encryption_key"]) == ("signature_failed", None)
    assert verify_answer(challenge_file(nonce="other"))["reason"] == "nonce_mismatch"
    short = to_base64(SIGNER.public[1:])
    assert verify_answer(challenge_file(identity_key=short))["result"] == "valid"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        blob_file()[:-1] + b',"verify_at":"x"}',
        blob_file(verify_at="yesterday"),
        blob_file(public_key="%"),
        challenge_file(identity_key="%"),
        challenge_file(verify_at=""),
        challenge_file() + b" " * 1_048_576,
    ],
)
def test_a_file_that_is_none_is_one_typed_error(data: bytes) -> None:
    with pytest.raises(MalformedError):
        verify_blob(data)
    with pytest.raises(MalformedError):
        verify_answer(data)


@given(st.binary(max_size=80))
def test_no_file_crashes_the_commands(data: bytes) -> None:
    for verify in (verify_blob, verify_answer):
        with pytest.raises(MalformedError):
            verify(data)
