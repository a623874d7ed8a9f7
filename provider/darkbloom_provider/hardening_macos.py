"""The macOS half of hardening: a system call that exists nowhere else.

Written for real, never run by our tests, which have no Mac: everything around it is covered through
`hardening`.
"""

from __future__ import annotations

import ctypes

_PT_DENY_ATTACH = 31


def deny_attach() -> bool:
    """Forbid debuggers for the life of this process; True when the kernel agreed."""
    libc = ctypes.CDLL(None, use_errno=True)
    return int(libc.ptrace(_PT_DENY_ATTACH, 0, None, 0)) == 0
