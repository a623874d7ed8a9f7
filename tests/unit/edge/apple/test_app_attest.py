"""Attestation objects: what is wrong is named, whatever it is."""

import base64
import hashlib
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import cbor2
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from darkbloom_edge.apple import (
    AppAttestPolicy,
    AppleFault,
    AppleRejected,
    AttestedKey,
    Environment,
    apple_roots,
    verify_attestation,
)
from darkbloom_edge.apple.extensions import ACCESS_CONTROL, ACCESS_CONTROL_OID

from tests.fakes.apple_ca import NOW, Authority, Profile, der
from tests.fakes.apple_service import (
    AppleService,
    AuthenticatorRecipe,
    MintedKey,
    attestation_object,
    launch_facts,
    new_key,
    point,
)

APP = "TEAMID1234.io.darkbloom.provider"
CHALLENGE = hashlib.sha256(b"challenge").digest()
POLICY = AppAttestPolicy.for_app(APP)


def check(apple: AppleService, minted: MintedKey, **changes: Any) -> AttestedKey:
    given = {
        "key_id": minted.key_id,
        "client_data_hash": CHALLENGE,
        "policy": POLICY,
        "roots": apple.roots,
        "now": NOW,
    }
    attestation = changes.pop("attestation", minted.attestation)
    return verify_attestation(attestation, **{**given, **changes})


def refusal(apple: AppleService, minted: MintedKey, **changes: Any) -> AppleFault:
    with pytest.raises(AppleRejected) as refused:
        check(apple, minted, **changes)
    return refused.value.reason


def mint(apple: AppleService, **changes: Any) -> MintedKey:
    return apple.attest(APP, client_data_hash=CHALLENGE, **changes)


def edited(minted: MintedKey, change: Callable[[dict[str, Any]], object]) -> bytes:
    found = cbor2.loads(minted.attestation)
    change(found)
    return cbor2.dumps(found)


def recipe(**changes: Any) -> AuthenticatorRecipe:
    return AuthenticatorRecipe(app_id=APP, **changes)


def test_a_mac_of_today_is_accepted_with_what_runs_on_it(apple: AppleService) -> None:
    minted = mint(apple, launch=launch_facts(version="42", code_directory=bytes(range(32))))
    key = check(apple, minted)
    assert key.public_key == minted.public_key
    assert key.key_id == hashlib.sha256(minted.public_key).digest()
    assert key.mac_access_control
    assert key.launch.bundle_version == "42"
    assert key.launch.validation_category == 6
    assert key.launch.code_directory_hash == bytes(range(32))
    assert key.launch.measured
    assert key.receipt == minted.receipt


def test_a_phone_is_accepted_only_where_the_policy_asks_for_no_mac(apple: AppleService) -> None:
    phone = mint(apple, mac=False)
    assert refusal(apple, phone) is AppleFault.MAC_ACCESS_CONTROL
    lenient = replace(POLICY, require_mac_access_control=False, launch_categories=None)
    assert check(apple, phone, policy=lenient).mac_access_control is False


@pytest.mark.parametrize("kind", ["bare", "plain", "tagged"])
def test_the_access_policy_is_known_in_each_of_its_wrappers(apple: AppleService, kind: str) -> None:
    size = len(ACCESS_CONTROL)
    value = {
        "bare": ACCESS_CONTROL,
        "plain": bytes([0x30, size + 2, 4, size]) + ACCESS_CONTROL,
        "tagged": bytes([0x30, size + 4, 0xA3, size + 2, 4, size]) + ACCESS_CONTROL,
    }[kind]
    profile = Profile(extensions=((ACCESS_CONTROL_OID.dotted_string, value, False),))
    minted = mint(apple, mac=False, launch=launch_facts(), profile=profile)
    assert check(apple, minted).mac_access_control


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(b"", id="empty"),
        pytest.param(ACCESS_CONTROL[:-1] + b"\x00", id="weaker policy"),
        pytest.param(ACCESS_CONTROL + b"\x00", id="trailing byte"),
        pytest.param(b"\x04\x42" + ACCESS_CONTROL, id="another wrapper"),
        pytest.param(b"\x30\x44\x04\x42" + ACCESS_CONTROL + b"\x00", id="bytes after the wrapper"),
    ],
)
def test_another_access_policy_is_refused_under_every_policy(
    apple: AppleService, value: bytes
) -> None:
    profile = Profile(extensions=((ACCESS_CONTROL_OID.dotted_string, value, False),))
    minted = mint(apple, mac=False, profile=profile)
    for required in (True, False):
        policy = replace(POLICY, require_mac_access_control=required)
        assert refusal(apple, minted, policy=policy) is AppleFault.MAC_ACCESS_CONTROL


