"""The public form: all claims of a registration but what identifies its owner, signed anew."""

import hashlib
import json
from typing import Any

import pytest
from darkbloom_edge.device_statement import serial_commitment
from darkbloom_edge.errors import MalformedError, SignatureRejected
from darkbloom_edge.public_form import (
    public_form,
    published,
    read_public_form,
    sign_public_form,
)
from darkbloom_edge.registration import RegistrationBlob, build_registration
from darkbloom_edge.signatures import P256Signer, to_base64

SIGNER = P256Signer(b"\x07" * 32)
SERIAL, SALT = "C02XYZ123456", b"\x05" * 32


def blob(**changes: Any) -> RegistrationBlob:
    claims = {
        "authenticated_root_enabled": True,
        "chip_name": "Apple M4",
        "encryption_public_key": to_base64(b"\x01" * 32),
        "hardware_model": "Mac16,1",
        "os_version": "15.3.0",
        "public_key": to_base64(SIGNER.public),
        "rdma_disabled": True,
        "secure_boot_enabled": True,
        "secure_enclave_available": True,
        "serial_number": SERIAL,
        "serial_salt": to_base64(SALT),
        "sip_enabled": True,
        "timestamp": "2026-01-31T12:00:00Z",
    }
    return RegistrationBlob(**{**claims, **changes})


def test_the_public_form_has_every_claim_and_a_commitment_for_the_serial() -> None:
    full, _ = build_registration(blob(), SIGNER)
    form = public_form(blob())
    want = json.loads(full)
    del want["serialNumber"], want["serialSalt"]
    want["serialCommitment"] = hashlib.sha256(
        b"darkbloom:serial-commitment:v1\0" + SALT + SERIAL.encode()
    ).hexdigest()
    assert json.loads(form) == want
    assert SERIAL.encode() not in form
    assert to_base64(SALT).encode() not in form


def test_what_was_signed_follows_from_the_full_form() -> None:
    full, _ = build_registration(blob(), SIGNER)
    signature = sign_public_form(blob(), SIGNER)
    form = published(full, signature, SIGNER.public)
    assert read_public_form(form, signature).serial_commitment == serial_commitment(SERIAL, SALT)


def test_claims_that_nobody_knows_stay_unpublished() -> None:
    full, _ = build_registration(blob(), SIGNER)
    more = json.dumps({**json.loads(full), "udid": "00008112-AAAA"}).encode()
    form = published(more, sign_public_form(blob(), SIGNER), SIGNER.public)
    assert b"udid" not in form


def test_a_serial_without_a_salt_has_no_public_form() -> None:
    with pytest.raises(MalformedError):
        sign_public_form(blob(serial_salt=None), SIGNER)


def test_a_machine_without_a_serial_has_no_commitment() -> None:
    form = public_form(blob(serial_number=None, serial_salt=None))
    assert b"serialCommitment" not in form


@pytest.mark.parametrize(
    "changed", [{"sip_enabled": False}, {"serial_number": "C02XYZ123457"}, {"chip_name": "M9"}]
)
def test_a_signature_over_other_claims_publishes_nothing(changed: dict[str, Any]) -> None:
    full, _ = build_registration(blob(), SIGNER)
    with pytest.raises(SignatureRejected):
        published(full, sign_public_form(blob(**changed), SIGNER), SIGNER.public)


def test_neither_signature_passes_for_the_other() -> None:
    full, signature = build_registration(blob(), SIGNER)
    with pytest.raises(SignatureRejected):
        published(full, signature, SIGNER.public)
    with pytest.raises(SignatureRejected):
        read_public_form(public_form(blob()), signature)


def test_another_key_has_not_signed_it() -> None:
    signature = sign_public_form(blob(), P256Signer(b"\x08" * 32))
    with pytest.raises(SignatureRejected):
        read_public_form(public_form(blob()), signature)
