"""What a Mac's tools say, in the forms that are on record; anything else claims nothing.

No Mac made these texts for us: they follow what Apple's manuals and public reports show.
"""

import sys
from pathlib import Path

import pytest
from darkbloom_provider.mac.measuring import (
    MAX_OUTPUT_CHARS,
    measure_enrolment,
    measure_posture,
    run_tool,
)
from darkbloom_provider.mac.posture import (
    Enrolment,
    Posture,
    SecureBoot,
    Sip,
    parse_authenticated_root,
    parse_boot_controller,
    parse_boot_policy,
    parse_enrolment,
    parse_rdma,
    parse_sealed,
    parse_serial,
    parse_sip,
    parse_volume_hash,
)
from hypothesis import given
from hypothesis import strategies as st

SIP_ON = "System Integrity Protection status: enabled.\n"
SIP_CUSTOM = """System Integrity Protection status: unknown (Custom Configuration).

Configuration:
\tApple Internal: disabled
\tKext Signing: disabled
\tFilesystem Protections: enabled
\tDebugging Restrictions: disabled
\tDTrace Restrictions: enabled
\tNVRAM Protections: enabled
\tBaseSystem Verification: enabled

This is an unsupported configuration, likely to break in the future and leave your machine in an \
unknown state.
"""
CONTROLLER = """Controller:

    Model Identifier: Mac16,1
    Firmware Version: iBoot-11881.81.4
    Boot UUID: 5A0C3F5C-0000-0000-0000-000000000000
    Boot Policy:
      Secure Boot: Full Security
      System Integrity Protection: Enabled
      Signed System Volume: Enabled
      Kernel CTRR: Enabled
      Boot Arguments Filtering: Enabled
      Allow All Kernel Extensions: No
      User Approved Privileged MDM Operations: No
      DEP Approved Privileged MDM Operations: No
"""
BOOT_POLICY = """This utility is not meant for normal users or even sysadmins.

Current local policy:
OS environment:
OS Type                                       : macOS
OS Pairing Status                             : Not Paired
Local Policy Nonce Hash                 (lpnh): 1C6FF1
Security Mode:               Full       (smb0): absent
3rd Party Kexts Status:      Disabled   (smb2): absent
User-allowed MDM Control:    Disabled   (smb3): absent
DEP-allowed MDM Control:     Disabled   (smb4): absent
SIP Status:                  Enabled    (sip0): absent
Signed System Volume Status: Enabled    (sip1): absent
Kernel CTRR Status:          Enabled    (sip2): absent
Boot Args Filtering Status:  Enabled    (sip3): absent
"""
DISK = """   Device Identifier:         disk3s1s1
   Device Node:               /dev/disk3s1s1
   Volume Name:               Macintosh HD
   Mounted:                   Yes
   Mount Point:               /
   Sealed:                    Yes
   Locked:                    No
   APFS Snapshot:             Yes
   APFS Snapshot UUID:        0FC2D2FE-0000-0000-0000-000000000000
   APFS Snapshot Name:        com.apple.os.update-89B7F3CA6A59CBD3C0A6C7A8D2F1D8C8A6B9E1F0
"""
IOREG = """+-o J614sAP  <class IOPlatformExpertDevice, id 0x100000259, registered, matched, active>
    {
      "IOPlatformUUID" = "5A0C3F5C-0000-0000-0000-000000000000"
      "model" = <"Mac16,1">
      "IOPlatformSerialNumber" = "C02CANARY9"
    }
"""
ENROLLED = (
    "Enrolled via DEP: No\nMDM enrollment: Yes (User Approved)\nMDM server: https://mdm.example/c\n"
)
NOT_ENROLLED = "Enrolled via DEP: No\nMDM enrollment: No\n"


@pytest.mark.parametrize(
    ("output", "found"),
    [
        (SIP_ON, Sip.ENABLED),
        ("System Integrity Protection status: disabled.\n", Sip.DISABLED),
        (SIP_CUSTOM, Sip.CUSTOM),
        ("System Integrity Protection status: enabled (Custom Configuration).\n", Sip.CUSTOM),
        ("", None),
        ("status: enabled.\n", None),
        ("System Integrity Protection status: enabledish.\n", None),
        (SIP_ON + SIP_ON, None),
        ("# System Integrity Protection status: enabled.\n", None),
    ],
)
def test_sip_is_on_only_when_all_of_it_is(output: str, found: Sip | None) -> None:
    assert parse_sip(output) is found


@pytest.mark.parametrize(
    ("output", "found"),
    [
        ("Authenticated Root status: enabled\n", True),
        ("Authenticated Root status: disabled\n", False),
        ("Authenticated Root status: perhaps\n", None),
        ("csrutil: This tool needs to be executed from Recovery OS.\n", None),
        ("", None),
    ],
)
def test_the_authenticated_root_is_on_only_when_it_says_so(output: str, found: bool | None) -> None:
    assert parse_authenticated_root(output) is found


@pytest.mark.parametrize(
    ("value", "found"), [("Yes", True), ("No", False), ("Broken", False), ("Yep", None)]
)
def test_a_broken_seal_is_no_seal(value: str, found: bool | None) -> None:
    assert parse_sealed(DISK.replace("Sealed:                    Yes", f"Sealed: {value}")) is found


