"""What a Mac's tools say of logins and signatures; anything else claims nothing.

No Mac made these texts for us: they follow what Apple's manuals and public reports show.
"""

import sys
from pathlib import Path

import pytest
from darkbloom_provider.mac import session
from darkbloom_provider.mac.measuring import CODESIGN
from darkbloom_provider.mac.session import (
    Console,
    measure_auto_logout,
    measure_automatic_login,
    measure_console,
    measure_hardened,
    measure_metal,
)

LOGIN_WINDOW = """{
    GuestEnabled = 0;
    OptimizerLastRunForBuild = 53086432;
    autoLoginUser = ada;
    lastUser = loggedIn;
    lastUserName = ada;
}
"""
GLOBAL = """{
    AppleLanguages =     (
        "en-US"
    );
    Country = US;
    "com.apple.autologout.AutoLogOutDelay" = 3600;
}
"""
SIGNED = """Executable=/Applications/Darkbloom.app/Contents/Resources/python/bin/python3.11
Identifier=python3.11
Format=Mach-O thin (arm64)
CodeDirectory v=20500 size=447 flags=0x10000(runtime) hashes=6+5 location=embedded
Signature size=9048
Timestamp=Nov 1, 2025 at 10:00:00
TeamIdentifier=ABCDE12345
"""
ADHOC = SIGNED.replace("flags=0x10000(runtime)", "flags=0x2(adhoc)")
GRAPHICS = """Graphics/Displays:

    Apple M4 Max:

      Chipset Model: Apple M4 Max
      Type: GPU
      Bus: Built-In
      Total Number of Cores: 40
      Vendor: Apple (0x106b)
      Metal Support: Metal 4
"""
NOTHING = ("", "nonsense", "{", "}\n{")


@pytest.mark.parametrize(
    ("output", "found"),
    [("501 ada\n", Console(501, "ada")), ("0 root\n", Console(0, "root")), ("ada 501\n", None)],
    ids=["a user", "nobody", "the wrong way round"],
)
def test_the_screen_belongs_to_whom_the_system_names(output, found):
    assert measure_console(lambda _: output) == found


def test_who_is_logged_in_at_start_is_read_and_its_absence_told_from_silence():
    assert measure_automatic_login(lambda _: LOGIN_WINDOW) == "ada"
    off = LOGIN_WINDOW.replace("    autoLoginUser = ada;\n", "")
    assert measure_automatic_login(lambda _: off) == ""
    # A value of another key that looks alike, or a key of a nested list, is not that key.
    assert (
        measure_automatic_login(lambda _: off.replace("lastUser =", "        autoLoginUser ="))
        == ""
    )
    assert [measure_automatic_login(lambda _, out=out: out) for out in NOTHING] == [None] * 4


def test_the_idle_time_before_logout_is_read_in_seconds():
    assert measure_auto_logout(lambda _: GLOBAL) == 3600
    assert measure_auto_logout(lambda _: GLOBAL.replace("3600", "0")) == 0
    assert measure_auto_logout(lambda _: LOGIN_WINDOW) == 0
    assert [measure_auto_logout(lambda _, out=out: out) for out in NOTHING] == [None] * 4


def test_a_program_is_hardened_only_where_its_flags_say_so():
    assert measure_hardened(Path("/x"), lambda _: SIGNED) is True
    assert measure_hardened(Path("/x"), lambda _: SIGNED.replace("0x10000(", "0x10002(adhoc,"))
    assert measure_hardened(Path("/x"), lambda _: ADHOC) is False
    assert measure_hardened(Path("/x"), lambda _: "/x: code object is not signed at all\n") is None
    assert measure_hardened(Path("/x"), lambda _: SIGNED + ADHOC) is None


def test_the_gpu_speaks_what_the_system_says():
    assert measure_metal(lambda _: GRAPHICS) == "Metal 4"
    older = GRAPHICS.replace("Metal Support: Metal 4", "Metal: Supported, Metal GPUFamily Apple 7")
    assert measure_metal(lambda _: older) == "Metal GPUFamily Apple 7"
    assert measure_metal(lambda _: "") is None


def test_tools_are_asked_by_their_whole_path():
    asked = []

    def run(command):
        asked.append(command)
        return ""

    for measure in (measure_console, measure_automatic_login, measure_auto_logout, measure_metal):
        measure(run)
    measure_hardened(Path(sys.executable), run)
    assert all(command[0].startswith(("/usr/bin/", "/usr/sbin/")) for command in asked)
    assert asked[-1] == (CODESIGN, "--display", "--verbose=2", sys.executable)
    assert asked[1][-1] == session.LOGIN_WINDOW
