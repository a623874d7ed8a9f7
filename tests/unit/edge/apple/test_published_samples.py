"""Objects that Apple's services made, at the times at which they were valid."""

from dataclasses import replace
from datetime import datetime
from typing import Any

import cbor2
import pytest
from cryptography import x509
from darkbloom_edge.apple import (
    AppAttestPolicy,
    AppleFault,
    AppleRejected,
    AttestedKey,
    Environment,
    ReceiptPolicy,
    ReceiptType,
    SecureBoot,
    apple_roots,
    key_freshness,
    read_mda_leaf,
    verify_assertion,
    verify_attestation,
    verify_mda,
    verify_receipt,
)
from darkbloom_edge.apple.mda import MdaPolicy

from tests.fakes.apple_samples import APP_ATTEST, raw, sample, sample_path


def attested(found: dict[str, Any], **changes: Any) -> AttestedKey:
    given = {
        "key_id": found["key_id"],
        "client_data_hash": raw(found["client_data_hash"]),
        "policy": AppAttestPolicy(
            app_id_hash=raw(found["app_id_hash"]),
            environment=Environment(found["environment"]),
            require_mac_access_control=False,
        ),
        "roots": apple_roots(),
        "now": datetime.fromisoformat(found["verify_at"]),
    }
    return verify_attestation(raw(found["attestation"]), **{**given, **changes})


@pytest.mark.parametrize("name", APP_ATTEST)
def test_a_published_attestation_is_accepted_and_says_what_is_expected(name: str) -> None:
    found = sample("app_attest", name)
    key, expected = attested(found), found["expected"]
    assert key.public_key == raw(expected["public_key"])
    assert key.key_id == raw(found["key_id"])
    assert key.app_id_hash == raw(found["app_id_hash"])
    assert key.environment.value == expected["environment"]
    assert key.counter == expected["counter"]
    assert key.flags == expected["flags"]
    assert key.chain_length == expected["x5c_count"]
    assert key.mac_access_control is expected["access_control_extension"]
    assert key.launch.bundle_version is None


@pytest.mark.parametrize("name", APP_ATTEST)
def test_a_published_assertion_is_accepted_once(name: str) -> None:
    found = sample("app_attest", name)
    said = found["assertion"]
    if said is None:
        pytest.skip(f"{name} has no assertion")
    key = attested(found)
    given = {
        "client_data_hash": raw(said["client_data_hash"]),
        "public_key": key.public_key,
        "app_id_hash": key.app_id_hash,
    }
    assertion = verify_assertion(raw(said["assertion"]), previous_counter=0, **given)
    assert assertion.counter == said["counter"]
    assert assertion.flags == said["flags"]
    with pytest.raises(AppleRejected) as refused:
        verify_assertion(raw(said["assertion"]), previous_counter=assertion.counter, **given)
    assert refused.value.reason is AppleFault.COUNTER_REPLAY


@pytest.mark.parametrize("name", APP_ATTEST)
def test_published_receipts_are_accepted_when_they_were_made(name: str) -> None:
    found = sample("app_attest", name)
    key = attested(found)
    for said in found["receipts"]:
        receipt = verify_receipt(
            key.receipt if said["receipt"] is None else raw(said["receipt"]),
            policy=ReceiptPolicy(
                app_id=said["app_id"], environment=Environment(found["environment"])
            ),
            roots=apple_roots(),
            now=datetime.fromisoformat(said["created"]),
            leaf=key.certificate,
            client_data_hash=raw(found["client_data_hash"]),
        )
        assert receipt.type is ReceiptType(said["type"])
        assert receipt.risk_metric == said["risk_metric"]
        assert receipt.token == said["token"]
        assert receipt.client_hash == raw(said["client_hash"])
        assert receipt.client_hash_matches is said["client_hash_matches"]
        assert receipt.matches_key is said["certificate_matches_leaf"]
        assert receipt.expires == datetime.fromisoformat(said["expires"])


@pytest.mark.parametrize("name", APP_ATTEST)
def test_a_published_attestation_of_another_time_is_refused(name: str) -> None:
    found = sample("app_attest", name)
    for field, reason in (
        ("not_before", AppleFault.CERTIFICATE_NOT_YET_VALID),
        ("not_after", AppleFault.CERTIFICATE_EXPIRED),
    ):
        edge = datetime.fromisoformat(found["leaf"][field])
        wrong = edge.replace(year=edge.year + (-1 if field == "not_before" else 1))
        attested(found, now=edge)
        with pytest.raises(AppleRejected) as refused:
            attested(found, now=wrong)
        assert refused.value.reason is reason


