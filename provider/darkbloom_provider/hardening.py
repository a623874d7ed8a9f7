"""Protections of the process that will see prompts, and the truth about each.

Every flag is the measured result of a call in this process, read back where the system lets us; a
control that was not tried, failed, or does not exist here is `False` (spec: provider section 2.1
"Better"). What only macOS offers lives in `hardening_macos` and has never been run by our tests.
"""

from __future__ import annotations

import ctypes
import resource
import sys
from collections.abc import MutableMapping
from dataclasses import dataclass

from darkbloom_provider import hardening_macos

SCRUBBED = (
    "DYLD_INSERT_LIBRARIES",
    "DYLD_LIBRARY_PATH",
    "DYLD_FRAMEWORK_PATH",
    "LD_PRELOAD",
    "LD_AUDIT",
    "PYTHONSTARTUP",
    "PYTHONINSPECT",
    "PYTHONBREAKPOINT",
    "PYTHONIOENCODING",
    "MallocStackLogging",
    "MallocStackLoggingNoCompact",
    "MallocScribble",
    "MallocGuardEdges",
    "MallocLogFile",
    "MallocErrorAbort",
    "NSZombieEnabled",
    "OBJC_DEBUG_POOL_ALLOCATION",
    "CFNETWORK_DIAGNOSTICS",
)
"""Variables that inject code into a process or make it write memory to disk."""

_PR_GET_DUMPABLE = 3
_PR_SET_DUMPABLE = 4
_PR_SET_NO_NEW_PRIVS = 38


@dataclass(frozen=True, kw_only=True, slots=True)
class Hardening:
    """What is in force, measured."""

    core_dumps_disabled: bool
    """No core file: the limit is zero, soft and hard, and on Linux the process is not dumpable."""
    anti_debug_enabled: bool
    """No other process of the same user may attach: `PT_DENY_ATTACH` on macOS, not dumpable on
    Linux.

    On Linux root still can; the level `none` says as much.
    """
    env_scrubbed: bool
    """None of the variables in `SCRUBBED` is left."""


def harden(environ: MutableMapping[str, str]) -> Hardening:
    """Put every protection of this platform in force and report what holds.

    `environ` is the process environment; the scrubbed names are removed from it.
    """
    for name in SCRUBBED:
        environ.pop(name, None)
    no_core = _forbid_core_files()
    undebuggable = _forbid_attach()
    return Hardening(
        core_dumps_disabled=no_core and (undebuggable or sys.platform != "linux"),
        anti_debug_enabled=undebuggable,
        env_scrubbed=not any(name in environ for name in SCRUBBED),
    )


def _forbid_core_files() -> bool:
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (OSError, ValueError):
        return False
    return resource.getrlimit(resource.RLIMIT_CORE) == (0, 0)


def _forbid_attach() -> bool:
    if sys.platform == "darwin":
        return hardening_macos.deny_attach()
    if sys.platform != "linux":
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    return int(libc.prctl(_PR_GET_DUMPABLE, 0, 0, 0, 0)) == 0
