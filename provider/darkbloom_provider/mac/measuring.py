"""Asks a Mac's own tools how it is protected; each has a fixed path, no input and a deadline."""

import subprocess
from collections.abc import Callable
from pathlib import Path

from darkbloom_provider.mac.posture import (
    Enrolment,
    Posture,
    SecureBoot,
    Sip,
    parse_authenticated_root,
    parse_boot_controller,
    parse_enrolment,
    parse_rdma,
    parse_sealed,
    parse_serial,
    parse_sip,
    parse_volume_hash,
)

TIMEOUT_S = 10.0
"""Bound of one tool."""
MAX_OUTPUT_CHARS = 262_144
"""Most that is read of one tool's output."""
RDMA_CTL = "/usr/bin/rdma_ctl"
CODESIGN = "/usr/bin/codesign"
"""Says what it shows on its channel for errors."""

Runner = Callable[[tuple[str, ...]], str]
"""Runs one command and returns its output; empty when it failed."""


def run_tool(command: tuple[str, ...]) -> str:
    """Run a tool of the system; see `Runner`."""
    try:
        done = subprocess.run(  # noqa: S603 - fixed absolute paths, no input of others
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if command[0] == CODESIGN else subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
            errors="replace",
            timeout=TIMEOUT_S,
            check=False,
            # A tool that another one shadows or that is told another language is no witness.
            env={"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "LC_ALL": "C"},
        )
    except (OSError, subprocess.SubprocessError):
        return ""

    return done.stdout[:MAX_OUTPUT_CHARS] if done.returncode == 0 else ""


def measure_sip(run: Runner = run_tool) -> bool:
    """Return whether SIP is on, whole; False unless `csrutil` says so plainly."""
    return parse_sip(run(("/usr/bin/csrutil", "status"))) is Sip.ENABLED


def measure_posture(run: Runner = run_tool, *, rdma_tool: Path = Path(RDMA_CTL)) -> Posture:
    """Ask everything; blocks for up to a second, so call it off the event loop."""
    disk = run(("/usr/sbin/diskutil", "info", "/"))
    root = parse_authenticated_root(run(("/usr/bin/csrutil", "authenticated-root", "status")))
    if root is None:
        root = parse_sealed(disk)
    boot = parse_boot_controller(run(("/usr/sbin/system_profiler", "SPiBridgeDataType")))
    serial = run(("/usr/sbin/ioreg", "-rd1", "-c", "IOPlatformExpertDevice"))

    return Posture(
        sip_enabled=measure_sip(run),
        secure_boot_enabled=boot is SecureBoot.FULL,
        authenticated_root_enabled=root is True,
        # Systems before RDMA over Thunderbolt have no such tool, and nothing to switch off.
        rdma_disabled=not rdma_tool.exists() or parse_rdma(run((RDMA_CTL, "status"))) is True,
        system_volume_hash=parse_volume_hash(disk),
        serial_number=parse_serial(serial),
    )


def measure_enrolment(run: Runner = run_tool) -> Enrolment | None:
    """Ask whether somebody manages this Mac; None when it does not say."""
    return parse_enrolment(run(("/usr/bin/profiles", "status", "-type", "enrollment")))
