"""Apple's evidence over bytes: App Attest, its receipts, Managed Device Attestation.

Pure: bytes, clock, roots and policy are handed in; every refusal is an `AppleRejected` with one
reason of the closed list `AppleFault`. Nothing here decides what evidence is worth.
"""

from darkbloom_edge.apple.app_attest import AppAttestPolicy, AttestedKey, verify_attestation
from darkbloom_edge.apple.assertion import Assertion, verify_assertion
from darkbloom_edge.apple.authenticator import DEVELOPER_ID, Environment, LaunchFacts
from darkbloom_edge.apple.faults import AppleFault, AppleRejected
from darkbloom_edge.apple.mda import (
    DeviceAttestation,
    MdaPolicy,
    SecureBoot,
    key_freshness,
    read_mda_leaf,
    token_freshness,
    verify_mda,
)
from darkbloom_edge.apple.receipt import Receipt, ReceiptPolicy, ReceiptType, verify_receipt
from darkbloom_edge.apple.roots import AppleRoots, apple_roots

__all__ = [
    "DEVELOPER_ID",
    "AppAttestPolicy",
    "AppleFault",
    "AppleRejected",
    "AppleRoots",
    "Assertion",
    "AttestedKey",
    "DeviceAttestation",
    "Environment",
    "LaunchFacts",
    "MdaPolicy",
    "Receipt",
    "ReceiptPolicy",
    "ReceiptType",
    "SecureBoot",
    "apple_roots",
    "key_freshness",
    "read_mda_leaf",
    "token_freshness",
    "verify_assertion",
    "verify_attestation",
    "verify_mda",
    "verify_receipt",
]
