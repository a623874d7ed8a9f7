"""Assertions: signed by the key, for this app, in rising order."""

import hashlib
from collections.abc import Callable
from typing import Any

import cbor2
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from darkbloom_edge.apple import AppleFault, AppleRejected, Assertion, verify_assertion

from tests.fakes.apple_service import (
    AppleService,
    AuthenticatorRecipe,
    MintedKey,
    launch_facts,
)

APP = "TEAMID1234.io.darkbloom.provider"
APP_HASH = hashlib.sha256(APP.encode()).digest()
SAID = hashlib.sha256(b"what the app says").digest()


@pytest.fixture(scope="module")
def minted(apple: AppleService) -> MintedKey:
    return apple.attest(APP, client_data_hash=bytes(32))


def check(key: MintedKey, assertion: bytes, **changes: Any) -> Assertion:
    given = {
        "client_data_hash": SAID,
        "public_key": key.public_key,
        "app_id_hash": APP_HASH,
        "previous_counter": 0,
    }
    return verify_assertion(assertion, **{**given, **changes})


def refusal(key: MintedKey, assertion: bytes, **changes: Any) -> AppleFault:
    with pytest.raises(AppleRejected) as refused:
        check(key, assertion, **changes)
    return refused.value.reason


def signed(key: MintedKey, data: bytes, sign: Callable[[bytes], bytes]) -> bytes:
    return cbor2.dumps({"signature": sign(data), "authenticatorData": data})


def test_an_assertion_is_accepted_with_what_runs(minted: MintedKey) -> None:
    said = check(minted, minted.assertion(SAID, counter=7, extensions=launch_facts(version="9")))
    assert said.counter == 7
    assert said.launch.bundle_version == "9"


def test_the_attested_flag_may_stay_without_a_credential(minted: MintedKey) -> None:
    assert check(minted, minted.assertion(SAID, flags=0x40)).flags == 0x40


@pytest.mark.parametrize(("counter", "previous"), [(1, 1), (1, 2), (0, 0), (5, 2**32 - 1)])
def test_an_equal_or_lower_counter_is_a_replay(
    minted: MintedKey, counter: int, previous: int
) -> None:
    assertion = minted.assertion(SAID, counter=counter)
    assert refusal(minted, assertion, previous_counter=previous) is AppleFault.COUNTER_REPLAY


def test_something_else_said_is_refused(minted: MintedKey) -> None:
    assertion = minted.assertion(SAID)
    assert refusal(minted, assertion, client_data_hash=bytes(32)) is AppleFault.ASSERTION_SIGNATURE


def test_another_key_is_refused(apple: AppleService, minted: MintedKey) -> None:
    other = apple.attest(APP, client_data_hash=bytes(32))
    reason = refusal(minted, minted.assertion(SAID), public_key=other.public_key)
    assert reason is AppleFault.ASSERTION_SIGNATURE


def test_another_app_is_refused(minted: MintedKey) -> None:
    assertion = minted.assertion(SAID)
    assert refusal(minted, assertion, app_id_hash=bytes(32)) is AppleFault.APP_IDENTITY


def test_a_key_that_is_none_is_refused(minted: MintedKey) -> None:
    for public_key in (b"", bytes(65), b"\x04" + bytes(64), minted.public_key[1:]):
        reason = refusal(minted, minted.assertion(SAID), public_key=public_key)
        assert reason is AppleFault.PUBLIC_KEY


def test_a_signature_over_the_nonce_hashed_once_is_refused(minted: MintedKey) -> None:
    data = AuthenticatorRecipe(app_id=APP, counter=1).build(None)
    nonce = hashlib.sha256(data + SAID).digest()
    once = signed(
        minted, data, lambda _: minted.private.sign(nonce, ec.ECDSA(Prehashed(hashes.SHA256())))
    )
    assert refusal(minted, once) is AppleFault.ASSERTION_SIGNATURE
    twice = signed(minted, data, lambda _: minted.private.sign(nonce, ec.ECDSA(hashes.SHA256())))
    assert check(minted, twice).counter == 1


def test_a_signature_in_another_spelling_is_refused(minted: MintedKey) -> None:
    found = cbor2.loads(minted.assertion(SAID))
    for change in (lambda raw: raw + b"\x00", lambda raw: b"\x30\x81" + raw[1:], lambda raw: b""):
        other = cbor2.dumps({**found, "signature": change(found["signature"])})
        assert refusal(minted, other) is AppleFault.ASSERTION_SIGNATURE


def test_an_unannounced_tail_counts_only_in_the_one_measured_shape(minted: MintedKey) -> None:
    measured = minted.assertion(SAID, flags=0x40, extensions=launch_facts())
    assert check(minted, measured).launch.measured
    for flags, facts in (
        (0x00, launch_facts()),
        (0x41, launch_facts()),
        (0x40, launch_facts(category=3)),
        (0x40, launch_facts(code_directory=None)),
        (0x40, {}),
    ):
        other = minted.assertion(SAID, flags=flags, extensions=facts)
        assert refusal(minted, other) is AppleFault.AUTHENTICATOR_TRAILING_DATA
    tail = minted.assertion(SAID, tail=b"\x00")
    assert refusal(minted, tail) is AppleFault.AUTHENTICATOR_TRAILING_DATA


def test_a_rebuilt_app_cannot_go_on_with_the_key_of_the_published_one(minted: MintedKey) -> None:
    accepted = frozenset({6})
    check(minted, minted.assertion(SAID), launch_categories=accepted)
    check(minted, minted.assertion(SAID, extensions=launch_facts()), launch_categories=accepted)
    rebuilt = minted.assertion(SAID, extensions=launch_facts(category=3))
    check(minted, rebuilt)
    assert refusal(minted, rebuilt, launch_categories=accepted) is AppleFault.LAUNCH_CATEGORY


def test_short_data_are_refused(minted: MintedKey) -> None:
    data = AuthenticatorRecipe(app_id=APP, counter=1).build(None)[:36]
    nonce = hashlib.sha256(data + SAID).digest()
    short = signed(minted, data, lambda _: minted.private.sign(nonce, ec.ECDSA(hashes.SHA256())))
    assert refusal(minted, short) is AppleFault.AUTHENTICATOR_DATA


@pytest.mark.parametrize(
    "change",
    [
        lambda raw: raw + b"\x00",
        lambda raw: raw[:-1],
        lambda raw: b"",
        lambda raw: b"\xa3" + raw[1:] + b"\x69signature\x40",
        lambda raw: b"\xbf" + raw[1:] + b"\xff",
        lambda raw: b"\xa3" + raw[1:] + b"\x61x\x00",
        lambda raw: b"\x82\x40\x40",
        lambda raw: raw + bytes(8 * 1024),
        lambda raw: cbor2.dumps({"signature": "", "authenticatorData": b""}),
        lambda raw: cbor2.dumps({"signature": b""}),
    ],
    ids=[
        "trailing byte",
        "cut short",
        "nothing",
        "duplicate key",
        "indefinite length",
        "a member too many",
        "a list",
        "size",
        "text for bytes",
        "a member too few",
    ],
)
def test_an_object_of_another_shape_is_refused(
    minted: MintedKey, change: Callable[[bytes], bytes]
) -> None:
    reason = refusal(minted, change(minted.assertion(SAID)))
    assert reason is AppleFault.MALFORMED_ASSERTION
