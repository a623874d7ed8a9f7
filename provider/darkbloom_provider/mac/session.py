"""What a Mac's tools say of its logins and of the running program's signature, read strictly.

Each reader takes the whole output of one command. None is "the tool did not say".
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from darkbloom_provider.mac.measuring import CODESIGN, Runner, run_tool

CS_RUNTIME: Final = 0x10000
"""The kernel's flag of a program that runs hardened."""
LOGIN_WINDOW: Final = "/Library/Preferences/com.apple.loginwindow"
GLOBAL: Final = "/Library/Preferences/.GlobalPreferences"
_LISTING = re.compile(r"\A\s*\{.*\}\s*\Z", re.DOTALL)
_CONSOLE = re.compile(r"(\d{1,10}) (\S{1,255})\s*")
_AUTO_LOGIN = re.compile(r'^ {4}"?autoLoginUser"? = "?(.+?)"?;$', re.MULTILINE)
_AUTO_LOGOUT = re.compile(
    r'^ {4}"?com\.apple\.autologout\.AutoLogOutDelay"? = "?(\d{1,9})"?;$', re.MULTILINE
)
_FLAGS = re.compile(r"^CodeDirectory .*\bflags=0x([0-9a-f]{1,8})\b", re.MULTILINE)
_METAL = re.compile(
    r"^\s*Metal(?: Support| Family)?: (?:Supported, )?(Metal .*?)\s*$", re.MULTILINE
)


@dataclass(frozen=True, slots=True)
class Console:
    """Who is logged in at the screen."""

    uid: int
    name: str


def parse_console(output: str) -> Console | None:
    """Read `stat -f "%u %Su" /dev/console`; nobody is user 0."""
    found = _CONSOLE.fullmatch(output)
    return Console(int(found.group(1)), found.group(2)) if found else None


def parse_automatic_login(output: str) -> str | None:
    """Read who is logged in at start out of `defaults read` of the login window; empty: nobody."""
    if _LISTING.match(output) is None:
        return None
    found = _AUTO_LOGIN.search(output)
    return found.group(1) if found else ""


def parse_auto_logout(output: str) -> int | None:
    """Read after how many idle seconds users are logged out, 0 for never.

    Args:
        output: `defaults read` of the machine's global preferences.
    """
    if _LISTING.match(output) is None:
        return None
    found = _AUTO_LOGOUT.search(output)
    return int(found.group(1)) if found else 0


def parse_hardened(output: str) -> bool | None:
    """Read whether a program runs hardened out of `codesign --display --verbose=2`."""
    flags = [int(found, 16) for found in _FLAGS.findall(output)]
    return bool(flags[0] & CS_RUNTIME) if len(flags) == 1 else None


def parse_metal(output: str) -> str | None:
    """Read which Metal the first display's chip speaks out of `system_profiler`."""
    found = _METAL.search(output)
    return found.group(1) if found else None


def measure_console(run: Runner = run_tool) -> Console | None:
    """Ask who sits at the screen."""
    return parse_console(run(("/usr/bin/stat", "-f", "%u %Su", "/dev/console")))


def measure_automatic_login(run: Runner = run_tool) -> str | None:
    """Ask who is logged in when this Mac starts; empty: nobody."""
    # The whole list: asked for a missing key alone, the tool fails as it does for any other cause.
    return parse_automatic_login(run(("/usr/bin/defaults", "read", LOGIN_WINDOW)))


def measure_auto_logout(run: Runner = run_tool) -> int | None:
    """Ask after how many idle seconds a user is logged out; 0: never."""
    return parse_auto_logout(run(("/usr/bin/defaults", "read", GLOBAL)))


def measure_hardened(program: Path, run: Runner = run_tool) -> bool | None:
    """Ask whether a program is signed to run hardened; None where it is not signed."""
    return parse_hardened(run((CODESIGN, "--display", "--verbose=2", str(program))))


def measure_metal(run: Runner = run_tool) -> str | None:
    """Ask which Metal the GPU speaks."""
    return parse_metal(run(("/usr/sbin/system_profiler", "SPDisplaysDataType")))
