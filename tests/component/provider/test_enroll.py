"""`darkbloom enroll` says what a profile may do before it opens it, and refuses some."""

import plistlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from darkbloom_edge.apple.enrolment import EnrolmentSettings, enrolment_profile
from darkbloom_provider.account import AccountError
from darkbloom_provider.cli import run
from darkbloom_provider.cli.enroll import EnrolmentError, enroll_with
from darkbloom_provider.config import ProviderConfig

SETTINGS = EnrolmentSettings(
    base_url="https://mdm.example.org",
    push_topic="com.apple.mgmt.External.9d7d6bc4-6f2a-4b2e-9a0d-0f8f6f1b1c55",
)
PROFILE = enrolment_profile(SETTINGS, bytes(16))
FREE = "Enrolled via DEP: No\nMDM enrollment: No\n"


class Mac:
    """A Mac whose tools were asked."""

    def __init__(self, home: Path, enrolment: str = FREE) -> None:
        self.config = ProviderConfig(home=home, gateway="https://api.example.org")
        self.enrolment = enrolment
        self.ran: list[tuple[str, ...]] = []
        self.said: list[str] = []

    def run(self, command: tuple[str, ...]) -> str:
        self.ran.append(command)
        return self.enrolment if command[0] == "/usr/bin/profiles" else ""

    def enroll(self, profile: bytes = PROFILE, **options: Any) -> None:
        enroll_with(
            self.config,
            self.said.append,
            **{
                "open_it": True,
                "platform": "darwin",
                "run": self.run,
                "fetch": lambda _: profile,
                **options,
            },
        )


@pytest.fixture
def mac(tmp_path: Path) -> Mac:
    return Mac(tmp_path / "home")


def test_a_profile_is_described_saved_and_opened(mac: Mac) -> None:
    mac.enroll()
    path = mac.config.folders.root / "Darkbloom-Enroll.mobileconfig"
    assert path.read_bytes() == PROFILE
    assert mac.said[0] == "This profile lets mdm.example.org:"
    assert "It cannot install, change, lock or erase anything." in mac.said
    assert mac.ran[-1] == ("/usr/bin/open", str(path))


def test_without_opening_it_is_only_saved(mac: Mac) -> None:
    mac.enroll(open_it=False)
    assert all(command[0] != "/usr/bin/open" for command in mac.ran)


def test_a_managed_mac_is_left_alone(tmp_path: Path) -> None:
    mac = Mac(tmp_path, "Enrolled via DEP: No\nMDM enrollment: Yes (User Approved)\n")
    with pytest.raises(EnrolmentError, match="managed already"):
        mac.enroll()
    assert mac.said == []


def edited(edit: Callable[[dict[str, Any]], object]) -> bytes:
    profile = plistlib.loads(PROFILE)
    edit(profile)
    return plistlib.dumps(profile)


def mdm(profile: dict[str, Any]) -> dict[str, Any]:
    return next(p for p in profile["PayloadContent"] if p["PayloadType"] == "com.apple.mdm")


@pytest.mark.parametrize(
    "profile",
    [
        b"",
        b"<html>",
        edited(lambda p: p.update(PayloadType="Other")),
        edited(lambda p: p["PayloadContent"].append({"PayloadType": "com.apple.vpn.managed"})),
        edited(lambda p: p["PayloadContent"].append(dict(p["PayloadContent"][0]))),
        edited(lambda p: p["PayloadContent"].pop()),
        edited(lambda p: mdm(p).update(AccessRights=8191)),
        edited(lambda p: mdm(p).update(AccessRights="1041")),
        edited(lambda p: mdm(p).update(ServerURL="https://evil.example/mdm")),
        edited(lambda p: mdm(p).update(ServerURL="http://mdm.example.org/mdm/connect")),
        edited(lambda p: mdm(p).update(ServerURL="https://x@mdm.example.org/mdm/connect")),
        edited(lambda p: mdm(p).pop("CheckInURL")),
        edited(lambda p: p["PayloadContent"][0].update(PayloadContent="x")),
    ],
)
def test_a_profile_that_does_more_than_ask_is_never_opened(mac: Mac, profile: bytes) -> None:
    with pytest.raises(EnrolmentError, match="is refused"):
        mac.enroll(profile)
    assert all(command[0] != "/usr/bin/open" for command in mac.ran)
    assert not (mac.config.folders.root / "Darkbloom-Enroll.mobileconfig").exists()


def test_without_a_gateway_there_is_nobody_to_ask(mac: Mac) -> None:
    mac.config = ProviderConfig(home=mac.config.home)
    with pytest.raises(AccountError, match="no gateway"):
        mac.enroll()


def test_off_a_mac_it_says_why_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DARKBLOOM_PROVIDER_HOME", str(tmp_path))
    monkeypatch.setattr("sys.platform", "linux")
    for command in ("enroll", "unenroll"):
        assert run([command]) == 1
        assert "nothing to enrol" in capsys.readouterr().err


def test_a_gateway_that_is_not_there_is_told_plainly(mac: Mac) -> None:
    mac.config = ProviderConfig(home=mac.config.home, gateway="http://127.0.0.1:9")
    with pytest.raises(AccountError, match="does not answer"):
        mac.enroll(fetch=None)
