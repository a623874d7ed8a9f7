"""What a person sees at 80 columns, and what a pipe gets instead."""

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from datetime import timedelta

import pytest
from darkbloom_mesh.testing import EPOCH, FakeClock
from darkbloom_provider.cli import banner

from tests.fakes.gateway import FakeGateway

_CODES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


def in_terminal(*arguments: str, **environment: str) -> str:
    """Run the program on a terminal of 80 columns and return all that it shows."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    inherited = {"PATH": os.environ["PATH"], "TERM": "xterm-256color"}  # noqa: TID251 - a real child
    child = subprocess.Popen(
        [sys.executable, "-m", "darkbloom_provider", *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**inherited, **environment},
    )
    os.close(theirs)
    shown = bytearray()
    try:
        while piece := os.read(ours, 4096):
            shown += piece
    except OSError:  # Linux says so when the other end is closed.
        pass
    finally:
        os.close(ours)
        child.wait(timeout=60)
    return shown.decode().replace("\r", "")


def test_help_and_status_fit_a_terminal_of_eighty_columns(home):
    with FakeGateway().serving() as gateway:
        gateway.latest = "9.0.0"
        environment = {
            "DARKBLOOM_ENV": "development",
            "DARKBLOOM_PROVIDER_HOME": str(home.root),
            "DARKBLOOM_PROVIDER_GATEWAY": gateway.url,
        }
        shown = in_terminal("start", "--help")
        status = in_terminal("status", **environment)
        again = in_terminal("identity", **environment, DARKBLOOM_NO_UPDATE_CHECK="1")
    plain = _CODES.sub("", shown)
    assert shown != plain, "a terminal gets colours"
    assert max(map(len, plain.splitlines())) <= 80
    assert "serve, and what to do with memory while nobody asks; the answers" in plain
    assert "has not run here yet" in status
    assert "darkbloom 9.0.0 is out" in status
    assert "is out" not in again


def test_a_pipe_gets_neither_colours_nor_boxes_nor_the_banner(cli, home, monkeypatch):
    with FakeGateway().serving() as gateway:
        gateway.latest = "9.0.0"
        monkeypatch.setenv("DARKBLOOM_PROVIDER_GATEWAY", gateway.url)
        for arguments in (("--help",), ("start", "--help"), ("status",), ("fly",)):
            _, out, err = cli(*arguments)
            assert not re.search(r"[\x1b│╭]", out + err)
            assert "is out" not in err
        assert gateway.calls == []


@pytest.fixture
def gateway(home):
    with FakeGateway().serving() as found:
        found.latest = "2.0.0"
        yield found


def test_a_release_is_asked_for_once_in_six_hours(home, gateway):
    clock = FakeClock(EPOCH)
    environ = {
        "DARKBLOOM_ENV": "development",
        "DARKBLOOM_PROVIDER_HOME": str(home.root),
        "DARKBLOOM_PROVIDER_GATEWAY": gateway.url,
    }
    assert [banner.newest(environ, None, clock) for _ in range(2)] == ["2.0.0", "2.0.0"]
    assert len(gateway.calls) == 1
    clock.jump(banner.AGAIN_AFTER / timedelta(seconds=1))
    gateway.latest = "\x1b[31mevil"
    assert banner.newest(environ, None, clock) == ""
    assert len(gateway.calls) == 2
    remembered = home.root / banner.FILE_NAME
    remembered.write_text(json.dumps({"at": "never", "version": 3}))
    gateway.latest = "2.1.0"
    assert banner.newest(environ, None, clock) == "2.1.0"


def test_nobody_to_ask_is_no_reason_to_wait(home, gateway):
    clock = FakeClock(EPOCH)
    environ = {"DARKBLOOM_ENV": "development", "DARKBLOOM_PROVIDER_HOME": str(home.root)}
    assert banner.newest(environ, None, clock) == ""
    assert banner.newest({"DARKBLOOM_PROVIDER_NOPE": "1"}, None, clock) == ""
    environ["DARKBLOOM_PROVIDER_GATEWAY"] = "http://127.0.0.1:1"
    assert banner.newest(environ, None, clock) == ""
