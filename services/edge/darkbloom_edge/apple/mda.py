"""Managed Device Attestation: what Apple says about a Mac itself (spec/security.md §8).

The values are read exactly as measured on a real Mac. Two traps of others are tests here: fresh
bytes that happen to be DER stay raw, and `13.1` is 0 when System Integrity Protection is *on*.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from cryptography import x509
from cryptography.hazmat import asn1

from darkbloom_edge.apple.certificates import (
    ChainRules,
    extension_value,
    parse_certificate,
    verify_chain,
)
from darkbloom_edge.apple.faults import AppleFault, AppleRejected
from darkbloom_edge.apple.roots import AppleRoots
from darkbloom_edge.signatures import parse_p256_public, to_base64

_ARC = "1.2.840.113635.100.8."
_SERIAL = re.compile(r"[A-Z0-9]{8,14}")
_UDID = re.compile(r"[0-9A-Fa-f-]{25,40}")
_NAME = re.compile(r"[A-Za-z0-9._,-]{1,64}")
_FRESHNESS_BYTES = 32
_WRAPPED = b"\x04\x20"
_RULES = ChainRules(leaf_curves=("secp384r1", "secp256r1"))


class SecureBoot(StrEnum):
    """The boot policy, in Apple's words."""

    FULL = "Full Security"
    REDUCED = "Reduced Security"
    PERMISSIVE = "Permissive Security"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceAttestation:
    """What a leaf says; serial number and UDID name a person's machine and are never published."""

    serial: str | None
    udid: str | None
    software_update_device_id: str | None
    os_version: str | None
    sepos_version: str | None
    llb_version: str | None
    freshness: bytes | None
    """32 bytes that the asker chose."""
    sip_enabled: bool | None
    """None before macOS 14.2, as the next two."""
    secure_boot: SecureBoot | None
    kernel_extensions_allowed: bool | None
    not_before: datetime
    not_after: datetime
    """Ask again before it, aware."""

    def __repr__(self) -> str:
        return f"DeviceAttestation(<redacted>, not_after={self.not_after!r})"


@dataclass(frozen=True, slots=True, kw_only=True)
class MdaPolicy:
    """What a device must say about itself."""

    freshness: frozenset[bytes]
    """Accepted values, see `key_freshness`; empty takes any, which binds the chain to nothing."""
    serial: str | None = None
    """The serial number that the registration named; None takes any."""
    udid: str | None = None
    require_sip: bool = True
    require_full_security: bool = True
    forbid_kernel_extensions: bool = True


def key_freshness(identity_key: str | bytes) -> frozenset[bytes]:
    """Return the values that bind a chain to an identity key.

    A `DeviceInformation` query carries SHA-256 of the key's base64 *text*, and one key has two
    texts: with and without its leading byte 4.

    Raises:
        MalformedError: it is not a P-256 key.
    """
    point = parse_p256_public(identity_key)

    return frozenset(
        hashlib.sha256(to_base64(form).encode()).digest() for form in (point, point[1:])
    )


def token_freshness(token: str) -> frozenset[bytes]:
    """Return the value that binds a chain to the token of an ACME challenge."""
    return frozenset((hashlib.sha256(token.encode()).digest(),))


def verify_mda(
    certificates: Sequence[bytes], *, policy: MdaPolicy, roots: AppleRoots, now: datetime
) -> DeviceAttestation:
    """Check a chain and what its leaf says.

    Args:
        certificates: DER, leaf first, with or without the root.
        policy: whose it must be and in which posture.
        roots: the pinned roots.
        now: aware.

    Raises:
        AppleRejected: the first thing that is wrong: chain, fields, freshness, device, posture.
    """
    if not _RULES.min_length <= len(certificates) <= _RULES.max_length:
        raise AppleRejected(AppleFault.CHAIN_LENGTH)
    chain = [parse_certificate(der) for der in certificates]
    leaf = verify_chain(chain, root=roots.enterprise, now=now, rules=_RULES)
    found = _read_leaf(leaf)
    if policy.freshness:
        if found.freshness is None:
            raise AppleRejected(AppleFault.FRESHNESS_MISSING)
        if found.freshness not in policy.freshness:
            raise AppleRejected(AppleFault.FRESHNESS_MISMATCH)
    if policy.serial is not None and found.serial != policy.serial:
        raise AppleRejected(AppleFault.SERIAL_MISMATCH)
    if policy.udid is not None and found.udid != policy.udid:
        raise AppleRejected(AppleFault.UDID_MISMATCH)
    _check_posture(found, policy)

    return found


