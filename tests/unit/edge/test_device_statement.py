"""What a device statement must say, and that it shows no serial."""

import hashlib
from typing import Any

import pytest
from darkbloom_edge.challenge import Challenge
from darkbloom_edge.device_statement import (
    DeviceStatement,
    StatementFault,
    build_statement,
    client_data_hash,
    serial_commitment,
    verify_statement,
)
from darkbloom_edge.errors import MalformedError
from darkbloom_edge.signatures import P256Signer, to_base64

SERIAL, SALT = "C02XYZ123456", bytes(range(32))
KEY, K = P256Signer(b"\x01" * 32).public, b"k" * 32
OTHER = P256Signer(b"\x02" * 32).public
CHALLENGE = Challenge("bm9uY2U=", "2026-01-01T00:00:00Z", f"prov_{'0' * 32}")


def statement(**changes: Any) -> bytes:
    fields: dict[str, Any] = {
        "provider_id": CHALLENGE.provider_id,
        "nonce": CHALLENGE.nonce,
        "timestamp": CHALLENGE.timestamp,
        "identity_key": to_base64(KEY),
        "encryption_key": to_base64(K),
        "serial_commitment": serial_commitment(SERIAL, SALT),
        "app_version": "1.0.0",
        "os_version": "27.0",
    }
    return build_statement(DeviceStatement(**{**fields, **changes}))


def verify(document: bytes, **changes: Any) -> StatementFault | None:
    expected: dict[str, Any] = {
        "challenge": CHALLENGE,
        "identity_key": KEY,
        "encryption_key": K,
        "serial": SERIAL,
        "salt": SALT,
    }
    return verify_statement(document, **{**expected, **changes}).fault


def test_a_statement_about_this_challenge_these_keys_and_this_serial_holds() -> None:
    assert verify(statement()) is None


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"provider_id": f"prov_{'1' * 32}"}, StatementFault.WRONG_PROVIDER),
        ({"nonce": "b3RoZXI="}, StatementFault.WRONG_NONCE),
        ({"timestamp": "2026-01-01T00:00:01Z"}, StatementFault.WRONG_NONCE),
        ({"identity_key": to_base64(OTHER)}, StatementFault.WRONG_IDENTITY),
        ({"encryption_key": to_base64(b"x" * 32)}, StatementFault.WRONG_ENCRYPTION_KEY),
        ({"serial_commitment": serial_commitment("OTHER1234", SALT)}, StatementFault.WRONG_SERIAL),
        ({"version": 2}, StatementFault.MALFORMED),
    ],
)
def test_a_statement_about_anything_else_is_refused_by_name(
    changes: dict[str, Any], fault: StatementFault
) -> None:
    assert verify(statement(**changes)) is fault


@pytest.mark.parametrize(
    ("document", "fault"),
    [
        (b"", StatementFault.MALFORMED),
        (b"[]", StatementFault.MALFORMED),
        (statement() + b" ", StatementFault.NOT_CANONICAL),
        (statement().replace(b"{", b'{"extra":1,', 1), StatementFault.NOT_CANONICAL),
        (b'{"a":1,' * 1000, StatementFault.MALFORMED),
    ],
)
def test_other_spellings_are_refused(document: bytes, fault: StatementFault) -> None:
    assert verify(document) is fault


@pytest.mark.parametrize(
    ("serial", "salt"),
    [("", SALT), ("x" * 33, SALT), ("C02 XYZ", SALT), ("Ç02XYZ123456", SALT), (SERIAL, SALT[1:])],
)
def test_a_serial_or_salt_that_is_none_opens_no_commitment(serial: str, salt: bytes) -> None:
    with pytest.raises(MalformedError):
        serial_commitment(serial, salt)
    assert verify(statement(), serial=serial, salt=salt) is StatementFault.WRONG_SERIAL


def test_a_statement_shows_no_serial_and_another_salt_hides_it_differently() -> None:
    assert SERIAL.encode() not in statement()
    assert serial_commitment(SERIAL, SALT) != serial_commitment(SERIAL, SALT[::-1])


def test_the_client_data_hash_is_bound_to_the_kind_of_document() -> None:
    document = statement()
    assert client_data_hash(document) != hashlib.sha256(document).digest()
    assert client_data_hash(document) == client_data_hash(bytes(document))
    assert len(client_data_hash(document)) == 32
