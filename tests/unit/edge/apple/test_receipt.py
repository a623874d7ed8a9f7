"""Receipts: signed by the one signer that Apple marked for them, about this key, and fresh."""

import hashlib
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from asn1crypto import cms
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from darkbloom_edge.apple import (
    AppleFault,
    AppleRejected,
    Environment,
    Receipt,
    ReceiptPolicy,
    ReceiptType,
    apple_roots,
    verify_receipt,
)

from tests.fakes.apple_ca import NOW, Authority
from tests.fakes.apple_service import AppleService, MintedKey, ReceiptRecipe, new_key, stamp

APP = "TEAMID1234.io.darkbloom.provider"
CHALLENGE = hashlib.sha256(b"challenge").digest()


@pytest.fixture(scope="module")
def minted(apple: AppleService) -> MintedKey:
    return apple.attest(APP, client_data_hash=CHALLENGE)


def check(apple: AppleService, key: MintedKey, receipt: bytes, **changes: Any) -> Receipt:
    given = {
        "policy": ReceiptPolicy(app_id=APP),
        "roots": apple.roots,
        "now": NOW,
        "leaf": key.leaf,
        "client_data_hash": CHALLENGE,
    }
    return verify_receipt(receipt, **{**given, **changes})


def refusal(apple: AppleService, key: MintedKey, receipt: bytes, **changes: Any) -> AppleFault:
    with pytest.raises(AppleRejected) as refused:
        check(apple, key, receipt, **changes)
    return refused.value.reason


def fields(apple: AppleService, key: MintedKey, **changes: Any) -> dict[int, bytes]:
    return apple.receipt_fields(APP, key.chain[0], CHALLENGE, **changes)


def with_field(apple: AppleService, key: MintedKey, number: int, value: bytes | None) -> bytes:
    found = fields(apple, key)
    if value is None:
        del found[number]
    else:
        found[number] = value
    return apple.receipt(found)


def test_a_receipt_is_read_field_by_field(apple: AppleService, minted: MintedKey) -> None:
    found = check(apple, minted, minted.receipt)
    assert found.type is ReceiptType.ATTEST
    assert found.app_id == APP
    assert found.environment is Environment.PRODUCTION
    assert found.created == NOW
    assert found.expires == NOW + timedelta(days=90)
    assert found.matches_key is found.client_hash_matches is True
    assert found.risk_metric is None


def test_the_mangled_challenge_of_a_refreshed_receipt_is_forgiven(
    apple: AppleService, minted: MintedKey
) -> None:
    said = fields(apple, minted, kind="RECEIPT", risk_metric=4) | {4: b"\xef\xbf\xbd"}
    found = check(apple, minted, apple.receipt(said))
    assert found.type is ReceiptType.RECEIPT
    assert found.risk_metric == 4
    assert found.client_hash_matches is False
    assert found.not_before == NOW + timedelta(days=1)


@pytest.mark.parametrize(
    "form", [PublicFormat.SubjectPublicKeyInfo, PublicFormat.UncompressedPoint]
)
def test_the_key_alone_may_stand_for_its_certificate(
    apple: AppleService, minted: MintedKey, form: PublicFormat
) -> None:
    encoding = Encoding.DER if form is PublicFormat.SubjectPublicKeyInfo else Encoding.X962
    value = minted.private.public_key().public_bytes(encoding, form)
    assert check(apple, minted, with_field(apple, minted, 3, value)).matches_key


