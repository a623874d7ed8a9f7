"""No flipped byte passes, in any object of Apple's.

One exception: the receipt inside an attestation is not covered by the attestation; it is signed by
itself, and its own sweep is here too. Each sweep flips one bit of every few bytes, the bit turning
with the position; `make fuzz` sets DARKBLOOM_FLIP_STEP=1 and flips one in every byte.
"""

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

import cbor2
import pytest
from darkbloom_edge.apple import (
    AppAttestPolicy,
    AppleFault,
    AppleRejected,
    Environment,
    MdaPolicy,
    ReceiptPolicy,
    apple_roots,
    key_freshness,
    verify_assertion,
    verify_attestation,
    verify_mda,
    verify_receipt,
)
from darkbloom_edge.signatures import P256Signer

from tests.fakes.apple_ca import NOW
from tests.fakes.apple_samples import raw, sample
from tests.fakes.apple_service import AppleService, launch_facts

APP = "TEAMID1234.io.darkbloom.provider"
CHALLENGE = hashlib.sha256(b"challenge").digest()

STEP = int(os.environ.get("DARKBLOOM_FLIP_STEP", "3"))  # noqa: TID251 - how thorough to be is the runner's to say
"""Shares no factor with 8, so that each bit is met."""
STAND_IN = b"\xaa" * 24
"""For receipts inside attestations, to keep the sweep to what the attestation covers."""

CBOR = {AppleFault.MALFORMED_ATTESTATION, AppleFault.WRONG_FORMAT, AppleFault.CHAIN_LENGTH}
CERTIFICATES = {fault for fault in AppleFault if fault.value.startswith(("certificate_", "chain_"))}
KEY = {AppleFault.PUBLIC_KEY, AppleFault.KEY_ID, AppleFault.NONCE, AppleFault.MAC_ACCESS_CONTROL}


def flips(data: bytes, step: int) -> Iterator[tuple[int, bytes]]:
    for at in range(0, len(data), step):
        yield at, data[:at] + bytes([data[at] ^ (1 << at % 8)]) + data[at + 1 :]


def sweep(
    data: bytes, verify: Callable[[bytes], object], step: int = STEP
) -> tuple[dict[int, AppleFault], list[int]]:
    """Return the reason by position, and the positions at which nothing was noticed."""
    verify(data)
    refused: dict[int, AppleFault] = {}
    passed: list[int] = []
    for at, flipped in flips(data, step):
        try:
            verify(flipped)
        except AppleRejected as error:
            refused[at] = error.reason
        else:
            passed.append(at)
    return refused, passed


def span(data: bytes, part: bytes) -> range:
    """Return where a part lies in an object that holds it once."""
    assert data.count(part) == 1
    start = data.index(part)
    return range(start, start + len(part))


def reasons(refused: Mapping[int, AppleFault], where: range) -> set[AppleFault]:
    return {fault for at, fault in refused.items() if at in where}


def test_no_flip_of_an_attestation_passes_but_in_the_receipt_that_is_judged_alone(
    apple: AppleService,
) -> None:
    minted = apple.attest(APP, client_data_hash=CHALLENGE, launch=launch_facts(), receipt=STAND_IN)

    def verify(attestation: bytes) -> object:
        return verify_attestation(
            attestation,
            key_id=minted.key_id,
            client_data_hash=CHALLENGE,
            policy=AppAttestPolicy.for_app(APP),
            roots=apple.roots,
            now=NOW,
        )

    refused, passed = sweep(minted.attestation, verify)
    assert set(passed) <= set(span(minted.attestation, STAND_IN))
    # Flips of authenticator data are seen by the nonce, before a field of them is believed.
    inside = span(minted.attestation, minted.authenticator_data)
    assert reasons(refused, inside) == {AppleFault.NONCE}
    for certificate in cbor2.loads(minted.attestation)["attStmt"]["x5c"]:
        found = reasons(refused, span(minted.attestation, certificate))
        assert found <= CERTIFICATES, found - CERTIFICATES
    assert set(refused.values()) <= CBOR | CERTIFICATES | KEY


