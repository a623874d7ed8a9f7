"""A child is started alone, ended by its pid, and its death is told with the end of its log."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from darkbloom_local.errors import ChildDiedError
from darkbloom_local.process import Child, Command


def toy(tmp_path: Path, code: str, name: str = "toy") -> Child:
    return Child.start(
        Command(
            name=name,
            argv=[sys.executable, "-u", "-c", code],
            env={"PATH": os.defpath},
            log=tmp_path / f"{name}.log",
        )
    )


FOREVER = "import signal; print('up'); signal.pause()"
STUBBORN = "import signal; signal.signal(15, signal.SIG_IGN); print('up')\nwhile 1: signal.pause()"


def is_up(child: Child) -> bool:
    return child.wait_until(lambda: child.log_tail() == ["up"], 20)


def test_a_polite_child_ends_on_its_stop_signal(tmp_path: Path) -> None:
    child = toy(tmp_path, FOREVER)
    assert is_up(child)
    assert child.exit_code is None
    assert child.stop(10) == -signal.SIGTERM


def test_a_stubborn_child_is_killed_after_the_grace(tmp_path: Path) -> None:
    child = toy(tmp_path, STUBBORN)
    assert is_up(child)
    assert child.stop(0.1) == -signal.SIGKILL


def test_stopping_twice_is_harmless(tmp_path: Path) -> None:
    child = toy(tmp_path, "print('up')")
    assert child.stop(10) in (0, -signal.SIGTERM)
    first = child.exit_code
    assert child.stop(10) == first


def test_a_dead_child_is_reported_with_the_end_of_its_log(tmp_path: Path) -> None:
    child = toy(tmp_path, "print('first'); print('the reason'); raise SystemExit(3)")
    with pytest.raises(ChildDiedError, match=r"(?s)toy ended \(exit code 3\).*the reason"):
        child.wait_until(lambda: False, 20)


def test_a_child_that_never_gets_ready_is_told_apart_from_a_dead_one(tmp_path: Path) -> None:
    child = toy(tmp_path, FOREVER)
    assert not child.wait_until(lambda: False, 0.05)
    child.stop(10)


def test_what_a_child_started_is_ended_with_it(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys, signal\n"
        "p = subprocess.Popen([sys.executable, '-c', 'import signal; signal.pause()'])\n"
        "print(p.pid); signal.pause()"
    )
    child = toy(tmp_path, code)
    assert child.wait_until(lambda: bool(child.log_tail()), 20)
    grandchild = psutil.Process(int(child.log_tail()[0]))
    child.kill()
    _, alive = psutil.wait_procs([grandchild], timeout=10)
    assert not [p for p in alive if p.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal is Linux's")
def test_a_child_ends_when_its_supervisor_is_killed(tmp_path: Path) -> None:
    code = (
        "import os, sys, signal\n"
        "from pathlib import Path\n"
        "from darkbloom_local.process import Child, Command\n"
        "child = Child.start(Command(name='toy', env={}, log=Path(sys.argv[1]),\n"
        "    argv=[sys.executable, '-c', 'import signal; signal.pause()']))\n"
        "print(child.pid, flush=True); signal.pause()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "log")], stdout=subprocess.PIPE
    ) as supervisor:
        assert supervisor.stdout is not None
        orphan = psutil.Process(int(supervisor.stdout.readline()))
        supervisor.kill()
    _, alive = psutil.wait_procs([orphan], timeout=10)
    assert not [p for p in alive if p.status() != psutil.STATUS_ZOMBIE]