FIELDS: dict[str, tuple[int, bytes | None, AppleFault]] = {
    "another app": (2, b"TEAM.other", AppleFault.RECEIPT_APP_ID),
    "no app": (2, None, AppleFault.RECEIPT_MALFORMED),
    "an app that is no text": (2, b"\xff", AppleFault.RECEIPT_MALFORMED),
    "an empty app": (2, b"", AppleFault.RECEIPT_MALFORMED),
    "another key": (3, b"\x04" + bytes(64), AppleFault.RECEIPT_KEY),
    "no key": (3, None, AppleFault.RECEIPT_MALFORMED),
    "another challenge": (4, bytes(32), AppleFault.RECEIPT_CLIENT_HASH),
    "no challenge": (4, None, AppleFault.RECEIPT_CLIENT_HASH),
    "a token that is huge": (5, b"x" * 513, AppleFault.RECEIPT_MALFORMED),
    "another type": (6, b"OTHER", AppleFault.RECEIPT_TYPE),
    "no type": (6, None, AppleFault.RECEIPT_MALFORMED),
    "development under production": (7, b"sandbox", AppleFault.RECEIPT_ENVIRONMENT),
    "an environment that is none": (7, b"staging", AppleFault.RECEIPT_ENVIRONMENT),
    "no environment": (7, None, AppleFault.RECEIPT_MALFORMED),
    "created in the future": (
        12,
        stamp(NOW + timedelta(seconds=31)),
        AppleFault.RECEIPT_FROM_FUTURE,
    ),
    "created too long ago": (
        12,
        stamp(NOW - timedelta(minutes=5, seconds=1)),
        AppleFault.RECEIPT_STALE,
    ),
    "a time in another zone": (12, b"2026-01-31T12:00:00+00:00", AppleFault.RECEIPT_MALFORMED),
    "a time that is none": (12, b"2026-02-31T12:00:00Z", AppleFault.RECEIPT_MALFORMED),
    "no time": (12, None, AppleFault.RECEIPT_MALFORMED),
    "a risk that is text": (17, b"low", AppleFault.RECEIPT_RISK_METRIC),
    "a negative risk": (17, b"-1", AppleFault.RECEIPT_RISK_METRIC),
    "a huge risk": (17, b"9999999999", AppleFault.RECEIPT_RISK_METRIC),
    "expired": (21, stamp(NOW), AppleFault.RECEIPT_EXPIRED),
    "no expiry": (21, None, AppleFault.RECEIPT_MALFORMED),
}


@pytest.mark.parametrize("name", FIELDS)
def test_a_signed_field_that_says_something_else_is_refused_by_name(
    apple: AppleService, minted: MintedKey, name: str
) -> None:
    number, value, reason = FIELDS[name]
    receipt = with_field(apple, minted, number, value)
    assert refusal(apple, minted, receipt) is reason


def test_times_at_the_edge_and_with_fewer_digits_count(
    apple: AppleService, minted: MintedKey
) -> None:
    for created in (b"2026-01-31T12:00:30Z", b"2026-01-31T11:55:00.0Z", b"2026-01-31T11:59:59.46Z"):
        check(apple, minted, with_field(apple, minted, 12, created))


def test_an_old_receipt_counts_where_only_apples_expiry_does(
    apple: AppleService, minted: MintedKey
) -> None:
    policy = ReceiptPolicy(app_id=APP, max_age=None)
    check(apple, minted, minted.receipt, now=NOW + timedelta(days=89), policy=policy)
    late = NOW + timedelta(days=90)
    reason = refusal(apple, minted, minted.receipt, now=late, policy=policy)
    assert reason is AppleFault.RECEIPT_EXPIRED


def test_the_policy_bounds_type_and_risk(apple: AppleService, minted: MintedKey) -> None:
    only = ReceiptPolicy(app_id=APP, types=frozenset({ReceiptType.RECEIPT}))
    assert refusal(apple, minted, minted.receipt, policy=only) is AppleFault.RECEIPT_TYPE
    bounded = ReceiptPolicy(app_id=APP, max_risk_metric=3)
    reason = refusal(apple, minted, minted.receipt, policy=bounded)
    assert reason is AppleFault.RECEIPT_RISK_METRIC
    for risk, expected in ((3, None), (4, AppleFault.RECEIPT_RISK_METRIC)):
        receipt = apple.receipt(fields(apple, minted, kind="RECEIPT", risk_metric=risk))
        if expected is None:
            assert check(apple, minted, receipt, policy=bounded).risk_metric == risk
        else:
            assert refusal(apple, minted, receipt, policy=bounded) is expected


def test_a_signer_without_apples_mark_is_refused_though_its_root_is_right(
    apple: AppleService, minted: MintedKey
) -> None:
    said = fields(apple, minted)
    recipe = ReceiptRecipe(fields=said)
    unmarked = replace(recipe, signer=replace(recipe.signer, extensions=()))
    reason = refusal(apple, minted, apple.receipt(said, unmarked))
    assert reason is AppleFault.CERTIFICATE_MARKER


