"""An honest machine's registration and the keys around it, for tests that change one thing."""

from datetime import UTC, datetime
from typing import Any

from darkbloom_edge.attestation import RegistrationBlob
from darkbloom_edge.documents import rfc3339
from darkbloom_edge.signatures import P256Signer, to_base64

NOW = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
SIGNER = P256Signer(bytes(range(1, 33)))
OTHER = P256Signer(bytes(range(2, 34)))
K = bytes(range(32))
FIELDS: dict[str, Any] = {
    "authenticated_root_enabled": True,
    "chip_name": "Apple M4 Max",
    "encryption_public_key": to_base64(K),
    "hardware_model": "Mac16,1",
    "os_version": "15.3.0",
    "public_key": SIGNER.public_text,
    "rdma_disabled": True,
    "secure_boot_enabled": True,
    "secure_enclave_available": True,
    "sip_enabled": True,
    "timestamp": rfc3339(NOW),
}


def blob(**changes: Any) -> RegistrationBlob:
    return RegistrationBlob(**{**FIELDS, **changes})