def test_the_sealed_volume_has_a_hash() -> None:
    assert parse_volume_hash(DISK) == "89b7f3ca6a59cbd3c0a6c7a8d2f1d8c8a6b9e1f0"
    assert parse_volume_hash(DISK.replace("os.update-", "os.other-")) is None
    assert parse_volume_hash("") is None


@pytest.mark.parametrize(
    ("word", "found"),
    [
        ("Full Security", SecureBoot.FULL),
        ("Reduced Security", SecureBoot.REDUCED),
        ("Permissive Security", SecureBoot.PERMISSIVE),
        ("Fuller Security", None),
    ],
)
def test_the_boot_policy_has_three_names(word: str, found: SecureBoot | None) -> None:
    assert parse_boot_controller(CONTROLLER.replace("Full Security", word)) is found
    mode = word.split(maxsplit=1)[0]
    assert parse_boot_policy(BOOT_POLICY.replace("Full  ", f"{mode} ")) is found


def test_what_is_said_twice_is_not_believed() -> None:
    assert parse_boot_controller(CONTROLLER + CONTROLLER) is None
    assert parse_boot_policy(BOOT_POLICY + BOOT_POLICY.replace("Full  ", "Reduced")) is None
    assert parse_boot_policy("") is None
    assert parse_serial(IOREG + IOREG) is None


@pytest.mark.parametrize(
    ("output", "found"), [("disabled\n", True), ("enabled\n", False), ("", None), ("no", None)]
)
def test_rdma_is_off_only_when_it_says_so(output: str, found: bool | None) -> None:
    assert parse_rdma(output) is found


def test_a_serial_is_read_and_never_shown() -> None:
    assert parse_serial(IOREG) == "C02CANARY9"
    assert parse_serial(IOREG.replace("C02CANARY9", "c02; rm")) is None
    assert "CANARY" not in repr(Posture(serial_number="C02CANARY9"))


def test_who_manages_a_mac_is_known_before_it_is_enrolled() -> None:
    assert parse_enrolment(ENROLLED) is Enrolment.MANAGED
    assert parse_enrolment(NOT_ENROLLED) is Enrolment.NONE
    assert parse_enrolment("profiles: unknown option\n") is None
    assert measure_enrolment(lambda _: NOT_ENROLLED) is Enrolment.NONE


def tool() -> dict[str, str]:
    return {
        "csrutil status": SIP_ON,
        "csrutil authenticated-root status": "Authenticated Root status: enabled\n",
        "diskutil info /": DISK,
        "system_profiler SPiBridgeDataType": CONTROLLER,
        "ioreg -rd1 -c IOPlatformExpertDevice": IOREG,
        "rdma_ctl status": "disabled\n",
    }


def measured(outputs: dict[str, str], rdma_tool: Path = Path(sys.executable)) -> Posture:
    def run(command: tuple[str, ...]) -> str:
        path, *arguments = command
        assert path.startswith(("/usr/bin/", "/usr/sbin/"))
        return outputs[" ".join([Path(path).name, *arguments])]

    return measure_posture(run, rdma_tool=rdma_tool)


def test_a_clean_mac_is_clean() -> None:
    assert measured(tool()) == Posture(
        sip_enabled=True,
        secure_boot_enabled=True,
        authenticated_root_enabled=True,
        rdma_disabled=True,
        system_volume_hash="89b7f3ca6a59cbd3c0a6c7a8d2f1d8c8a6b9e1f0",
        serial_number="C02CANARY9",
    )


def test_silent_tools_claim_nothing() -> None:
    assert measured(dict.fromkeys(tool(), "")) == Posture()


def test_a_mac_without_the_rdma_tool_has_no_rdma(tmp_path: Path) -> None:
    found = measured({**dict.fromkeys(tool(), "")}, tmp_path / "rdma_ctl")
    assert found == Posture(rdma_disabled=True)


def test_the_seal_stands_in_for_a_silent_authenticated_root() -> None:
    outputs = {**tool(), "csrutil authenticated-root status": ""}
    assert measured(outputs).authenticated_root_enabled
    outputs["csrutil authenticated-root status"] = "Authenticated Root status: disabled\n"
    assert not measured(outputs).authenticated_root_enabled


def test_a_tool_that_is_missing_fails_or_talks_too_much_is_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LC_ALL", "tr_TR.UTF-8")
    monkeypatch.setenv("CANARY", "1")
    assert run_tool(("/nowhere/csrutil", "status")) == ""
    assert run_tool((sys.executable, "-c", "print('x'); raise SystemExit(1)")) == ""
    loud = run_tool((sys.executable, "-c", f"print('x' * {MAX_OUTPUT_CHARS * 2})"))
    assert len(loud) == MAX_OUTPUT_CHARS
    script = "import os, sys; print(sorted(os.environ), sys.stdin.read() == '')"
    environment = run_tool((sys.executable, "-c", script))
    assert "CANARY" not in environment
    assert "True" in environment


@given(st.text(max_size=200))
def test_no_output_crashes_a_reader(output: str) -> None:
    for parse in (
        parse_sip,
        parse_authenticated_root,
        parse_sealed,
        parse_volume_hash,
        parse_boot_controller,
        parse_boot_policy,
        parse_rdma,
        parse_serial,
        parse_enrolment,
    ):
        parse(output)  # type: ignore[operator]
