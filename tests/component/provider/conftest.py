"""A home of its own, and the command line in front of it."""

import os

import pytest
from darkbloom_provider.cli import run
from darkbloom_provider.home import Home


@pytest.fixture
def home(tmp_path, monkeypatch) -> Home:
    for name in [n for n in os.environ if n.startswith("DARKBLOOM_")]:  # noqa: TID251 - made clean
        monkeypatch.delenv(name)
    folder = Home(root=tmp_path / "home")
    folder.create()
    monkeypatch.setenv("DARKBLOOM_PROVIDER_HOME", str(folder.root))
    monkeypatch.setenv("DARKBLOOM_ENV", "development")
    monkeypatch.setenv("COLUMNS", "200")
    return folder


@pytest.fixture
def cli(home, capsys):
    """Run a command and return (exit code, standard output, standard error)."""

    def command(*arguments: str) -> tuple[int, str, str]:
        code = run(list(arguments))
        return code, *capsys.readouterr()

    return command
