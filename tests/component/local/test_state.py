"""The state directory is held by one mesh, keeps its secrets closed and notices a full disk."""

import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from darkbloom_local import leftovers
from darkbloom_local.errors import DiskFullError, LocalError, PortTakenError, StateInUseError
from darkbloom_local.ports import free_ports, is_free, require_free
from darkbloom_local.process import Child, Command
from darkbloom_local.state import StateDir


def test_two_meshes_cannot_share_a_directory(tmp_path: Path) -> None:
    second = StateDir(tmp_path).locked()
    with StateDir(tmp_path).locked(), pytest.raises(StateInUseError), second:
        pass


def test_the_lock_is_free_again_afterwards(tmp_path: Path) -> None:
    for _ in range(2):
        with StateDir(tmp_path).locked():
            pass


def test_a_place_that_cannot_be_written_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LocalError, match="cannot write"), StateDir(tmp_path / "file").locked():
        pass


def test_a_secret_is_made_once_and_closed_to_others(tmp_path: Path) -> None:
    state = StateDir(tmp_path)
    first = state.secret("token", lambda: "one")
    assert state.secret("token", lambda: "two").read_text() == "one"
    assert stat.S_IMODE(first.stat().st_mode) == 0o600
    assert stat.S_IMODE(first.parent.stat().st_mode) == 0o700


def test_a_full_disk_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(DiskFullError, match="GB free"):
        StateDir(tmp_path).require_space(1 << 60)


def test_nobody_runs_in_a_fresh_directory(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match="no mesh runs"):
        StateDir(tmp_path).running()


@pytest.mark.parametrize("text", ["", "[]", "{", '{"pid": "x"}', '{"url": 1}'])
def test_a_broken_announcement_is_not_a_crash(tmp_path: Path, text: str) -> None:
    (tmp_path / "mesh.json").write_text(text)
    with pytest.raises(LocalError):
        StateDir(tmp_path).running()


def test_what_is_announced_is_found(tmp_path: Path) -> None:
    state = StateDir(tmp_path)
    state.announce({"pid": os.getpid(), "url": "http://127.0.0.1:1"})
    assert state.running()["url"] == "http://127.0.0.1:1"
    state.retract()
    with pytest.raises(LocalError):
        state.running()


def test_chosen_ports_differ_and_are_free() -> None:
    ports = free_ports(20)
    assert len(set(ports)) == 20
    assert all(is_free(port) for port in ports)


def test_a_taken_port_is_a_clear_error() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(PortTakenError, match="is taken"):
            require_free(other.getsockname()[1])


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_what_is_no_port_is_a_clear_error(port: int) -> None:
    with pytest.raises(PortTakenError, match="is not a port"):
        require_free(port)


def test_processes_of_a_killed_run_are_ended_by_the_next(tmp_path: Path) -> None:
    orphan = Child.start(
        Command(
            name="orphan",
            argv=[sys.executable, "-c", "import signal; signal.pause()"],
            env={},
            log=tmp_path / "log",
        )
    )
    leftovers.record(tmp_path / "children.json", [orphan])
    assert leftovers.end(tmp_path / "children.json") == 1
    assert orphan.exit_code is not None
    assert leftovers.end(tmp_path / "children.json") == 0


def test_a_stranger_with_a_reused_pid_is_left_alone(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"]) as stranger:
        created = psutil.Process(stranger.pid).create_time()
        (tmp_path / "children.json").write_text(f"[[{stranger.pid}, {created - 100}]]")
        assert leftovers.end(tmp_path / "children.json") == 0
        assert stranger.poll() is None
        stranger.kill()
