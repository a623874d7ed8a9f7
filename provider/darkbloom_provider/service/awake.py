"""Keeping the machine awake while it serves, and letting it sleep while its schedule is closed.

On a Mac an assertion of IOKit, made and given back in this process: `caffeinate` would be a child,
and an agent that may hold prompts has none. On Linux the unit of the service runs the agent below
`systemd-inhibit`; here it is only looked whether it does. The display may sleep everywhere.
"""

from __future__ import annotations

import ctypes
import os
import sys
from ctypes import byref, c_char_p, c_int32, c_long, c_ubyte, c_uint32, c_void_p
from pathlib import Path
from typing import Any, Protocol, final

import structlog

from darkbloom_provider.mac.frameworks import CORE_FOUNDATION

IOKIT = "/System/Library/Frameworks/IOKit.framework/IOKit"
_UTF8 = 0x08000100
_ON = 255
_KIND = b"PreventUserIdleSystemSleep"
_NAME = b"Darkbloom serves inference"
_INHIBITOR = "systemd-inhibit"

_log = structlog.get_logger()


class Awake(Protocol):
    """Prevents system sleep for a while."""

    def hold(self) -> bool:
        """Prevent sleep; returns whether that is so. Holding twice is holding once."""
        ...

    def release(self) -> None:
        """Let the machine sleep when it likes."""
        ...


@final
class Assertion:
    """An assertion of IOKit.

    Args:
        foundation: CoreFoundation as ctypes loads it.
        iokit: IOKit.
    """

    def __init__(self, foundation: Any, iokit: Any) -> None:
        self._foundation = foundation
        self._iokit = iokit
        self._held: int | None = None
        foundation.CFStringCreateWithBytes.restype = c_void_p
        foundation.CFStringCreateWithBytes.argtypes = (
            c_void_p,
            c_char_p,
            c_long,
            c_uint32,
            c_ubyte,
        )
        foundation.CFRelease.argtypes = (c_void_p,)
        iokit.IOPMAssertionCreateWithName.restype = c_int32
        iokit.IOPMAssertionCreateWithName.argtypes = (c_void_p, c_uint32, c_void_p, c_void_p)
        iokit.IOPMAssertionRelease.restype = c_int32
        iokit.IOPMAssertionRelease.argtypes = (c_uint32,)

    def hold(self) -> bool:
        """See `Awake`."""
        if self._held is not None:
            return True
        kind, name = self._text(_KIND), self._text(_NAME)
        made = c_uint32()
        try:
            failed = self._iokit.IOPMAssertionCreateWithName(kind, _ON, name, byref(made))
        finally:
            self._foundation.CFRelease(kind)
            self._foundation.CFRelease(name)
        if failed:
            _log.warning("sleep_not_prevented", code=int(failed))
            return False
        self._held = made.value
        return True

    def release(self) -> None:
        """See `Awake`."""
        held, self._held = self._held, None
        if held is not None:
            self._iokit.IOPMAssertionRelease(held)

    def _text(self, text: bytes) -> int:
        return int(self._foundation.CFStringCreateWithBytes(None, text, len(text), _UTF8, 0))


@final
class Inhibited:
    """Whoever started us keeps the machine awake, or nobody does.

    Args:
        proc: the system's folder of processes.
    """

    def __init__(self, proc: Path = Path("/proc")) -> None:
        self._proc = proc

    def hold(self) -> bool:
        """Return whether we run below `systemd-inhibit`."""
        try:
            command = (self._proc / str(os.getppid()) / "comm").read_text().strip()
        except OSError:
            return False
        return command == _INHIBITOR

    def release(self) -> None:
        """Nothing of ours to give back: it ends with us."""


def awake_here(platform: str = sys.platform) -> Awake:
    """Return what keeps this system awake."""
    if platform == "darwin":
        try:
            return Assertion(ctypes.CDLL(CORE_FOUNDATION), ctypes.CDLL(IOKIT))
        except (OSError, AttributeError):
            _log.warning("sleep_not_prevented", reason="no_iokit")
    return Inhibited()