def test_a_signer_for_another_purpose_is_refused(apple: AppleService, minted: MintedKey) -> None:
    said = fields(apple, minted)
    recipe = ReceiptRecipe(fields=said)
    other = replace(recipe, signer=replace(recipe.signer, purposes=("1.3.6.1.5.5.7.3.2",)))
    reason = refusal(apple, minted, apple.receipt(said, other))
    assert reason is AppleFault.CERTIFICATE_PURPOSE


def test_no_root_but_the_one_for_receipts_counts(apple: AppleService, minted: MintedKey) -> None:
    assert refusal(apple, minted, minted.receipt, roots=apple_roots()) is AppleFault.CHAIN_ROOT
    for wrong in (apple.app_attest_root, apple.enterprise_root):
        roots = replace(apple.roots, receipts=wrong.certificate)
        reason = refusal(apple, minted, minted.receipt, roots=roots)
        assert reason is AppleFault.CHAIN_ROOT


def test_a_signer_out_of_its_time_is_refused(apple: AppleService, minted: MintedKey) -> None:
    policy = ReceiptPolicy(app_id=APP, max_age=None)
    for days, reason in (
        (301, AppleFault.CERTIFICATE_EXPIRED),
        (-301, AppleFault.CERTIFICATE_NOT_YET_VALID),
    ):
        at = NOW + timedelta(days=days)
        assert refusal(apple, minted, minted.receipt, now=at, policy=policy) is reason


def other_certificate() -> x509.Certificate:
    return Authority.root("nobody").certificate


RECIPES: dict[str, tuple[dict[str, Any], AppleFault]] = {
    "two signers": ({"signers": 2}, AppleFault.RECEIPT_SIGNER),
    "no signer": ({"signers": 0}, AppleFault.RECEIPT_SIGNER),
    "signed attributes": ({"signed_attributes": True}, AppleFault.RECEIPT_SIGNER),
    "another digest": ({"digest": "sha1"}, AppleFault.RECEIPT_MALFORMED),
    "a field of another version": ({"versions": {6: 2}}, AppleFault.RECEIPT_MALFORMED),
}


@pytest.mark.parametrize("name", RECIPES)
def test_a_signed_object_of_another_shape_is_refused_by_name(
    apple: AppleService, minted: MintedKey, name: str
) -> None:
    changes, reason = RECIPES[name]
    said = fields(apple, minted)
    receipt = apple.receipt(said, replace(ReceiptRecipe(fields=said), **changes))
    assert refusal(apple, minted, receipt) is reason


def test_certificates_that_nobody_needs_are_refused(apple: AppleService, minted: MintedKey) -> None:
    said = fields(apple, minted)
    recipe = ReceiptRecipe(fields=said, extra_certificates=(other_certificate(),))
    reason = refusal(apple, minted, apple.receipt(said, recipe))
    assert reason is AppleFault.RECEIPT_CERTIFICATES


def test_more_fields_than_any_receipt_has_are_refused(
    apple: AppleService, minted: MintedKey
) -> None:
    said = fields(apple, minted) | dict.fromkeys(range(100, 133), b"")
    assert refusal(apple, minted, apple.receipt(said)) is AppleFault.RECEIPT_MALFORMED


def test_bytes_that_are_no_receipt_are_refused(apple: AppleService, minted: MintedKey) -> None:
    for receipt in (
        b"",
        b"\x30\x80",
        b"\x30\x80" * 8000,
        b"\x30\x03\x02\x01\x01",
        bytes(16 * 1024 + 1),
        minted.receipt + b"\x00",
        minted.receipt[:-1],
        minted.leaf,
    ):
        assert refusal(apple, minted, receipt) is AppleFault.RECEIPT_MALFORMED


def resigned(receipt: bytes, key: ec.EllipticCurvePrivateKey) -> bytes:
    """Put the signature of another key into a receipt."""
    found = cms.ContentInfo.load(receipt)
    signed = found["content"]
    content = signed["encap_content_info"]["content"].native
    signed["signer_infos"][0]["signature"] = key.sign(content, ec.ECDSA(hashes.SHA256()))
    return bytes(found.dump(force=True))


def test_a_signature_of_another_key_is_refused(apple: AppleService, minted: MintedKey) -> None:
    receipt = resigned(minted.receipt, new_key())
    assert refusal(apple, minted, receipt) is AppleFault.RECEIPT_SIGNATURE