@pytest.mark.parametrize("name", ["apple-guide-production", "veehaitch-ios-14.4"])
def test_no_flip_of_a_published_attestation_passes_but_in_its_receipt(name: str) -> None:
    found = sample("app_attest", name)
    whole = cbor2.loads(raw(found["attestation"]))
    whole["attStmt"]["receipt"] = STAND_IN
    attestation = cbor2.dumps(whole)
    policy = AppAttestPolicy(
        app_id_hash=raw(found["app_id_hash"]),
        environment=Environment(found["environment"]),
        require_mac_access_control=False,
    )

    def verify(changed: bytes) -> object:
        return verify_attestation(
            changed,
            key_id=found["key_id"],
            client_data_hash=raw(found["client_data_hash"]),
            policy=policy,
            roots=apple_roots(),
            now=datetime.fromisoformat(found["verify_at"]),
        )

    _refused, passed = sweep(attestation, verify)
    assert set(passed) <= set(span(attestation, STAND_IN))


def test_no_flip_of_an_assertion_passes(apple: AppleService) -> None:
    minted = apple.attest(APP, client_data_hash=CHALLENGE)
    assertion = minted.assertion(CHALLENGE, counter=9, extensions=launch_facts())

    def verify(changed: bytes) -> object:
        return verify_assertion(
            changed,
            client_data_hash=CHALLENGE,
            public_key=minted.public_key,
            app_id_hash=hashlib.sha256(APP.encode()).digest(),
            previous_counter=0,
        )

    refused, passed = sweep(assertion, verify, step=1)
    assert passed == []
    assert set(refused.values()) == {
        AppleFault.MALFORMED_ASSERTION,
        AppleFault.ASSERTION_SIGNATURE,
    }


def test_no_flip_of_what_else_an_attestation_is_judged_by_passes(apple: AppleService) -> None:
    minted = apple.attest(APP, client_data_hash=CHALLENGE)
    given: dict[str, Any] = {
        "client_data_hash": CHALLENGE,
        "policy": AppAttestPolicy.for_app(APP),
    }

    def verify(**changes: Any) -> object:
        return verify_attestation(
            minted.attestation, roots=apple.roots, now=NOW, key_id=minted.key_id, **given | changes
        )

    verify()
    refused, passed = sweep(CHALLENGE, lambda value: verify(client_data_hash=value), step=5)
    assert (set(refused.values()), passed) == ({AppleFault.NONCE}, [])
    policy = given["policy"]
    refused, passed = sweep(
        policy.app_id_hash, lambda value: verify(policy=replace(policy, app_id_hash=value)), step=5
    )
    assert (set(refused.values()), passed) == ({AppleFault.APP_IDENTITY}, [])


def test_no_flip_of_a_device_chain_passes(apple: AppleService) -> None:
    fresh = key_freshness(P256Signer(bytes(range(1, 33))).public)
    chain = apple.device(freshness=min(fresh), with_root=False)
    policy = MdaPolicy(freshness=fresh)
    for at, certificate in enumerate(chain):

        def verify(changed: bytes, at: int = at) -> object:
            flipped = [*chain[:at], changed, *chain[at + 1 :]]
            return verify_mda(flipped, policy=policy, roots=apple.roots, now=NOW)

        refused, passed = sweep(certificate, verify)
        assert passed == []
        assert set(refused.values()) <= CERTIFICATES


def test_no_flip_of_a_receipt_passes(apple: AppleService) -> None:
    minted = apple.attest(APP, client_data_hash=CHALLENGE)

    def verify(receipt: bytes) -> object:
        return verify_receipt(
            receipt,
            policy=ReceiptPolicy(app_id=APP),
            roots=apple.roots,
            now=NOW,
            leaf=minted.leaf,
            client_data_hash=CHALLENGE,
        )

    refused, passed = sweep(minted.receipt, verify)
    assert passed == []
    allowed = CERTIFICATES | {fault for fault in AppleFault if fault.value.startswith("receipt_")}
    assert set(refused.values()) <= allowed


def test_no_flip_of_a_published_receipt_changes_what_is_read() -> None:
    found = sample("app_attest", "veehaitch-ios-14.4")
    said = found["receipts"][1]
    accepted = []

    def verify(receipt: bytes) -> None:
        accepted.append(
            verify_receipt(
                receipt,
                policy=ReceiptPolicy(app_id=said["app_id"], environment=Environment.DEVELOPMENT),
                roots=apple_roots(),
                now=datetime.fromisoformat(said["created"]),
            )
        )

    sweep(raw(said["receipt"]), verify)
    # Apple writes BER, so a flip could turn one spelling of a length into another.
    assert set(accepted) == {accepted[0]}
