"""Commands to a managed Mac, as property lists; two kinds exist and no third can be built."""

import hashlib
import plistlib

from darkbloom_edge.apple.mdm_webhook import RequestType
from darkbloom_edge.errors import MalformedError

NONCE_BYTES = 32
"""Size of a device attestation nonce."""


def device_attestation_nonce(identity_key_text: str) -> bytes:
    """Return the nonce that binds a device attestation to an enclave key.

    Args:
        identity_key_text: the key in base64, exactly as the provider registered it: the hash is of
            the text, not of the key bytes.
    """
    return hashlib.sha256(identity_key_text.encode()).digest()


def security_info_command(command_uuid: str) -> bytes:
    """Return the command that asks for the posture."""
    return _command(command_uuid, {"RequestType": RequestType.SECURITY_INFO.value})


def device_attestation_command(command_uuid: str, nonce: bytes) -> bytes:
    """Return the command that asks for a device attestation over a nonce.

    Raises:
        MalformedError: the nonce does not have 32 bytes.
    """
    if len(nonce) != NONCE_BYTES:
        raise MalformedError("a device attestation nonce has 32 bytes")

    return _command(
        command_uuid,
        {
            "RequestType": RequestType.DEVICE_INFORMATION.value,
            "Queries": ["DevicePropertiesAttestation"],
            "DeviceAttestationNonce": nonce,
        },
    )


def _command(command_uuid: str, command: dict[str, object]) -> bytes:
    return plistlib.dumps({"CommandUUID": command_uuid, "Command": command}, sort_keys=True)
