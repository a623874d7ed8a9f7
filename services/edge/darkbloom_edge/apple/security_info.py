"""Device posture as a management server reports it: SecurityInfo (spec/security.md §7).

What is read here was said by the Mac to the server and by the server to us: nobody else can check
it, so what rests on it is labelled `operator_asserted`. No value of this module shows a UDID.
"""

import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from darkbloom_edge.apple.plist import parse_plist
from darkbloom_edge.errors import EdgeError, MalformedError

MAX_UDID_CHARS = 64
"""Longest device id; Apple's have 25 or 36."""
MAX_CHAIN = 5
"""Most certificates of a device attestation."""
MAX_CERTIFICATE_BYTES = 8192
"""Largest certificate of a device attestation."""

_UDID = re.compile(r"[0-9A-Za-z-]{8,64}\Z")
_COMMAND_UUID = re.compile(r"[0-9A-Za-z-]{8,64}\Z")


class MdmFault(StrEnum):
    """Why something from a management server does not count."""

    MALFORMED_WEBHOOK = "malformed_webhook"
    """The callback is not the JSON that it must be."""
    MALFORMED_PAYLOAD = "malformed_payload"
    """The device's answer is not base64 of a plain property list."""
    NOT_ACKNOWLEDGED = "not_acknowledged"
    """The device refused or postponed the command."""
    COMMAND_ID_MISSING = "command_id_missing"
    """The answer does not name its command."""
    DEVICE_ID_MISSING = "device_id_missing"
    """The answer does not name its device."""
    DEVICE_CONTRADICTION = "device_contradiction"
    """Callback and payload name different devices, states or commands."""
    COMMAND_UNKNOWN = "command_unknown"
    """No such command is outstanding."""
    COMMAND_EXPIRED = "command_expired"
    """The command was asked too long ago."""
    DEVICE_MISMATCH = "device_mismatch"
    """Another device than the one that was asked has answered."""
    WRONG_ANSWER = "wrong_answer"
    """The answer belongs to another kind of command."""
    SECURITY_INFO_INCOMPLETE = "security_info_incomplete"
    """SIP or the Secure Boot level is missing or of a wrong type."""
    SECURITY_INFO_CONTRADICTION = "security_info_contradiction"
    """Two places of one report say different things."""
    ATTESTATION_MISSING = "attestation_missing"
    """The device sent no certificate chain."""


class MdmRejected(EdgeError):  # noqa: N818 - the name says what happened to the report
    """A management report was refused; no id, token or address is in the message."""

    def __init__(self, reason: MdmFault) -> None:
        super().__init__(f"management report rejected, {reason.value}")
        self.reason = reason


class SecureBootLevel(StrEnum):
    """How much of the boot chain Apple has signed."""

    FULL = "full"
    REDUCED = "reduced"
    PERMISSIVE = "permissive"
    UNSUPPORTED = "unsupported"


