"""What launchd and systemd are given, up to the system call."""

import plistlib
import shutil
import subprocess
from pathlib import Path

import pytest
from darkbloom_provider.home import Home
from darkbloom_provider.service.errors import ServiceError
from darkbloom_provider.service.launchd import Launchd, property_list
from darkbloom_provider.service.manager import manager_here
from darkbloom_provider.service.plan import (
    PROVIDER_LABEL,
    WATCHDOG_LABEL,
    provider_plan,
    watchdog_plan,
)
from darkbloom_provider.service.program import program_here
from darkbloom_provider.service.running import Done, run_tool
from darkbloom_provider.service.systemd import Systemd, unit_text


class Recorded:
    """Keeps every command and answers from a list."""

    def __init__(self, *answers: Done) -> None:
        self.commands: list[tuple[str, ...]] = []
        self._answers = list(answers)

    def __call__(self, command) -> Done:
        self.commands.append(tuple(command))
        return self._answers.pop(0) if self._answers else Done(0)

    @property
    def verbs(self) -> list[str]:
        return [command[1] for command in self.commands]


def plan(tmp_path: Path, *arguments: str, **environment: str):
    home = Home(root=tmp_path / "my home %n $X")
    python = tmp_path / "python"
    python.write_text("")
    python.chmod(0o700)
    program = program_here(home.app, python)
    return provider_plan(home, program, environment, arguments)


def test_a_property_list_says_what_launchd_must_do_and_survives_the_round_trip(tmp_path):
    made = plan(tmp_path, "--model", "org/a&b", DARKBLOOM_ENV="production", PATH="/bin")

    found = plistlib.loads(property_list(made))

    assert found["Label"] == PROVIDER_LABEL
    assert found["ProgramArguments"][1:] == [
        *("-I", "-B", "-m", "darkbloom_provider", "start", "--foreground"),
        *("--model", "org/a&b"),
    ]
    assert found["RunAtLoad"] is True
    assert found["KeepAlive"] is False
    assert found["ExitTimeOut"] == 3660
    assert found["Umask"] == 0o077
    assert found["StandardErrorPath"] == str(tmp_path / "my home %n $X" / "provider.log")
    assert found["EnvironmentVariables"] == {
        "DARKBLOOM_ENV": "production",
        "DARKBLOOM_PROVIDER_DRAIN_GRACE_S": "600",
        "DARKBLOOM_PROVIDER_HOME": str(tmp_path / "my home %n $X"),
    }


def test_what_belongs_to_one_process_stays_behind_and_the_owners_grace_wins(tmp_path):
    made = plan(
        tmp_path,
        DARKBLOOM_PROVIDER_LAUNCHER_FD="9",
        DARKBLOOM_PROVIDER_READY_FILE="/x",
        DARKBLOOM_PROVIDER_DRAIN_GRACE_S="7",
        DARKBLOOM_PROVIDER_NAME="",
    )

    assert set(made.environment) == {
        "DARKBLOOM_PROVIDER_DRAIN_GRACE_S",
        "DARKBLOOM_PROVIDER_HOME",
    }
    assert made.environment["DARKBLOOM_PROVIDER_DRAIN_GRACE_S"] == "7"


def test_the_watchdog_is_kept_alive_by_the_manager_itself(tmp_path):
    home = Home(root=tmp_path)
    made = watchdog_plan(home, program_here(home.app, tmp_path / "python"), {})

    assert plistlib.loads(property_list(made))["KeepAlive"] is True
    assert "Restart=always" in unit_text(made)
    assert made.arguments[-1] == "watchdog"


@pytest.mark.parametrize("inhibitor", [None, "/bin/true"])
def test_systemd_takes_the_unit(tmp_path, inhibitor):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze on this machine")
    made = plan(tmp_path, "--model", 'a "quoted" \\ $HOME %i', DARKBLOOM_PROVIDER_NAME="50% $A")
    unit = tmp_path / f"{PROVIDER_LABEL}.service"
    unit.write_text(unit_text(made, inhibitor))

    done = subprocess.run(
        ["systemd-analyze", "verify", "--user", "--man=no", str(unit)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)},
    )

    # Other units of this system may have faults of their own.
    assert PROVIDER_LABEL not in done.stderr + done.stdout
    assert done.returncode == 0


def test_a_unit_quotes_what_systemd_would_expand(tmp_path):
    text = unit_text(plan(tmp_path, "$HOME", DARKBLOOM_PROVIDER_NAME='a"b%c\\'))

    assert '"$$HOME"' in text
    assert 'Environment="DARKBLOOM_PROVIDER_NAME=a\\"b%%c\\\\"' in text
    assert f"append:{tmp_path}/my home %%n $X/provider.log" in text


def test_a_line_break_cannot_smuggle_a_line_into_a_unit(tmp_path):
    with pytest.raises(ServiceError, match="line break"):
        unit_text(plan(tmp_path, "a\nExecStartPre=/bin/false"))


