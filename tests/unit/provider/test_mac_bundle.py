"""The Swift side cannot run here; what both sides must agree on is at least compared."""

import plistlib
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from darkbloom_edge import device_statement
from darkbloom_edge.device_statement import DeviceStatement
from darkbloom_provider.mac import launcher
from darkbloom_provider.mac.frames import MAX_MESSAGE_BYTES

MACOS = Path(__file__).parents[3] / "deploy" / "macos"
SWIFT = "\n".join(path.read_text() for path in sorted(MACOS.rglob("*.swift")))


def plist(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = plistlib.loads((MACOS / "bundle" / name).read_bytes())
    return loaded


def test_the_launcher_refuses_only_with_words_that_the_agent_knows() -> None:
    words = set(re.findall(r'refuse\("([a-z_]+)"\)', SWIFT))
    words |= set(re.findall(r'case \w+ = "([a-z_]+)"', SWIFT))
    assert words == launcher.REFUSALS


def test_both_sides_speak_the_same_version_in_the_same_bounds() -> None:
    assert f"protocolVersion = {launcher.PROTOCOL}\n" in SWIFT
    assert f"maxBytes = {MAX_MESSAGE_BYTES:_}\n" in SWIFT


def test_both_sides_sign_under_the_same_domains() -> None:
    assert f'domain("{launcher.BIND_KIND}")' in SWIFT
    assert f'domain("{device_statement.KIND}")' in SWIFT
    commitment = device_statement._COMMITMENT.decode().replace("\0", "\\0")
    assert commitment in SWIFT


def test_the_launcher_says_each_field_of_a_statement_and_no_other() -> None:
    fields = re.search(r"let fields: \[String: Any\] = \[(.*?)\n        \]", SWIFT, re.DOTALL)
    assert fields is not None
    assert set(re.findall(r'"(\w+)":', fields[1])) == set(DeviceStatement.__struct_fields__)


def test_the_programs_may_do_no_more_than_they_need() -> None:
    application, python = plist("launcher.entitlements"), plist("python.entitlements")
    for entitlements in (application, python):
        risky = [name for name in entitlements if name.startswith("com.apple.security.")]
        assert risky == []
    assert set(python) == {
        "com.apple.application-identifier",
        "com.apple.developer.team-identifier",
        "keychain-access-groups",
    }
    assert python["keychain-access-groups"] == ["@TEAM_ID@.io.darkbloom.provider"]
    assert application["com.apple.developer.aps-environment"] == "production"


def test_the_bundles_are_who_the_launcher_takes_them_for() -> None:
    assert plist("Info.plist")["CFBundleIdentifier"] == "io.darkbloom.provider"
    python = plist("Python-Info.plist")["CFBundleIdentifier"]
    assert f'identifier = "{python}"' in SWIFT
    agent = plist("io.darkbloom.provider.plist")
    assert agent["Label"] == "io.darkbloom.provider"
    assert agent["HardResourceLimits"] == {"Core": 0}


@pytest.mark.parametrize("environment", [{}, {"TEAM_ID": "x"}])
def test_the_build_refuses_to_begin_without_what_it_needs(environment: dict[str, str]) -> None:
    done = subprocess.run(
        ["sh", str(MACOS / "build.sh"), "1.2.3"],
        env={"PATH": "/usr/bin:/bin", **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 64
    assert "is not set" in done.stderr


@pytest.mark.tool("shellcheck")
@pytest.mark.parametrize("script", ["build.sh", "publish.sh"])
def test_the_scripts_are_sound(script: str) -> None:
    done = subprocess.run(
        ["shellcheck", str(MACOS / script)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
