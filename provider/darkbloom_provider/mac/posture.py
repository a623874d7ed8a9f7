"""What a Mac's own tools say of its protections, read strictly: what is not plain is not claimed.

Each reader takes the whole output of one command. None is "the tool did not say".
"""

import re
from dataclasses import dataclass, field
from enum import StrEnum

_SIP = re.compile(
    r"^System Integrity Protection status: ([a-z]+)( \(Custom Configuration\))?\.?\s*$"
)
_ROOT = re.compile(r"^Authenticated Root status: ([a-z]+)\.?\s*$")
_LINE = re.compile(r"^\s*([A-Za-z0-9 -]+?)\s*:\s*(.*?)\s*$")
_BOOT_POLICY = re.compile(r"^Security Mode:\s+(Full|Reduced|Permissive)\b")
_SNAPSHOT = re.compile(r"com\.apple\.os\.update-([0-9A-Fa-f]{32,128})\Z")
_SERIAL = re.compile(r'^\s*\|?\s*"IOPlatformSerialNumber" = "([A-Z0-9]{8,32})"\s*$')


class Sip(StrEnum):
    """System Integrity Protection."""

    ENABLED = "enabled"
    DISABLED = "disabled"
    CUSTOM = "custom"
    """Parts of it are off: as good as off."""


class SecureBoot(StrEnum):
    """Apple's names of the boot policies."""

    FULL = "full"
    REDUCED = "reduced"
    PERMISSIVE = "permissive"


class Enrolment(StrEnum):
    """Whether somebody manages this Mac."""

    NONE = "none"
    MANAGED = "managed"


_MODES = {
    "Full Security": SecureBoot.FULL,
    "Reduced Security": SecureBoot.REDUCED,
    "Permissive Security": SecureBoot.PERMISSIVE,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Posture:
    """How this machine is protected; the default is a host that is no Mac and claims nothing."""

    sip_enabled: bool = False
    secure_boot_enabled: bool = False
    authenticated_root_enabled: bool = False
    rdma_disabled: bool = False
    system_volume_hash: str | None = None
    serial_number: str | None = field(default=None, repr=False)


def parse_sip(output: str) -> Sip | None:
    """Read `csrutil status`."""
    lines = [found for line in output.splitlines() if (found := _SIP.match(line))]
    if len(lines) != 1:
        return None
    word, custom = lines[0].groups()
    if custom or word == "unknown":
        return Sip.CUSTOM

    return {"enabled": Sip.ENABLED, "disabled": Sip.DISABLED}.get(word)


def parse_authenticated_root(output: str) -> bool | None:
    """Read `csrutil authenticated-root status`."""
    lines = [found for line in output.splitlines() if (found := _ROOT.match(line))]
    if len(lines) != 1:
        return None

    return {"enabled": True, "disabled": False}.get(lines[0].group(1))


def parse_sealed(output: str) -> bool | None:
    """Read whether the system volume is sealed out of `diskutil info /`."""
    # A broken seal is reported as `Broken`.
    return {"Yes": True, "No": False, "Broken": False}.get(_labelled(output, "Sealed") or "")


def parse_volume_hash(output: str) -> str | None:
    """Read the sealed volume's hash out of `diskutil info /`."""
    found = _SNAPSHOT.match(_labelled(output, "APFS Snapshot Name") or "")

    return found.group(1).lower() if found else None


def parse_boot_controller(output: str) -> SecureBoot | None:
    """Read the boot policy out of `system_profiler SPiBridgeDataType`; needs no administrator."""
    return _MODES.get(_labelled(output, "Secure Boot") or "")


def parse_boot_policy(output: str) -> SecureBoot | None:
    """Read the boot policy out of `bputil --display-policy`; that tool asks for an administrator.

    It lists every installed system; what differs among them is not a policy of this one.
    """
    modes = {found.group(1) for line in output.splitlines() if (found := _BOOT_POLICY.match(line))}

    return SecureBoot(modes.pop().lower()) if len(modes) == 1 else None


def parse_rdma(output: str) -> bool | None:
    """Read whether RDMA is disabled out of `rdma_ctl status`."""
    return {"disabled": True, "enabled": False}.get(output.strip().lower().rstrip("."))


def parse_serial(output: str) -> str | None:
    """Read the serial out of `ioreg -rd1 -c IOPlatformExpertDevice`."""
    found = [match.group(1) for line in output.splitlines() if (match := _SERIAL.match(line))]

    return found[0] if len(found) == 1 else None


def parse_enrolment(output: str) -> Enrolment | None:
    """Read `profiles status -type enrollment`."""
    said = _labelled(output, "MDM enrollment")
    if said is None:
        return None
    if said.startswith("Yes"):
        return Enrolment.MANAGED

    return Enrolment.NONE if said.startswith("No") else None


def _labelled(output: str, label: str) -> str | None:
    """Return the value behind `label:`; None when it is missing or said twice."""
    values = [
        match.group(2)
        for line in output.splitlines()
        if (match := _LINE.match(line)) and match.group(1) == label
    ]

    return values[0] if len(values) == 1 else None
