"""Chains of Managed Device Attestation: whose Mac, bound to which key, in which posture."""

import hashlib
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding
from darkbloom_edge.apple import (
    AppleFault,
    AppleRejected,
    DeviceAttestation,
    MdaPolicy,
    SecureBoot,
    apple_roots,
    key_freshness,
    read_mda_leaf,
    token_freshness,
    verify_mda,
)
from darkbloom_edge.signatures import P256Signer

from tests.fakes.apple_ca import NOW, Profile, name
from tests.fakes.apple_service import AppleService

SIGNER = P256Signer(bytes(range(1, 33)))
FRESH = key_freshness(SIGNER.public)
VALUE = min(FRESH)
POLICY = MdaPolicy(freshness=FRESH)


def check(apple: AppleService, chain: list[bytes], **changes: Any) -> DeviceAttestation:
    return verify_mda(chain, **{"policy": POLICY, "roots": apple.roots, "now": NOW, **changes})


def refusal(apple: AppleService, chain: list[bytes], **changes: Any) -> AppleFault:
    with pytest.raises(AppleRejected) as refused:
        check(apple, chain, **changes)
    return refused.value.reason


@pytest.mark.parametrize("with_root", [True, False])
def test_a_bound_chain_is_accepted_with_and_without_its_root(
    apple: AppleService, with_root: bool
) -> None:
    device = check(apple, apple.device(freshness=VALUE, with_root=with_root))
    assert device.serial == "TMWFWWWP67"
    assert device.os_version == device.sepos_version == device.llb_version == "15.5"
    assert device.sip_enabled is True
    assert device.secure_boot is SecureBoot.FULL
    assert device.kernel_extensions_allowed is False
    assert device.not_after == NOW + timedelta(days=89)


def test_both_texts_of_a_key_bind_and_nothing_else_does(apple: AppleService) -> None:
    for value in FRESH:
        check(apple, apple.device(freshness=value))
    for value in (
        hashlib.sha256(SIGNER.public).digest(),
        hashlib.sha256(SIGNER.public[1:]).digest(),
        bytes(32),
    ):
        chain = apple.device(freshness=value)
        assert refusal(apple, chain) is AppleFault.FRESHNESS_MISMATCH


def test_the_token_of_an_acme_challenge_binds(apple: AppleService) -> None:
    value = hashlib.sha256(b"token").digest()
    policy = MdaPolicy(freshness=token_freshness("token"))
    check(apple, apple.device(freshness=value), policy=policy)
    assert refusal(apple, apple.device(freshness=value)) is AppleFault.FRESHNESS_MISMATCH


@pytest.mark.parametrize(
    "head", [b"\x04\x1e", b"\x02\x1e", b"\x30\x1e", b"\x0c\x1e", b"\x04\x81\x1d", b"\x04\x00"]
)
def test_fresh_bytes_that_happen_to_be_der_stay_raw(apple: AppleService, head: bytes) -> None:
    value = head + bytes(range(32 - len(head)))
    policy = MdaPolicy(freshness=frozenset({value}))
    assert check(apple, apple.device(freshness=value), policy=policy).freshness == value


def test_a_wrapper_is_believed_only_if_it_spans_the_whole_value(apple: AppleService) -> None:
    wrapped = b"\x04\x20" + VALUE
    assert check(apple, apple.device(freshness=wrapped)).freshness == VALUE
    for value in (wrapped + b"\x00", b"\x04\x1f" + VALUE[1:], VALUE[1:], VALUE + b"\x00", b""):
        assert refusal(apple, apple.device(freshness=value)) is AppleFault.DEVICE_FIELD


def test_a_chain_without_freshness_is_bound_to_nothing(apple: AppleService) -> None:
    assert refusal(apple, apple.device(freshness=None)) is AppleFault.FRESHNESS_MISSING


def test_another_serial_number_or_device_is_refused(apple: AppleService) -> None:
    chain = apple.device(freshness=VALUE)
    check(apple, chain, policy=replace(POLICY, serial="TMWFWWWP67"))
    other = replace(POLICY, serial="TMWFWWWP68")
    assert refusal(apple, chain, policy=other) is AppleFault.SERIAL_MISMATCH
    other = replace(POLICY, udid="00006030-000651690A84001D")
    assert refusal(apple, chain, policy=other) is AppleFault.UDID_MISMATCH
    nameless = apple.device(freshness=VALUE, changes={"9.1": None})
    named = replace(POLICY, serial="TMWFWWWP67")
    assert refusal(apple, nameless, policy=named) is AppleFault.SERIAL_MISMATCH