def test_the_published_leaf_of_a_mac_is_read_as_measured() -> None:
    found = sample("mda", "nanoca-mac-15.5-leaf")
    leaf = read_mda_leaf(raw(found["certificate"]))
    said = {item["name"]: item["value"] for item in found["extensions"]}
    assert (leaf.serial, leaf.udid) == (said["serial"], said["udid"])
    assert leaf.software_update_device_id == said["software_update_device_id"]
    assert leaf.os_version == leaf.sepos_version == leaf.llb_version == "15.5"
    assert leaf.sip_enabled is True
    assert leaf.secure_boot is SecureBoot.FULL
    assert leaf.kernel_extensions_allowed is False
    assert leaf.freshness is not None
    assert leaf.freshness.hex().startswith("9ff219c2")
    assert said["serial"] not in repr(leaf)


def test_the_leaf_of_a_mac_alone_is_no_evidence() -> None:
    found = sample("mda", "nanoca-mac-15.5-leaf")
    with pytest.raises(AppleRejected) as refused:
        verify_mda(
            [raw(found["certificate"])],
            policy=MdaPolicy(freshness=frozenset()),
            roots=apple_roots(),
            now=datetime.fromisoformat(found["leaf"]["not_before"]),
        )
    assert refused.value.reason is AppleFault.CHAIN_LENGTH


def test_a_webauthn_object_is_refused_by_its_format() -> None:
    found = sample("webauthn", "py-webauthn-apple-passkey")
    with pytest.raises(AppleRejected) as refused:
        verify_attestation(
            raw(found["attestation"]),
            key_id="",
            client_data_hash=b"",
            policy=AppAttestPolicy.for_app("x"),
            roots=apple_roots(),
            now=datetime.fromisoformat(found["verify_at"]),
        )
    assert refused.value.reason is AppleFault.WRONG_FORMAT


def test_a_webauthn_object_in_the_clothes_of_app_attest_is_refused_by_its_root() -> None:
    found = sample("webauthn", "py-webauthn-apple-passkey")
    whole = cbor2.loads(raw(found["attestation"]))
    whole["fmt"] = "apple-appattest"
    whole["attStmt"] = {"x5c": whole["attStmt"]["x5c"], "receipt": b""}
    with pytest.raises(AppleRejected) as refused:
        verify_attestation(
            cbor2.dumps(whole),
            key_id="",
            client_data_hash=b"",
            policy=AppAttestPolicy.for_app("x"),
            roots=apple_roots(),
            now=datetime.fromisoformat(found["verify_at"]),
        )
    assert refused.value.reason is AppleFault.CHAIN_ROOT


@pytest.mark.parametrize("root", ["enterprise", "receipts", "webauthn"])
def test_a_published_attestation_is_refused_under_each_other_root_of_apple(root: str) -> None:
    found = sample("app_attest", "apple-guide-production")
    if root == "webauthn":
        folder = sample_path("app_attest", "apple-guide-production").parents[1] / "roots"
        pem = (folder / "Apple_WebAuthn_Root_CA.pem").read_bytes()
        wrong = x509.load_pem_x509_certificate(pem)
    else:
        wrong = getattr(apple_roots(), root)
    with pytest.raises(AppleRejected) as refused:
        attested(found, roots=replace(apple_roots(), app_attest=wrong))
    assert refused.value.reason is AppleFault.CHAIN_ROOT


def test_freshness_binds_both_texts_of_a_key_and_is_what_apple_signed() -> None:
    short = (
        "qKxKds4zZk81flmOxcOmQVYSL0xkeg88tLBfXd7ghhJ/QYjW5ZKBAzASJ0TPwseWv38jW61NESGDtGsJqdzJ9Q=="
    )
    signed = bytes.fromhex("984a169f28cd03dd50df4772724174bf3573486b20384918fe44eca467d86a98")
    assert signed in key_freshness(short)
    assert key_freshness(short) == key_freshness(b"\x04" + raw(short))
    assert len(key_freshness(short)) == 2
