"""Chain rules, on chains of every wrong kind."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from darkbloom_edge.apple import AppleFault, AppleRejected
from darkbloom_edge.apple.certificates import (
    ChainRules,
    extension_value,
    parse_certificate,
    verify_chain,
)

from tests.fakes.apple_ca import AUTHORITY, NOW, Authority, Profile, name

ROOT = Authority.root("root")
MIDDLE = ROOT.authority("middle")
KEY = ec.generate_private_key(ec.SECP256R1())
RULES = ChainRules(leaf_curves=("secp256r1",))
MARK = "1.2.840.113635.100.12.15"
CLIENT = "1.3.6.1.5.5.7.3.2"
DER = Encoding.DER


def leaf(issuer: Authority = MIDDLE, **changes: Any) -> x509.Certificate:
    return issuer.issue("leaf", KEY.public_key(), replace(Profile(), **changes))


def check(chain: Sequence[x509.Certificate], **changes: Any) -> x509.Certificate:
    given = {"root": ROOT.certificate, "now": NOW, "rules": RULES, **changes}
    return verify_chain([parse_certificate(item.public_bytes(DER)) for item in chain], **given)


def refusal(chain: Sequence[x509.Certificate], **changes: Any) -> AppleFault:
    with pytest.raises(AppleRejected) as refused:
        check(chain, **changes)
    return refused.value.reason


def test_a_right_chain_gives_its_leaf() -> None:
    right = leaf()
    assert check([right, MIDDLE.certificate]) == right
    assert check([right, MIDDLE.certificate, ROOT.certificate]) == right


def test_a_longer_path_is_accepted_where_every_authority_allows_it() -> None:
    upper = ROOT.authority("upper", replace(AUTHORITY, path_length=1))
    lower = upper.authority("lower")
    check([leaf(lower), lower.certificate, upper.certificate])
    tight = ROOT.authority("tight", replace(AUTHORITY, path_length=0))
    below = tight.authority("below")
    chain = [leaf(below), below.certificate, tight.certificate]
    assert refusal(chain) is AppleFault.CHAIN_PATH_LENGTH


def test_only_authorities_issue() -> None:
    for profile, reason in (
        (replace(AUTHORITY, ca=False), AppleFault.CERTIFICATE_NOT_CA),
        (replace(AUTHORITY, constraints=False), AppleFault.CERTIFICATE_NOT_CA),
        (replace(AUTHORITY, usage=False), AppleFault.CERTIFICATE_NOT_CA),
        (
            replace(AUTHORITY, key_cert_sign=False, digital_signature=True),
            AppleFault.CERTIFICATE_KEY_USAGE,
        ),
    ):
        wrong = ROOT.authority("wrong", profile)
        assert refusal([leaf(wrong), wrong.certificate]) is reason


def test_a_leaf_that_could_issue_is_refused() -> None:
    issuing = leaf(ca=True, path_length=0, key_cert_sign=True)
    assert refusal([issuing, MIDDLE.certificate]) in (
        AppleFault.CERTIFICATE_IS_CA,
        AppleFault.CERTIFICATE_KEY_USAGE,
    )
    assert refusal([leaf(ca=True), MIDDLE.certificate]) is AppleFault.CERTIFICATE_IS_CA
    for changes in ({"key_cert_sign": True}, {"digital_signature": False}, {"usage": False}):
        reason = refusal([leaf(**changes), MIDDLE.certificate])
        assert reason is AppleFault.CERTIFICATE_KEY_USAGE


def test_a_leaf_that_signs_another_leaf_is_no_authority() -> None:
    first = leaf()
    forger = Authority(KEY, first)
    assert refusal([leaf(forger), first, MIDDLE.certificate]) is AppleFault.CERTIFICATE_NOT_CA


def test_purposes_and_marks_are_held_to() -> None:
    rules = replace(RULES, purposes=frozenset((x509.ObjectIdentifier(CLIENT),)))
    check([leaf(), MIDDLE.certificate], rules=rules)
    check([leaf(purposes=(CLIENT,)), MIDDLE.certificate], rules=rules)
    other = leaf(purposes=("1.3.6.1.5.5.7.3.3",))
    assert refusal([other, MIDDLE.certificate], rules=rules) is AppleFault.CERTIFICATE_PURPOSE
    check([other, MIDDLE.certificate])

    marked = replace(RULES, marker=x509.ObjectIdentifier(MARK))
    check([leaf(extensions=((MARK, b"\x05\x00", False),)), MIDDLE.certificate], rules=marked)
    assert refusal([leaf(), MIDDLE.certificate], rules=marked) is AppleFault.CERTIFICATE_MARKER


def test_critical_extensions_must_be_understood() -> None:
    strange = leaf(extensions=(("1.2.3.4", b"\x05\x00", True),))
    assert refusal([strange, MIDDLE.certificate]) is AppleFault.CERTIFICATE_EXTENSION
    check([leaf(extensions=(("1.2.3.4", b"\x05\x00", False),)), MIDDLE.certificate])


def test_name_constraints_are_refused_rather_than_ignored() -> None:
    constraints = x509.NameConstraints([x509.DNSName("apple.com")], None).public_bytes()
    limited = leaf(extensions=(("2.5.29.30", constraints, False),))
    assert refusal([limited, MIDDLE.certificate]) is AppleFault.CERTIFICATE_EXTENSION


def test_keys_on_other_curves_and_of_other_kinds_are_refused() -> None:
    curve = ec.generate_private_key(ec.SECP384R1())
    other = MIDDLE.issue("leaf", curve.public_key())
    assert refusal([other, MIDDLE.certificate]) is AppleFault.CERTIFICATE_KEY


def test_signatures_other_than_ecdsa_over_sha_2_are_refused() -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    forged = (
        x509.CertificateBuilder()
        .subject_name(name("leaf"))
        .issuer_name(MIDDLE.certificate.subject)
        .public_key(KEY.public_key())
        .serial_number(1)
        .not_valid_before(NOW)
        .not_valid_after(NOW + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    assert refusal([forged, MIDDLE.certificate]) is AppleFault.CERTIFICATE_ALGORITHM
    sha3 = leaf(digest=hashes.SHA3_256)
    assert refusal([sha3, MIDDLE.certificate]) is AppleFault.CERTIFICATE_ALGORITHM


def test_every_certificate_of_the_path_has_its_time() -> None:
    short = ROOT.authority(
        "short", replace(AUTHORITY, not_before=NOW - timedelta(days=1), not_after=NOW)
    )
    chain = [leaf(short), short.certificate]
    check(chain)
    after = NOW + timedelta(seconds=1)
    assert refusal(chain, now=after) is AppleFault.CERTIFICATE_EXPIRED
    young = Authority.root("root", replace(AUTHORITY, path_length=None, not_before=after))
    middle = young.authority("middle")
    reason = refusal([leaf(middle), middle.certificate], root=young.certificate)
    assert reason is AppleFault.CERTIFICATE_NOT_YET_VALID


def test_lengths_and_repeats_are_refused() -> None:
    one = leaf()
    assert refusal([one]) is AppleFault.CHAIN_LENGTH
    assert refusal([ROOT.certificate, ROOT.certificate]) is AppleFault.CHAIN_LENGTH
    assert refusal([one, MIDDLE.certificate, MIDDLE.certificate]) is AppleFault.CHAIN_LENGTH
    assert refusal([one] * 5) is AppleFault.CHAIN_LENGTH


def test_a_root_that_is_sent_instead_of_the_pinned_one_does_not_count() -> None:
    theirs = Authority.root("root")
    middle = theirs.authority("middle")
    chain = [leaf(middle), middle.certificate, theirs.certificate]
    # The sent root has the pinned one's name, so it is taken for an authority below it.
    assert refusal(chain) in (AppleFault.CHAIN_ROOT, AppleFault.CHAIN_SIGNATURE)


def test_links_are_names_and_signatures() -> None:
    namesake = ROOT.authority("middle")
    assert refusal([leaf(), namesake.certificate]) is AppleFault.CHAIN_SIGNATURE
    other = ROOT.authority("other")
    assert refusal([leaf(), other.certificate]) is AppleFault.CHAIN_ORDER
    assert refusal([MIDDLE.certificate, leaf()]) is AppleFault.CHAIN_ORDER


def test_certificates_are_read_in_one_spelling() -> None:
    der = leaf().public_bytes(DER)
    for wrong in (b"", der + b"\x00", der[:-1], b"\x30\x80" + der[4:] + bytes(2), bytes(9000)):
        with pytest.raises(AppleRejected) as refused:
            parse_certificate(wrong)
        assert refused.value.reason is AppleFault.CERTIFICATE_MALFORMED


def test_what_the_reader_only_warns_of_is_refused() -> None:
    # An authority's key identifier whose only member is a negative serial number.
    extension = ("2.5.29.35", b"\x30\x03\x82\x01\xff", False)
    der = leaf(extensions=(extension,)).public_bytes(DER)
    with pytest.raises(AppleRejected) as refused:
        parse_certificate(der)
    assert refused.value.reason is AppleFault.CERTIFICATE_MALFORMED


def test_an_extension_that_is_not_there_is_none() -> None:
    found = leaf(extensions=((MARK, b"\x05\x00", False),))
    assert extension_value(found, x509.ObjectIdentifier(MARK)) == b"\x05\x00"
    assert extension_value(found, x509.ObjectIdentifier("1.2.3.4")) is None


def test_the_second_checker_refuses_what_the_named_rules_let_pass() -> None:
    constraints = b"\x30\x06\x01\x01\xff\x02\x01\x00"
    careless = ROOT.authority(
        "careless",
        replace(AUTHORITY, constraints=False, extensions=(("2.5.29.19", constraints, False),)),
    )
    assert refusal([leaf(careless), careless.certificate]) is AppleFault.CHAIN_REJECTED