def read_mda_leaf(der: bytes) -> DeviceAttestation:
    """Read one leaf without any chain: its claims, not evidence.

    Raises:
        AppleRejected: not a certificate, or a property that is not encoded as measured.
    """
    return _read_leaf(parse_certificate(der))


def _check_posture(found: DeviceAttestation, policy: MdaPolicy) -> None:
    if policy.require_sip:
        if found.sip_enabled is None:
            raise AppleRejected(AppleFault.POSTURE_MISSING, "system integrity protection")
        if not found.sip_enabled:
            raise AppleRejected(AppleFault.SIP_DISABLED)
    if policy.require_full_security:
        if found.secure_boot is None:
            raise AppleRejected(AppleFault.POSTURE_MISSING, "secure boot")
        if found.secure_boot is not SecureBoot.FULL:
            raise AppleRejected(AppleFault.SECURE_BOOT_NOT_FULL)
    if policy.forbid_kernel_extensions:
        if found.kernel_extensions_allowed is None:
            raise AppleRejected(AppleFault.POSTURE_MISSING, "kernel extensions")
        if found.kernel_extensions_allowed:
            raise AppleRejected(AppleFault.KERNEL_EXTENSIONS_ALLOWED)


def _read_leaf(leaf: x509.Certificate) -> DeviceAttestation:
    # 13.1 is 0 while protection is on: the only flag whose number is the reverse of its meaning.
    sip_off = _flag(leaf, "13.1")

    return DeviceAttestation(
        serial=_text(leaf, "9.1", _SERIAL),
        udid=_text(leaf, "9.2", _UDID),
        software_update_device_id=_text(leaf, "9.4", _NAME),
        os_version=_text(leaf, "10.1", _NAME),
        sepos_version=_text(leaf, "10.2", _NAME),
        llb_version=_text(leaf, "10.3", _NAME),
        freshness=_freshness(leaf),
        sip_enabled=None if sip_off is None else not sip_off,
        secure_boot=_secure_boot(leaf),
        kernel_extensions_allowed=_flag(leaf, "13.3"),
        not_before=leaf.not_valid_before_utc,
        not_after=leaf.not_valid_after_utc,
    )


def _value(leaf: x509.Certificate, arc: str) -> bytes | None:
    return extension_value(leaf, x509.ObjectIdentifier(_ARC + arc))


def _text(leaf: x509.Certificate, arc: str, shape: re.Pattern[str]) -> str | None:
    """Read raw UTF-8 without any wrapper."""
    value = _value(leaf, arc)
    if value is None:
        return None

    try:
        text = value.decode()
    except UnicodeDecodeError:
        raise AppleRejected(AppleFault.DEVICE_FIELD, arc) from None
    if shape.fullmatch(text) is None:
        raise AppleRejected(AppleFault.DEVICE_FIELD, arc)

    return text


def _secure_boot(leaf: x509.Certificate) -> SecureBoot | None:
    value = _value(leaf, "13.2")
    if value is None:
        return None

    try:
        return SecureBoot(value.decode())
    except ValueError:
        raise AppleRejected(AppleFault.DEVICE_FIELD, "13.2") from None


def _flag(leaf: x509.Certificate, arc: str) -> bool | None:
    """Read a DER INTEGER that is 0 or 1."""
    value = _value(leaf, arc)
    if value is None:
        return None

    try:
        number = asn1.decode_der(int, value)
    except ValueError:
        raise AppleRejected(AppleFault.DEVICE_FIELD, arc) from None
    if number not in (0, 1):
        raise AppleRejected(AppleFault.DEVICE_FIELD, arc)

    return number == 1


def _freshness(leaf: x509.Certificate) -> bytes | None:
    """Read 32 raw bytes; a wrapper is believed only if it spans the whole value."""
    value = _value(leaf, "11.1")
    if value is None or len(value) == _FRESHNESS_BYTES:
        return value
    if len(value) == len(_WRAPPED) + _FRESHNESS_BYTES and value.startswith(_WRAPPED):
        return value[len(_WRAPPED) :]

    raise AppleRejected(AppleFault.DEVICE_FIELD, "11.1")