OBJECTS: dict[str, tuple[Callable[[dict[str, Any]], object], AppleFault]] = {
    "webauthn format": (lambda o: o.update(fmt="apple"), AppleFault.WRONG_FORMAT),
    "no format": (lambda o: o.pop("fmt"), AppleFault.MALFORMED_ATTESTATION),
    "format that is no text": (lambda o: o.update(fmt=1), AppleFault.MALFORMED_ATTESTATION),
    "no statement": (lambda o: o.pop("attStmt"), AppleFault.MALFORMED_ATTESTATION),
    "no data": (lambda o: o.pop("authData"), AppleFault.MALFORMED_ATTESTATION),
    "data that are text": (lambda o: o.update(authData="x"), AppleFault.MALFORMED_ATTESTATION),
    "a member too many": (lambda o: o.update(more=1), AppleFault.MALFORMED_ATTESTATION),
    "no receipt": (lambda o: o["attStmt"].pop("receipt"), AppleFault.MALFORMED_ATTESTATION),
    "a statement's member too many": (
        lambda o: o["attStmt"].update(alg=-7),
        AppleFault.MALFORMED_ATTESTATION,
    ),
    "certificates that are no list": (
        lambda o: o["attStmt"].update(x5c=b""),
        AppleFault.MALFORMED_ATTESTATION,
    ),
    "certificates that are text": (
        lambda o: o["attStmt"].update(x5c=["a", "b"]),
        AppleFault.MALFORMED_ATTESTATION,
    ),
    "truncated chain": (lambda o: o["attStmt"]["x5c"].pop(), AppleFault.CHAIN_LENGTH),
    "no certificates": (lambda o: o["attStmt"]["x5c"].clear(), AppleFault.CHAIN_LENGTH),
    "five certificates": (
        lambda o: o["attStmt"]["x5c"].extend(o["attStmt"]["x5c"][1:] * 3),
        AppleFault.CHAIN_LENGTH,
    ),
    "an intermediate twice": (
        lambda o: o["attStmt"]["x5c"].append(o["attStmt"]["x5c"][1]),
        AppleFault.CHAIN_LENGTH,
    ),
    "leaf and intermediate swapped": (
        lambda o: o["attStmt"]["x5c"].reverse(),
        AppleFault.CHAIN_ORDER,
    ),
    "certificate that is none": (
        lambda o: o["attStmt"]["x5c"].__setitem__(0, b"\x30\x00"),
        AppleFault.CERTIFICATE_MALFORMED,
    ),
    "certificate with a byte after it": (
        lambda o: o["attStmt"]["x5c"].__setitem__(0, o["attStmt"]["x5c"][0] + b"\x00"),
        AppleFault.CERTIFICATE_MALFORMED,
    ),
    "certificate that is huge": (
        lambda o: o["attStmt"]["x5c"].__setitem__(0, bytes(8193)),
        AppleFault.CERTIFICATE_MALFORMED,
    ),
    "flipped byte of the app id": (
        lambda o: o.update(authData=b"\x00" + o["authData"][1:]),
        AppleFault.NONCE,
    ),
    "byte after the data": (lambda o: o.update(authData=o["authData"] + b"\x00"), AppleFault.NONCE),
}


@pytest.mark.parametrize("name", OBJECTS)
def test_an_object_of_another_shape_is_refused_by_name(apple: AppleService, name: str) -> None:
    change, reason = OBJECTS[name]
    minted = mint(apple)
    assert minted.authenticator_data[0] != 0, "the app id's hash is fixed, the flip is one"
    assert refusal(apple, minted, attestation=edited(minted, change)) is reason