_LEVELS = {
    "full": SecureBootLevel.FULL,
    "reduced": SecureBootLevel.REDUCED,
    # Names of the same policies in Apple's schema.
    "medium": SecureBootLevel.REDUCED,
    "permissive": SecureBootLevel.PERMISSIVE,
    "off": SecureBootLevel.PERMISSIVE,
    "not supported": SecureBootLevel.UNSUPPORTED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SecurityInfo:
    """What one report says of one Mac; None is what it does not say."""

    udid: str = field(repr=False)
    """The device that answered."""
    command_uuid: str
    """The command that it answers."""
    sip_enabled: bool
    secure_boot: SecureBootLevel
    authenticated_root: bool | None = None
    """Recorded only."""
    fde_enabled: bool | None = None
    """Recorded only."""
    recovery_lock: bool | None = None
    """Recorded only."""


class PostureFault(StrEnum):
    """What keeps a posture from supporting `hardware`."""

    SIP_DISABLED = "sip_disabled"
    SECURE_BOOT_NOT_FULL = "secure_boot_not_full"
    SIP_DIFFERS_FROM_BLOB = "sip_differs_from_blob"
    SECURE_BOOT_DIFFERS_FROM_BLOB = "secure_boot_differs_from_blob"


def parse_acknowledged(data: bytes) -> dict[str, Any]:
    """Read the plist that a device answered with.

    Raises:
        MdmRejected: not a plain property list.
    """
    try:
        return parse_plist(data)
    except MalformedError:
        raise MdmRejected(MdmFault.MALFORMED_PAYLOAD) from None


def read_ids(answer: dict[str, Any]) -> tuple[str, str]:
    """Return (command id, device id) of an answer, as the device wrote them.

    Raises:
        MdmRejected: one is missing, or is no such id.
    """
    command_uuid, udid = answer.get("CommandUUID"), answer.get("UDID")
    if not isinstance(command_uuid, str) or _COMMAND_UUID.match(command_uuid) is None:
        raise MdmRejected(MdmFault.COMMAND_ID_MISSING)
    if not isinstance(udid, str) or _UDID.match(udid) is None:
        raise MdmRejected(MdmFault.DEVICE_ID_MISSING)

    return command_uuid, udid


def read_security_info(answer: dict[str, Any]) -> SecurityInfo:
    """Read a device's answer to `SecurityInfo`.

    Raises:
        MdmRejected: not acknowledged, another answer, or SIP or Secure Boot is missing.
    """
    command_uuid, udid = read_ids(answer)
    if answer.get("Status") != "Acknowledged":
        raise MdmRejected(MdmFault.NOT_ACKNOWLEDGED)
    info = answer.get("SecurityInfo")
    if not isinstance(info, dict):
        raise MdmRejected(MdmFault.WRONG_ANSWER)

    sip = info.get("SystemIntegrityProtectionEnabled")
    if not isinstance(sip, bool):
        raise MdmRejected(MdmFault.SECURITY_INFO_INCOMPLETE)

    return SecurityInfo(
        udid=udid,
        command_uuid=command_uuid,
        sip_enabled=sip,
        secure_boot=_secure_boot(info),
        authenticated_root=_flag(info, "AuthenticatedRootVolumeEnabled"),
        fde_enabled=_flag(info, "FDE_Enabled"),
        recovery_lock=_flag(info, "IsRecoveryLockEnabled"),
    )


def read_device_attestation(answer: dict[str, Any]) -> tuple[bytes, ...]:
    """Return the DER chain, leaf first, out of an answer to `DevicePropertiesAttestation`.

    Raises:
        MdmRejected: not acknowledged, another answer, no chain, or more than a chain may be.
    """
    read_ids(answer)
    if answer.get("Status") != "Acknowledged":
        raise MdmRejected(MdmFault.NOT_ACKNOWLEDGED)
    responses = answer.get("QueryResponses")
    if not isinstance(responses, dict):
        raise MdmRejected(MdmFault.WRONG_ANSWER)

    chain = responses.get("DevicePropertiesAttestation")
    if not isinstance(chain, list) or not 0 < len(chain) <= MAX_CHAIN:
        raise MdmRejected(MdmFault.ATTESTATION_MISSING)
    certificates = tuple(der for der in chain if isinstance(der, bytes))
    sizes_fit = all(0 < len(der) <= MAX_CERTIFICATE_BYTES for der in certificates)
    if len(certificates) != len(chain) or not sizes_fit:
        raise MdmRejected(MdmFault.ATTESTATION_MISSING)

    return certificates


def judge_posture(
    info: SecurityInfo, *, blob_sip_enabled: bool, blob_secure_boot_enabled: bool
) -> tuple[PostureFault, ...]:
    """Compare a report with what the provider signed; empty when it supports `hardware`."""
    full = info.secure_boot is SecureBootLevel.FULL
    rows = (
        (info.sip_enabled, PostureFault.SIP_DISABLED),
        (full, PostureFault.SECURE_BOOT_NOT_FULL),
        (info.sip_enabled == blob_sip_enabled, PostureFault.SIP_DIFFERS_FROM_BLOB),
        (full == blob_secure_boot_enabled, PostureFault.SECURE_BOOT_DIFFERS_FROM_BLOB),
    )

    return tuple(fault for holds, fault in rows if not holds)


def _secure_boot(info: dict[str, Any]) -> SecureBootLevel:
    nested = info.get("SecureBoot")
    said = {
        value
        for value in (
            nested.get("SecureBootLevel") if isinstance(nested, dict) else None,
            info.get("SecureBootLevel"),
        )
        if isinstance(value, str)
    }
    if len(said) > 1:
        raise MdmRejected(MdmFault.SECURITY_INFO_CONTRADICTION)
    level = _LEVELS.get(said.pop().lower()) if said else None
    if level is None:
        raise MdmRejected(MdmFault.SECURITY_INFO_INCOMPLETE)

    return level


def _flag(info: dict[str, Any], name: str) -> bool | None:
    value = info.get(name)

    return value if isinstance(value, bool) else None