POSTURES: dict[str, tuple[dict[str, Any], AppleFault]] = {
    "13.1 = 1, protection off": ({"sip": 1}, AppleFault.SIP_DISABLED),
    "reduced security": (
        {"secure_boot": "Reduced Security"},
        AppleFault.SECURE_BOOT_NOT_FULL,
    ),
    "permissive security": (
        {"secure_boot": "Permissive Security"},
        AppleFault.SECURE_BOOT_NOT_FULL,
    ),
    "kernel extensions": ({"kernel_extensions": 1}, AppleFault.KERNEL_EXTENSIONS_ALLOWED),
    "no word on protection": ({"sip": None}, AppleFault.POSTURE_MISSING),
    "no word on booting": ({"secure_boot": None}, AppleFault.POSTURE_MISSING),
    "no word on extensions": ({"kernel_extensions": None}, AppleFault.POSTURE_MISSING),
}


@pytest.mark.parametrize("case", POSTURES)
def test_a_bad_posture_is_refused_by_name_and_read_where_the_policy_does_not_ask(
    apple: AppleService, case: str
) -> None:
    changes, reason = POSTURES[case]
    chain = apple.device(freshness=VALUE, **changes)
    assert refusal(apple, chain) is reason
    lenient = replace(
        POLICY, require_sip=False, require_full_security=False, forbid_kernel_extensions=False
    )
    device = check(apple, chain, policy=lenient)
    if "sip" in changes:
        assert device.sip_enabled is (None if changes["sip"] is None else False)


@pytest.mark.parametrize(
    ("arc", "value"),
    [
        ("9.1", b""),
        ("9.1", b"\x0c\x0aTMWFWWWP67"),
        ("9.1", b"tmwfwwwp67"),
        ("9.1", b"\xff\xfe"),
        ("9.1", b"TMWFWWWP67\n"),
        ("9.2", b"short"),
        ("10.1", b"15.5 "),
        ("10.1", b"x" * 65),
        ("13.1", b""),
        ("13.1", b"\x02\x01\x02"),
        ("13.1", b"\x02\x02\x00\x00"),
        ("13.1", b"\x01\x01\x00"),
        ("13.1", b"\x02\x01\x00\x00"),
        ("13.1", b"0"),
        ("13.2", b"full security"),
        ("13.2", b"\x0c\x0dFull Security"),
        ("13.2", b"Full Security\x00"),
        ("13.3", b"\x02\x01\xff"),
    ],
)
def test_a_property_not_encoded_as_measured_is_refused(
    apple: AppleService, arc: str, value: bytes
) -> None:
    chain = apple.device(freshness=VALUE, changes={arc: value})
    assert refusal(apple, chain) is AppleFault.DEVICE_FIELD


def test_no_root_but_the_one_for_enterprises_counts(apple: AppleService) -> None:
    chain = apple.device(freshness=VALUE, with_root=False)
    assert refusal(apple, chain, roots=apple_roots()) is AppleFault.CHAIN_ROOT
    for wrong in (apple.app_attest_root, apple.receipt_root):
        roots = replace(apple.roots, enterprise=wrong.certificate)
        assert refusal(apple, chain, roots=roots) is AppleFault.CHAIN_ROOT


def test_a_chain_swapped_truncated_or_out_of_its_time_is_refused(apple: AppleService) -> None:
    leaf, authority, root = apple.device(freshness=VALUE)
    assert refusal(apple, [authority, leaf, root]) is AppleFault.CHAIN_ORDER
    assert refusal(apple, [leaf]) is AppleFault.CHAIN_LENGTH
    assert refusal(apple, []) is AppleFault.CHAIN_LENGTH
    assert refusal(apple, [leaf, root]) is AppleFault.CHAIN_ROOT
    assert refusal(apple, [leaf, authority, authority, root]) is AppleFault.CHAIN_LENGTH
    late, early = NOW + timedelta(days=90), NOW - timedelta(days=2)
    assert refusal(apple, [leaf, authority], now=late) is AppleFault.CERTIFICATE_EXPIRED
    assert refusal(apple, [leaf, authority], now=early) is AppleFault.CERTIFICATE_NOT_YET_VALID


def test_a_leaf_with_a_purpose_is_as_good_as_one_without(apple: AppleService) -> None:
    profile = Profile(purposes=("1.3.6.1.5.5.7.3.2",), not_after=NOW + timedelta(days=1))
    check(apple, apple.device(freshness=VALUE, profile=profile))


def test_a_leaf_with_another_kind_of_key_is_refused(apple: AppleService) -> None:
    issuer = apple.enterprise
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    leaf = (
        x509.CertificateBuilder()
        .subject_name(name("device"))
        .issuer_name(issuer.certificate.subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(NOW - timedelta(days=1))
        .not_valid_after(NOW + timedelta(days=1))
        .sign(issuer.key, Profile().digest())
    )
    chain = [leaf.public_bytes(Encoding.DER), issuer.certificate.public_bytes(Encoding.DER)]
    assert refusal(apple, chain) is AppleFault.CERTIFICATE_KEY


def test_what_names_a_machine_shows_in_no_text(apple: AppleService) -> None:
    device = read_mda_leaf(apple.device(freshness=VALUE)[0])
    assert "TMWFWWWP67" not in f"{device!r} {device}"
