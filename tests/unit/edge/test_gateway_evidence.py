"""What a consumer checks of a gateway's statement and of the quote over it."""

import dataclasses
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from darkbloom_edge.gateway_evidence import (
    Check,
    GatewayStatement,
    Outcome,
    ShownEvidence,
    StatedKey,
    carries,
    check_evidence,
    report_data,
    sign_statement,
)
from darkbloom_edge.signatures import Ed25519Signer, to_base64

SIGNER = Ed25519Signer(b"\x05" * 32)
KEY = b"\x09" * 32
NONCE = "ab" * 32
NOW = datetime(2026, 1, 31, 12, 0, 0, tzinfo=UTC)
STATEMENT = GatewayStatement(
    gateway="gateway/0",
    environment="production",
    nonce=NONCE,
    issued_at="2026-01-31T12:00:00Z",
    encryption_keys=(StatedKey(kid="0" * 16, public_key=to_base64(KEY)),),
    countersign_key=to_base64(SIGNER.public),
    software_version="1",
)


def shown(statement: GatewayStatement = STATEMENT, **more: Any) -> ShownEvidence:
    document, signature = sign_statement(statement, SIGNER)
    return ShownEvidence(document=document, signature=signature, key_id=SIGNER.key_id, **more)


def quoted(document: bytes) -> bytes:
    return bytes(0x50) + report_data(document) + bytes(1000)


def checks(evidence: ShownEvidence, **changes: Any) -> dict[str, Check]:
    given: dict[str, Any] = {
        "nonce": NONCE,
        "encryption_key": KEY,
        "keys": {SIGNER.key_id: SIGNER.public},
        "now": NOW + timedelta(seconds=2),
    }
    return {check.name: check for check in check_evidence(evidence, **(given | changes))}


def test_without_hardware_everything_else_can_hold_and_no_quote_is_said_to_be_shown() -> None:
    found = checks(shown())

    assert found.pop("hardware quote").outcome is Outcome.NOT_SHOWN
    assert {check.outcome for check in found.values()} == {Outcome.HOLDS}


def test_a_quote_over_the_statement_is_no_proof_yet_and_says_what_was_not_checked() -> None:
    evidence = shown(quote_kind="sev_guest", quote=quoted(shown().document))

    check = checks(evidence)["hardware quote"]

    assert check.outcome is Outcome.NOT_SHOWN
    assert "not checked" in check.detail


def test_a_quote_over_another_statement_fails() -> None:
    other = shown(msgspec.structs.replace(STATEMENT, nonce="cd" * 32))
    evidence = shown(quote_kind="sev_guest", quote=quoted(other.document))

    assert checks(evidence)["hardware quote"].outcome is Outcome.FAILS


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("nonce", {"nonce": "cd" * 32}),
        ("age", {"now": NOW + timedelta(minutes=6)}),
        ("age", {"now": NOW - timedelta(minutes=3)}),
        ("encryption key", {"encryption_key": b"\x0a" * 32}),
        ("encryption key", {"encryption_key": None}),
        ("statement", {"keys": {}}),
        ("statement", {"keys": {SIGNER.key_id: b"\x0b" * 32}}),
    ],
    ids=["nonce", "old", "future", "other_key", "no_key_page", "unknown_signer", "forged"],
)
def test_what_does_not_fit_fails_by_name(name: str, changes: dict[str, Any]) -> None:
    assert checks(shown(), **changes)[name].outcome is Outcome.FAILS


def test_a_statement_that_names_another_countersign_key_fails() -> None:
    other = msgspec.structs.replace(STATEMENT, countersign_key=to_base64(b"\x0c" * 32))

    assert checks(shown(other))["countersign key"].outcome is Outcome.FAILS


def test_a_changed_statement_fails() -> None:
    evidence = shown()
    forged = dataclasses.replace(evidence, document=evidence.document.replace(b"prod", b"Prod"))

    assert [check.outcome for check in checks(forged).values()] == [Outcome.FAILS]


def test_a_gateway_that_seals_nothing_shows_no_key() -> None:
    bare = msgspec.structs.replace(STATEMENT, encryption_keys=())

    found = checks(shown(bare), encryption_key=None)

    assert found["encryption key"].outcome is Outcome.NOT_SHOWN


def test_each_kind_has_its_own_place_for_our_bytes() -> None:
    data = bytes(range(64))

    assert carries("tdx_guest", bytes(568) + data, data)
    assert not carries("tdx_guest", bytes(80) + data + bytes(600), data)
    assert carries("arm_cca_guest", b"any" + data + b"where", data)
    assert not carries("arm_cca_guest", b"anywhere", b"")