def test_launchd_waits_until_an_old_definition_is_gone(tmp_path):
    loaded, gone = Done(0), Done(113)
    run = Recorded(loaded, Done(0), loaded, loaded, gone)
    pauses: list[float] = []
    manager = Launchd(run, agents=tmp_path / "agents", uid=501, sleep=pauses.append)

    path = manager.install(plan(tmp_path))

    assert run.verbs == ["print", "bootout", "print", "print", "print", "enable"]
    assert run.commands[1] == ("/bin/launchctl", "bootout", f"gui/501/{PROVIDER_LABEL}")
    assert pauses == [0.1, 0.1]
    assert path.stat().st_mode & 0o777 == 0o600
    assert manager.installed(PROVIDER_LABEL)


def test_launchd_that_does_not_let_go_is_an_error_with_a_bound(tmp_path):
    waited: list[float] = []
    manager = Launchd(Recorded(), agents=tmp_path, uid=501, sleep=waited.append)

    with pytest.raises(ServiceError, match="has not let go"):
        manager.stop(PROVIDER_LABEL)
    assert sum(waited) == pytest.approx(10)


def test_launchd_loads_what_is_not_loaded_and_kicks_what_is(tmp_path):
    run = Recorded(Done(0), Done(113), Done(0), Done(0), Done(0), Done(0))
    manager = Launchd(run, agents=tmp_path, uid=501)

    manager.start(PROVIDER_LABEL)
    manager.start(PROVIDER_LABEL)

    assert run.verbs == ["enable", "print", "bootstrap", "enable", "print", "kickstart"]
    assert run.commands[2][2:] == ("gui/501", str(tmp_path / f"{PROVIDER_LABEL}.plist"))


def test_a_refusal_of_launchd_is_told_with_its_last_line(tmp_path):
    manager = Launchd(
        Recorded(Done(5, errors="x\nBootstrap failed: 5: Input/output error\n")),
        agents=tmp_path,
        uid=501,
    )

    with pytest.raises(ServiceError, match="Bootstrap failed: 5"):
        manager.start(PROVIDER_LABEL)


def test_launchd_knows_a_running_program_by_its_own_word(tmp_path):
    run = Recorded(Done(0, "\tstate = running\n"), Done(0, "\tstate = not running\n"), Done(113))
    manager = Launchd(run, agents=tmp_path, uid=501)

    assert [manager.running(PROVIDER_LABEL) for _ in range(3)] == [True, False, False]


def test_systemd_installs_starts_stops_and_forgets(tmp_path):
    run = Recorded()
    manager = Systemd(run, units=tmp_path / "units", which=lambda _: "/usr/bin/systemd-inhibit")

    path = manager.install(plan(tmp_path))
    manager.start(PROVIDER_LABEL)
    assert manager.running(PROVIDER_LABEL)
    manager.uninstall(PROVIDER_LABEL)
    manager.uninstall(WATCHDOG_LABEL)

    unit = f"{PROVIDER_LABEL}.service"
    assert [command[3:] for command in run.commands] == [
        ("daemon-reload",),
        ("enable", unit),
        ("enable", unit),
        ("start", unit),
        ("is-active", "--quiet", unit),
        ("disable", "--now", unit),
        ("daemon-reload",),
    ]
    assert not path.exists()


def test_a_machine_without_a_user_session_is_told_what_to_do(tmp_path):
    manager = Systemd(
        Recorded(Done(1, errors="Failed to connect to bus: No medium found")),
        units=tmp_path,
    )

    with pytest.raises(ServiceError, match="No medium found") as caught:
        manager.start(PROVIDER_LABEL)
    assert "--foreground" in caught.value.remedy


def test_other_systems_have_no_background_service():
    with pytest.raises(ServiceError, match="plan9"):
        manager_here(platform="plan9")


def test_a_tool_that_is_not_there_fails_like_one_that_refuses():
    assert not run_tool(("/nowhere/tool",)).ok
    assert run_tool(("/bin/echo", "hello")) == Done(0, "hello\n")


def test_an_installation_of_updates_is_started_through_its_link(tmp_path):
    app = tmp_path / "app"
    python = app / "versions" / "1.2.3" / "bin" / "python3"
    python.parent.mkdir(parents=True)
    python.touch()
    (app / "current").symlink_to("versions/1.2.3")

    assert program_here(app, python).command[0] == str(app / "current" / "bin" / "python3")
    assert program_here(app, tmp_path / "python3").command[0] == str(tmp_path / "python3")


def test_only_the_launcher_starts_the_agent_of_a_signed_application(tmp_path):
    bundle = tmp_path / "Darkbloom Provider.app"
    launcher = bundle / "Contents" / "MacOS" / "DarkbloomLauncher"
    python = bundle.joinpath("Contents", "Helpers", "DarkbloomPython.app", "Contents", "MacOS", "p")
    for file in (launcher, python):
        file.parent.mkdir(parents=True)
        file.touch()

    program = program_here(tmp_path / "app", python)

    assert program.agent == (str(launcher),)
    assert program.command == (str(python), "-I", "-B", "-m", "darkbloom_provider")
