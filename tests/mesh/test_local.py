"""`make run` as a person meets it: it answers, says when something dies, and keeps its data."""

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from darkbloom_local.answer import MeshClient
from darkbloom_local.ports import free_ports
from darkbloom_local.state import StateDir

pytestmark = pytest.mark.mesh


class Run:
    """`python -m darkbloom_local up` as a child, its output in a file."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.port = free_ports(1)[0]
        self.output = state.with_suffix(".txt")

    @contextmanager
    def up(self) -> Iterator[psutil.Popen]:
        options = ("--state", str(self.state), "--engine", "scripted", "--port", str(self.port))
        with self.output.open("wb") as output:
            process = psutil.Popen(
                [sys.executable, "-u", "-m", "darkbloom_local", "up", *options],
                env={"PATH": os.environ["PATH"]},  # noqa: TID251 - a shell for the child
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            while process.poll() is None and "Ctrl-C drains" not in self.text:
                with pytest.raises(psutil.TimeoutExpired):
                    process.wait(0.1)
            yield process
        finally:
            if process.poll() is None:
                process.kill()
            process.wait(30)

    @property
    def text(self) -> str:
        return self.output.read_text()

    def ask(self) -> str:
        facts = StateDir(self.state).running()
        client = MeshClient(str(facts["url"]), Path(facts["api_key_file"]).read_text())
        try:
            answer = client.ask("hello", model="scripted", max_tokens=4)
            assert client.verify(answer).ok
            return answer.text
        finally:
            client.close()

    def budgets(self) -> list[dict[str, Any]]:
        """Ask `darkbloom-admin` as somebody who has just become an operator."""
        command = [sys.executable, "-m", "darkbloom_local", "operator", "ann"]
        script = f'eval "$({shlex.join([*command, "--state", str(self.state)])})" && exec "$0" "$@"'
        admin = str(Path(sys.executable).with_name("darkbloom-admin"))
        run = subprocess.run(
            ["sh", "-c", script, admin, "budgets", "list", "--json"],
            env={"PATH": os.environ["PATH"]},  # noqa: TID251 - a shell for the child
            stdout=subprocess.PIPE,
            timeout=60,
            check=True,
        )
        found: list[dict[str, Any]] = json.loads(run.stdout)["budgets"]
        return found


def descendants(process: psutil.Popen) -> list[psutil.Process]:
    return process.children(recursive=True)


def gone(processes: list[psutil.Process]) -> bool:
    _, alive = psutil.wait_procs(processes, timeout=30)
    return not [one for one in alive if one.status() != psutil.STATUS_ZOMBIE]


def test_it_answers_drains_on_ctrl_c_and_finds_its_data_again(tmp_path: Path) -> None:
    run = Run(tmp_path / "state")
    with run.up() as first:
        assert run.ask()
        assert {row["name"] for row in run.budgets()} >= {"promo", "invite"}
        children = descendants(first)
        first.send_signal(signal.SIGINT)
        assert first.wait(60) == 0
        assert gone(children)
    key = (run.state / "keys/api-key").read_text()
    assert "DEVELOPMENT MODE" in run.text

    with run.up() as second:
        assert run.ask()
        second.send_signal(signal.SIGTERM)
        assert second.wait(60) == 0
    assert (run.state / "keys/api-key").read_text() == key


def test_a_dead_child_ends_it_with_the_end_of_its_log(tmp_path: Path) -> None:
    run = Run(tmp_path / "state")
    with run.up() as process:
        children = descendants(process)
        os.kill(StateDir(run.state).running()["processes"]["router"], signal.SIGKILL)
        assert process.wait(60) == 1
        assert gone(children)
    assert "router ended (killed by SIGKILL)" in run.text
    assert "Traceback" not in run.text


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal is Linux's")
def test_nothing_survives_its_own_kill_9_and_the_next_run_starts(tmp_path: Path) -> None:
    run = Run(tmp_path / "state")
    with run.up() as process:
        children = descendants(process)
        process.kill()
        process.wait(30)
        assert gone(children)
    with run.up() as again:
        assert run.ask()
        again.send_signal(signal.SIGINT)
        assert again.wait(60) == 0
