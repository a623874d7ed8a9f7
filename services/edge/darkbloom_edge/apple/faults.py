"""Why evidence from Apple was refused: one closed vocabulary for every verifier."""

from enum import StrEnum

from darkbloom_edge.errors import EdgeError


class AppleFault(StrEnum):
    """The one reason for which an object was refused; the first that applies."""

    # Certificates and chains, of whatever object.
    CERTIFICATE_MALFORMED = "certificate_malformed"
    """Not one strict DER X.509 v3 certificate, or too large."""
    CERTIFICATE_ALGORITHM = "certificate_algorithm"
    """Signed with something else than ECDSA over SHA-2."""
    CERTIFICATE_KEY = "certificate_key"
    """Its key is not on a curve that this kind of certificate has."""
    CERTIFICATE_NOT_YET_VALID = "certificate_not_yet_valid"
    """One certificate of the chain begins later."""
    CERTIFICATE_EXPIRED = "certificate_expired"
    """One certificate of the chain has ended."""
    CERTIFICATE_NOT_CA = "certificate_not_ca"
    """An issuer is not a certificate authority."""
    CERTIFICATE_IS_CA = "certificate_is_ca"
    """The leaf is a certificate authority."""
    CERTIFICATE_KEY_USAGE = "certificate_key_usage"
    """The key usage does not allow what the certificate is used for, or allows too much."""
    CERTIFICATE_PURPOSE = "certificate_purpose"
    """The extended key usage is for something else."""
    CERTIFICATE_MARKER = "certificate_marker"
    """The extension with which Apple marks this purpose is missing."""
    CERTIFICATE_EXTENSION = "certificate_extension"
    """A critical extension that is not understood, or an extension twice."""
    CHAIN_LENGTH = "chain_length"
    """Too few or too many certificates."""
    CHAIN_ORDER = "chain_order"
    """A certificate was not issued by the one after it."""
    CHAIN_SIGNATURE = "chain_signature"
    """A certificate is not signed by the key of the one after it."""
    CHAIN_PATH_LENGTH = "chain_path_length"
    """More authorities below one than it allows."""
    CHAIN_ROOT = "chain_root"
    """The chain does not lead to the pinned root."""
    CHAIN_REJECTED = "chain_rejected"
    """The second, independent path checker refuses what the rules above let pass."""

    # App Attest: attestation objects.
    MALFORMED_ATTESTATION = "malformed_attestation"
    """Not one strict CBOR object with the members of an attestation."""
    WRONG_FORMAT = "wrong_format"
    """An attestation of another format, such as WebAuthn's `apple`."""
    PUBLIC_KEY = "public_key"
    """The leaf's key is not a P-256 key."""
    KEY_ID = "key_id"
    """The key id is not canonical base64 of the SHA-256 of the leaf's key."""
    NONCE = "nonce"
    """The leaf's nonce is missing, or was made for other data or another challenge."""
    MAC_ACCESS_CONTROL = "mac_access_control"
    """The leaf lacks the access policy of a key on a Mac, or has another one."""

    # App Attest: authenticator data of attestations and assertions.
    AUTHENTICATOR_DATA = "authenticator_data"
    """Shorter than its fixed part."""
    APP_IDENTITY = "app_identity"
    """Made by another app."""
    AUTHENTICATOR_FLAGS = "authenticator_flags"
    """An attestation without attested credential data."""
    CREDENTIAL_COUNTER = "credential_counter"
    """The counter of a fresh key is not zero."""
    CREDENTIAL_ID = "credential_id"
    """The credential id is not the key id."""
    ENVIRONMENT = "environment"
    """Made in the other environment, or in none that exists."""
    CREDENTIAL_KEY = "credential_key"
    """The COSE key is not an ES256 key on P-256, or not the leaf's."""
    EXTENSIONS = "extensions"
    """Announced extensions are missing or not strict CBOR."""
    BUNDLE_VERSION = "bundle_version"
    """Not text, or longer than 128 characters."""
    VALIDATION_CATEGORY = "validation_category"
    """Not a 32-bit number in one of its two spellings."""
    LAUNCH_CATEGORY = "launch_category"
    """The running app was signed in another way than the policy takes, or no way is told."""
    CODE_DIRECTORY = "code_directory"
    """The code directory's hash has no type, or not that type's size."""
    AUTHENTICATOR_TRAILING_DATA = "authenticator_trailing_data"
    """Bytes after the data that no flag announces."""

    # App Attest: assertions.
    MALFORMED_ASSERTION = "malformed_assertion"
    """Not one strict CBOR object with the members of an assertion."""
    ASSERTION_SIGNATURE = "assertion_signature"
    """Not signed by this key over these data."""
    COUNTER_REPLAY = "counter_replay"
    """The counter has not risen."""

    # App Attest: receipts.
    RECEIPT_MALFORMED = "receipt_malformed"
    """Not a CMS object of the one shape that Apple makes, or fields that cannot be read."""
    RECEIPT_CERTIFICATES = "receipt_certificates"
    """It carries certificates that do not belong to the signer's chain."""
    RECEIPT_SIGNER = "receipt_signer"
    """Not exactly one signer, or its certificate is not there."""
    RECEIPT_SIGNATURE = "receipt_signature"
    """The payload is not signed by the signer's key."""
    RECEIPT_TYPE = "receipt_type"
    """Of another type than asked for."""
    RECEIPT_APP_ID = "receipt_app_id"
    """For another app."""
    RECEIPT_ENVIRONMENT = "receipt_environment"
    """From the other environment."""
    RECEIPT_KEY = "receipt_key"
    """For another key than the attested one."""
    RECEIPT_CLIENT_HASH = "receipt_client_hash"
    """For another challenge than the attestation."""
    RECEIPT_FROM_FUTURE = "receipt_from_future"
    """Created later than now."""
    RECEIPT_STALE = "receipt_stale"
    """Created too long ago."""
    RECEIPT_EXPIRED = "receipt_expired"
    """Its time is over."""
    RECEIPT_RISK_METRIC = "receipt_risk_metric"
    """The risk metric is not a number, or too high for the policy."""

    # Managed Device Attestation.
    DEVICE_FIELD = "device_field"
    """A property is not encoded as measured, or not what such a property can be."""
    SERIAL_MISMATCH = "serial_mismatch"
    """Of a device with another serial number, or without one."""
    UDID_MISMATCH = "udid_mismatch"
    """Of a device with another UDID, or without one."""
    FRESHNESS_MISSING = "freshness_missing"
    """It names no freshness value."""
    FRESHNESS_MISMATCH = "freshness_mismatch"
    """Made for another key or another token."""
    POSTURE_MISSING = "posture_missing"
    """It does not say what the policy wants to know: made by an old system."""
    SIP_DISABLED = "sip_disabled"
    """System Integrity Protection is off."""
    SECURE_BOOT_NOT_FULL = "secure_boot_not_full"
    """Secure Boot is reduced or permissive."""
    KERNEL_EXTENSIONS_ALLOWED = "kernel_extensions_allowed"
    """Third-party kernel extensions may be loaded."""


class AppleRejected(EdgeError):  # noqa: N818 - the name says what happened to the evidence
    """Evidence was refused.

    Args:
        reason: why.
        detail: which part, lower case, without any of its bytes.
    """

    def __init__(self, reason: AppleFault, detail: str = "") -> None:
        text = f"apple evidence rejected, {reason.value}"
        super().__init__(f"{text}: {detail}" if detail else text)
        self.reason = reason
        self.detail = detail