def test_another_order_of_members_says_the_same(apple: AppleService) -> None:
    minted = mint(apple)
    found = cbor2.loads(minted.attestation)
    turned = cbor2.dumps(dict(reversed(found.items())))
    assert turned != minted.attestation
    assert check(apple, minted, attestation=turned) == check(apple, minted)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda raw: raw + b"\x00", "trailing byte"),
        (lambda raw: raw[:-1], "cut short"),
        (lambda raw: b"", "nothing"),
        (lambda raw: b"\xa4" + raw[1:] + b"\x63fmt\x60", "duplicate key"),
        (lambda raw: b"\xbf" + raw[1:] + b"\xff", "indefinite length"),
        (lambda raw: b"\xd9\xd9\xf7" + raw, "tag"),
        (lambda raw: b"\xb8\x03" + raw[1:], "longer spelling"),
        (lambda raw: b"\x81" * 9 + raw, "nesting"),
        (lambda raw: raw + bytes(32 * 1024), "size"),
        (lambda raw: b"\xf6", "null"),
        (lambda raw: b"\xfb" + bytes(8), "float"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_cbor_that_is_not_strict_is_refused(
    apple: AppleService, change: Callable[[bytes], bytes], what: str
) -> None:
    minted = mint(apple)
    reason = refusal(apple, minted, attestation=change(minted.attestation))
    assert reason is AppleFault.MALFORMED_ATTESTATION


def other_point() -> bytes:
    return point(new_key())


RECIPES: dict[str, tuple[AuthenticatorRecipe, AppleFault]] = {
    "another app": (AuthenticatorRecipe(app_id="TEAM.other"), AppleFault.APP_IDENTITY),
    "development under production": (
        recipe(environment=Environment.DEVELOPMENT),
        AppleFault.ENVIRONMENT,
    ),
    "an environment that is none": (recipe(aaguid=bytes(16)), AppleFault.ENVIRONMENT),
    "no attested flag": (recipe(flags=0), AppleFault.AUTHENTICATOR_FLAGS),
    "counter above zero": (recipe(counter=1), AppleFault.CREDENTIAL_COUNTER),
    "credential of another key": (recipe(credential_id=bytes(32)), AppleFault.CREDENTIAL_ID),
    "short credential": (recipe(credential_id=bytes(31)), AppleFault.CREDENTIAL_ID),
    "long credential": (recipe(credential_id=bytes(33)), AppleFault.CREDENTIAL_ID),
    "empty credential": (recipe(credential_id=b""), AppleFault.CREDENTIAL_ID),
    "cose key of another": (
        recipe(cose={1: 2, 3: -7, -1: 1, -2: bytes(32), -3: bytes(32)}),
        AppleFault.CREDENTIAL_KEY,
    ),
    "cose key with a true for a one": (
        recipe(cose={1: 2, 3: -7, -1: True, -2: bytes(32), -3: bytes(32)}),
        AppleFault.CREDENTIAL_KEY,
    ),
    "cose key of another algorithm": (
        recipe(cose={1: 2, 3: -35, -1: 1, -2: bytes(32), -3: bytes(32)}),
        AppleFault.CREDENTIAL_KEY,
    ),
    "cose key on another curve": (
        recipe(cose={1: 2, 3: -7, -1: 2, -2: bytes(32), -3: bytes(32)}),
        AppleFault.CREDENTIAL_KEY,
    ),
    "cose key with short coordinates": (
        recipe(cose={1: 2, 3: -7, -1: 1, -2: bytes(31), -3: bytes(32)}),
        AppleFault.CREDENTIAL_KEY,
    ),
    "cose key without a coordinate": (
        recipe(cose={1: 2, 3: -7, -1: 1, -2: bytes(32)}),
        AppleFault.CREDENTIAL_KEY,
    ),
    "cose key with a member too many": (
        recipe(cose={1: 2, 3: -7, -1: 1, -2: bytes(32), -3: bytes(32), 2: b"id"}),
        AppleFault.CREDENTIAL_KEY,
    ),
    "extensions flag without extensions": (recipe(flags=0xC0), AppleFault.EXTENSIONS),
    "extensions that are no map": (recipe(flags=0xC0, tail=b"\x80"), AppleFault.EXTENSIONS),
    "extensions with numbers for names": (
        recipe(flags=0xC0, tail=b"\xa1\x01\x02"),
        AppleFault.EXTENSIONS,
    ),
    "bytes after the extensions": (
        recipe(extensions=launch_facts(), tail=b"\x00"),
        AppleFault.EXTENSIONS,
    ),
    "trailing bytes without a flag": (
        recipe(tail=b"\x00"),
        AppleFault.AUTHENTICATOR_TRAILING_DATA,
    ),
    "half of the measured set without the flag": (
        recipe(flags=0x40, extensions=launch_facts(code_directory=None)),
        AppleFault.AUTHENTICATOR_TRAILING_DATA,
    ),
    "version too long": (
        recipe(extensions=launch_facts(version="x" * 129)),
        AppleFault.BUNDLE_VERSION,
    ),
    "version that is a number": (
        recipe(extensions={"apple_bundle_version_01": 1}),
        AppleFault.BUNDLE_VERSION,
    ),
    "category in three bytes": (
        recipe(extensions={"apple_validation_category_01": bytes(3)}),
        AppleFault.VALIDATION_CATEGORY,
    ),
    "negative category": (
        recipe(extensions={"apple_validation_category_01": -1}),
        AppleFault.VALIDATION_CATEGORY,
    ),
    "category that is true": (
        recipe(extensions={"apple_validation_category_01": True}),
        AppleFault.VALIDATION_CATEGORY,
    ),
    "code hash without a type": (
        recipe(extensions={"apple_cd_hash_hash_01": bytes(32)}),
        AppleFault.CODE_DIRECTORY,
    ),
    "code type without a hash": (
        recipe(extensions={"apple_cd_hash_type_01": b"\x02"}),
        AppleFault.CODE_DIRECTORY,
    ),
    "code hash of an impossible size": (
        recipe(extensions=launch_facts(code_directory=bytes(31))),
        AppleFault.CODE_DIRECTORY,
    ),
}


@pytest.mark.parametrize("name", RECIPES)
def test_signed_data_that_say_something_else_are_refused_by_name(
    apple: AppleService, name: str
) -> None:
    changed, reason = RECIPES[name]
    assert refusal(apple, mint(apple, recipe=changed)) is reason


@pytest.mark.parametrize("size", [36, 37, 54, 86])
def test_data_that_end_early_are_refused(apple: AppleService, size: int) -> None:
    minted = mint(apple)
    short = minted.authenticator_data[:size]
    nonce = hashlib.sha256(short + CHALLENGE).digest()
    resigned = mint(apple, key=minted.private, nonce=nonce)
    attestation = attestation_object(der(resigned.chain), resigned.receipt, short)
    reason = refusal(apple, resigned, attestation=attestation)
    assert reason in (AppleFault.AUTHENTICATOR_DATA, AppleFault.CREDENTIAL_ID)


@pytest.mark.parametrize("flags", [0x40, 0xC0])
@pytest.mark.parametrize("size", [20, 32])
def test_the_whole_measured_set_needs_no_flag(apple: AppleService, flags: int, size: int) -> None:
    facts = launch_facts(code_directory=bytes(size))
    key = check(apple, mint(apple, recipe=recipe(flags=flags, extensions=facts)))
    assert key.launch.measured


def test_a_category_may_be_a_number_too(apple: AppleService) -> None:
    said = recipe(extensions={"apple_validation_category_01": 4})
    any_category = replace(POLICY, launch_categories=None)
    key = check(apple, mint(apple, recipe=said), policy=any_category)
    assert key.launch.validation_category == 4
    assert not key.launch.measured


@pytest.mark.parametrize("category", [None, 1, 2, 3, 4, 5, 10])
def test_in_production_an_app_that_is_not_signed_for_publication_is_refused(
    apple: AppleService, category: int | None
) -> None:
    minted = mint(apple, launch=launch_facts(category=category))
    assert refusal(apple, minted) is AppleFault.LAUNCH_CATEGORY
    check(apple, minted, policy=replace(POLICY, launch_categories=None))


def test_in_development_an_app_may_be_signed_in_any_way(apple: AppleService) -> None:
    minted = mint(apple, environment=Environment.DEVELOPMENT, launch=launch_facts(category=3))
    development = AppAttestPolicy.for_app(APP, environment=Environment.DEVELOPMENT)
    assert check(apple, minted, policy=development).launch.validation_category == 3


def test_a_code_hash_of_an_unknown_type_is_told_and_measures_nothing(apple: AppleService) -> None:
    facts = launch_facts(code_directory=bytes(48)) | {"apple_cd_hash_type_01": b"\x03"}
    launch = check(apple, mint(apple, recipe=recipe(extensions=facts))).launch
    assert launch.code_directory_type == 3
    assert not launch.measured


def test_another_challenge_is_refused(apple: AppleService) -> None:
    assert refusal(apple, mint(apple), client_data_hash=bytes(32)) is AppleFault.NONCE


def test_a_challenge_hashed_where_it_was_taken_raw_is_refused(apple: AppleService) -> None:
    raw = b"test_server_challenge"
    minted = apple.attest(APP, client_data_hash=raw)
    check(apple, minted, client_data_hash=raw)
    hashed = hashlib.sha256(raw).digest()
    assert refusal(apple, minted, client_data_hash=hashed) is AppleFault.NONCE


@pytest.mark.parametrize("nonce", [b"", bytes(31), bytes(32), bytes(33)])
def test_another_nonce_is_refused(apple: AppleService, nonce: bytes) -> None:
    assert refusal(apple, mint(apple, nonce=nonce)) is AppleFault.NONCE


def test_key_ids_are_the_hash_of_the_key_in_one_spelling(apple: AppleService) -> None:
    minted = mint(apple)
    right = minted.key_id
    wrong = (
        "",
        right.rstrip("="),
        right + "\n",
        right.replace("=", "=="),
        base64.b64encode(bytes(32)).decode(),
        base64.b64encode(minted.public_key).decode(),
    )
    for key_id in wrong:
        assert refusal(apple, minted, key_id=key_id) is AppleFault.KEY_ID


def test_a_leaf_of_another_key_is_refused(apple: AppleService) -> None:
    mine, theirs = mint(apple), mint(apple)
    swapped = attestation_object(der(theirs.chain), mine.receipt, mine.authenticator_data)
    assert refusal(apple, mine, attestation=swapped) is AppleFault.KEY_ID
    reason = refusal(apple, mine, attestation=swapped, key_id=theirs.key_id)
    assert reason is AppleFault.NONCE


def test_a_leaf_on_another_curve_is_refused(apple: AppleService) -> None:
    minted = mint(apple)
    key = ec.generate_private_key(ec.SECP384R1())
    leaf = apple.app_attest.issue("leaf", key.public_key())
    chain = der([leaf, apple.app_attest.certificate])
    attestation = attestation_object(chain, minted.receipt, minted.authenticator_data)
    assert refusal(apple, minted, attestation=attestation) is AppleFault.PUBLIC_KEY


def test_no_root_but_the_one_for_app_attest_counts(apple: AppleService) -> None:
    minted = mint(apple)
    assert refusal(apple, minted, roots=apple_roots()) is AppleFault.CHAIN_ROOT
    for wrong in (apple.enterprise_root, apple.receipt_root):
        roots = replace(apple.roots, app_attest=wrong.certificate)
        assert refusal(apple, minted, roots=roots) is AppleFault.CHAIN_ROOT
    namesake = Authority.root("Apple App Attestation Root CA")
    roots = replace(apple.roots, app_attest=namesake.certificate)
    assert refusal(apple, minted, roots=roots) is AppleFault.CHAIN_ROOT


def test_a_forged_intermediate_of_the_same_name_is_refused(apple: AppleService) -> None:
    minted = mint(apple)
    forger = Authority.root("Apple App Attestation Root CA").authority("Apple App Attestation CA 1")
    chain = der([minted.chain[0], forger.certificate])
    attestation = attestation_object(chain, minted.receipt, minted.authenticator_data)
    assert refusal(apple, minted, attestation=attestation) is AppleFault.CHAIN_SIGNATURE


def test_a_chain_may_bring_the_root_along(apple: AppleService) -> None:
    minted = mint(apple)
    chain = der([*minted.chain, apple.app_attest_root.certificate])
    attestation = attestation_object(chain, minted.receipt, minted.authenticator_data)
    assert check(apple, minted, attestation=attestation).chain_length == 3


@pytest.mark.parametrize(
    ("shift", "reason"),
    [
        (timedelta(days=-2), AppleFault.CERTIFICATE_NOT_YET_VALID),
        (timedelta(days=3), AppleFault.CERTIFICATE_EXPIRED),
        (timedelta(days=9000), AppleFault.CERTIFICATE_EXPIRED),
    ],
)
def test_a_shifted_clock_is_refused(
    apple: AppleService, shift: timedelta, reason: AppleFault
) -> None:
    assert refusal(apple, mint(apple), now=NOW + shift) is reason


def test_the_last_second_of_validity_counts_and_the_next_does_not(apple: AppleService) -> None:
    minted = mint(apple)
    check(apple, minted, now=check(apple, minted).not_after)
    late = check(apple, minted).not_after + timedelta(seconds=1)
    assert refusal(apple, minted, now=late) is AppleFault.CERTIFICATE_EXPIRED
