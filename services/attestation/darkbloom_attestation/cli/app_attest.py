"""`verify-app-attest`: an App Attest sample, its assertion and its receipts."""

import hashlib
from pathlib import Path
from typing import Annotated

import typer
from cryptography import x509
from darkbloom_edge.apple import (
    AppAttestPolicy,
    AppleFault,
    AppleRejected,
    AppleRoots,
    AttestedKey,
    Environment,
    Receipt,
    ReceiptPolicy,
    apple_roots,
    verify_assertion,
    verify_attestation,
    verify_receipt,
)
from darkbloom_edge.apple.authenticator import AAGUIDS
from darkbloom_edge.errors import EdgeError

from darkbloom_attestation.cli.app_attest_file import (
    AppAttestFile,
    AssertionSample,
    ReceiptSample,
    agree,
    raw,
    time,
)
from darkbloom_attestation.cli.files import accepted, read_file, refused

_ENVIRONMENTS = {"production": Environment.PRODUCTION, "sandbox": Environment.DEVELOPMENT}


def verify_app_attest(
    file: Annotated[Path, typer.Argument(help="A sample: app_attest.schema.json, version 1.")],
    *,
    mac: Annotated[
        bool, typer.Option("--mac", help="Refuse keys without a Mac's access policy.")
    ] = False,
) -> None:
    """Verify an attestation, its assertion and its receipts, offline, at the file's `verify_at`.

    Receipts are verified at the time of their creation. Prints `result`, `reason`, `key_id`,
    `counter` (the attestation's), `environment` and `assertion_counter` (null without one); the
    exit code is 0 where all of it holds.
    """
    try:
        found = read_file(file, AppAttestFile)
        key, asserted = check_sample(found, roots=apple_roots(), mac=mac)
    except EdgeError as error:
        refused(error, key_id=None, counter=None, environment=None, assertion_counter=None)
    accepted(
        key_id=found.key_id,
        counter=key.counter,
        environment=key.environment,
        assertion_counter=asserted,
    )


def check_sample(
    found: AppAttestFile, *, roots: AppleRoots, mac: bool = False
) -> tuple[AttestedKey, int | None]:
    """Check a sample: first the evidence, then that the file says the same as the evidence.

    Returns:
        The attested key, and the counter of its assertion, if there is one.

    Raises:
        AppleRejected: the evidence is refused.
        FileRejected: the file is malformed, or contradicts its evidence.
    """
    client_data_hash = raw(found.client_data_hash, "client_data_hash")
    key = verify_attestation(
        raw(found.attestation, "attestation"),
        key_id=found.key_id,
        client_data_hash=client_data_hash,
        policy=AppAttestPolicy(
            app_id_hash=raw(found.app_id_hash, "app_id_hash"),
            environment=found.environment,
            require_mac_access_control=mac,
        ),
        roots=roots,
        now=time(found.verify_at, "verify_at"),
    )
    asserted = None if found.assertion is None else _check_assertion(found.assertion, key)
    for index, sample in enumerate(found.receipts):
        _check_receipt(sample, f"receipts[{index}]", key, client_data_hash, roots)
    _check_declared(found, key, client_data_hash)

    return key, asserted


def _check_assertion(sample: AssertionSample, key: AttestedKey) -> int:
    client_data_hash = raw(sample.client_data_hash, "assertion.client_data_hash")
    said = verify_assertion(
        raw(sample.assertion, "assertion.assertion"),
        client_data_hash=client_data_hash,
        public_key=key.public_key,
        app_id_hash=key.app_id_hash,
        previous_counter=key.counter,
    )
    data = raw(sample.client_data, "assertion.client_data")
    agree("assertion.client_data", hashlib.sha256(data).digest(), client_data_hash)
    agree("assertion.counter", sample.counter, said.counter)
    agree("assertion.flags", sample.flags, said.flags)

    return said.counter


def _check_receipt(
    sample: ReceiptSample, at: str, key: AttestedKey, client_data_hash: bytes, roots: AppleRoots
) -> None:
    agree(f"{at}.origin", sample.origin == "attestation", sample.receipt is None)
    created = time(sample.created, f"{at}.created")
    receipt = verify_receipt(
        key.receipt if sample.receipt is None else raw(sample.receipt, f"{at}.receipt"),
        # The app is compared by its hash, since some samples name only that.
        policy=ReceiptPolicy(app_id=None, environment=key.environment),
        roots=roots,
        now=created,
        leaf=key.certificate,
        client_data_hash=client_data_hash,
    )
    if hashlib.sha256(receipt.app_id.encode()).digest() != key.app_id_hash:
        raise AppleRejected(AppleFault.RECEIPT_APP_ID)
    _check_declared_receipt(sample, at, receipt)


def _check_declared_receipt(sample: ReceiptSample, at: str, receipt: Receipt) -> None:
    not_before = sample.not_before
    declared = {
        "type": (sample.type, receipt.type),
        "app_id": (sample.app_id, receipt.app_id),
        "environment": (_ENVIRONMENTS[sample.environment], receipt.environment),
        "created": (time(sample.created, at), receipt.created),
        "not_before": (not_before and time(not_before, at), receipt.not_before),
        "expires": (time(sample.expires, at), receipt.expires),
        "risk_metric": (sample.risk_metric, receipt.risk_metric),
        "token": (sample.token, receipt.token),
        "client_hash": (raw(sample.client_hash, at), receipt.client_hash),
        "client_hash_matches": (sample.client_hash_matches, receipt.client_hash_matches),
        "certificate_matches_leaf": (sample.certificate_matches_leaf, receipt.matches_key),
    }
    for member, (said, is_) in declared.items():
        agree(f"{at}.{member}", said, is_)


def _check_declared(found: AppAttestFile, key: AttestedKey, client_data_hash: bytes) -> None:
    """Compare everything else that the file says about its evidence, but the expected result."""
    data = raw(found.client_data, "client_data")
    hashed = "SHA-256" in found.client_data_hash_rule
    leaf = x509.load_der_x509_certificate(key.certificate)
    expected = found.expected
    aaguid = next(value for value, place in AAGUIDS.items() if place is key.environment)
    if found.app_id is not None:
        app_id_hash = hashlib.sha256(found.app_id.encode()).digest()
        agree("app_id", app_id_hash, key.app_id_hash)
    declared = {
        "client_data": (hashlib.sha256(data).digest() if hashed else data, client_data_hash),
        "leaf.not_before": (time(found.leaf.not_before, "leaf"), key.not_before),
        "leaf.not_after": (time(found.leaf.not_after, "leaf"), key.not_after),
        "leaf.serial": (found.leaf.serial, f"{leaf.serial_number:x}"),
        "expected.environment": (expected.environment, key.environment),
        "expected.counter": (expected.counter, key.counter),
        "expected.public_key": (raw(expected.public_key, "expected"), key.public_key),
        "expected.nonce": (raw(expected.nonce, "expected"), key.nonce),
        "expected.flags": (expected.flags, key.flags),
        "expected.aaguid": (expected.aaguid, aaguid.hex()),
        "expected.x5c_count": (expected.x5c_count, key.chain_length),
        "expected.access_control_extension": (
            expected.access_control_extension,
            key.mac_access_control,
        ),
        "expected.trailing_authenticator_bytes": (
            expected.trailing_authenticator_bytes,
            key.trailing_bytes,
        ),
    }
    for member, (said, is_) in declared.items():
        agree(member, said, is_)
