"""What a person sees when a mesh cannot start: one clear message and a code that is not 0."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from darkbloom_local.state import StateDir


def local(
    *arguments: str, environ: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "darkbloom_local", *arguments],
        env={"PATH": os.environ["PATH"]} | (environ or {}),  # noqa: TID251 - a shell for the child
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def complaint(run: subprocess.CompletedProcess[str]) -> str:
    assert run.returncode == 1
    assert "Traceback" not in run.stderr
    return run.stderr


@pytest.mark.parametrize("command", ["up", "demo"])
def test_production_is_refused(tmp_path: Path, command: str) -> None:
    options = ("--state", str(tmp_path)) if command == "up" else ("--cache", str(tmp_path))
    run = local(command, *options, environ={"DARKBLOOM_ENV": "production"})
    assert "development mode only" in complaint(run)


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        run = local("up", "--state", str(tmp_path), "--port", str(port))
    assert f"port {port} is taken" in complaint(run)


def test_a_second_mesh_in_the_same_directory_is_refused(tmp_path: Path) -> None:
    with StateDir(tmp_path).locked():
        run = local("up", "--state", str(tmp_path))
    assert "already runs" in complaint(run)


def test_asking_without_a_mesh_says_how_to_start_one(tmp_path: Path) -> None:
    assert "make run" in complaint(local("ask", "hello", "--state", str(tmp_path)))


def test_bad_arguments_are_told_apart(tmp_path: Path) -> None:
    assert local("up", "--state", str(tmp_path), "--engine", "steam").returncode == 2


def test_an_operator_needs_a_running_mesh(tmp_path: Path) -> None:
    run = local("operator", "ann", "--state", str(tmp_path))
    assert "no mesh runs" in complaint(run)
    assert not run.stdout


@pytest.mark.parametrize("name", ["../ann", "Ann", "", "a" * 33])
def test_an_operators_name_is_never_a_path(tmp_path: Path, name: str) -> None:
    run = local("operator", name, "--state", str(tmp_path))
    assert "a name has small letters" in complaint(run)
