"""The macOS half of hardening: system calls that exist nowhere else.

Written for real, never run by our tests, which have no Mac: everything around these two calls is
covered through `hardening`.
"""

from __future__ import annotations

import ctypes
import subprocess

_PT_DENY_ATTACH = 31
_CSRUTIL = "/usr/bin/csrutil"


def deny_attach() -> bool:
    """Forbid debuggers for the life of this process; True when the kernel agreed."""
    libc = ctypes.CDLL(None, use_errno=True)
    return int(libc.ptrace(_PT_DENY_ATTACH, 0, None, 0)) == 0


def sip_enabled() -> bool:
    """Return whether System Integrity Protection is on; False unless it says so plainly."""
    try:
        done = subprocess.run(  # noqa: S603 - fixed absolute path, no input
            [_CSRUTIL, "status"], capture_output=True, text=True, timeout=5, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return "status: enabled." in done.stdout
