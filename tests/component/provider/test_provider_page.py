"""docs/provider.md: its commands exist, its first steps work, its file is valid."""

import re
import shlex
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer
from darkbloom_provider import checks
from darkbloom_provider.cli import make_app, start
from darkbloom_provider.cli.commands import COMMANDS
from darkbloom_provider.settings import load_settings

from tests.component.provider.store import place_folder
from tests.fakes.gateway import FakeGateway

PAGE = Path(__file__).resolve().parents[3] / "docs" / "provider.md"


def block(kind: str) -> str:
    """Return the page's one block of this kind."""
    [found] = re.findall(rf"```{kind}\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return found


def commands() -> list[str]:
    """Return every command that the page names."""
    text = PAGE.read_text()
    named = re.findall(r"`(darkbloom [^`]+)`", text)
    return sorted({*named, *block("sh").splitlines()})


@pytest.mark.parametrize("line", commands())
def test_a_command_of_the_page_exists_with_its_flags(line):
    words = shlex.split(line)[1:]
    at = typer.main.get_command(make_app())
    while words and hasattr(at, "get_command"):
        name = words.pop(0)
        found = at.get_command(None, name)
        if found is None:
            assert name.startswith("-"), f"there is no command {name}"
            return
        at = found
    flags = {flag for one in at.params for flag in (*one.opts, *one.secondary_opts)}
    assert {word for word in words if word.startswith("--")} - {"--help"} <= flags


def test_the_first_steps_lead_from_nothing_to_a_started_service(cli, home, monkeypatch):
    place_folder(home, "org/name")
    started: list[object] = []
    service = SimpleNamespace(start=lambda *given, **_more: started.append(given))
    monkeypatch.setattr(start, "background", lambda: service)
    empty = {"lifetime_micro_usd": 0}
    with FakeGateway().serving() as gateway:
        gateway.answers |= {
            "GET /v1/models/catalog": [(200, {"models": []})],
            "GET /v1/provider/earnings-summary": [(200, empty)],
            "GET /v1/me/insights?days=7": [(200, {"rows": []})],
            "GET /v1/me/earnings?limit=50": [(200, {"earnings": []})],
        }
        codes = {}
        for line in block("sh").splitlines():
            words = shlex.split(line.replace("https://api.example", gateway.url))[1:]
            if words[:2] == ["models", "download"]:
                continue  # It is here; tests/component/provider/test_download.py fetches one.
            code, _, err = cli(*words)
            codes[words[0]] = code
            assert "Traceback" not in err
    # Without an agent, doctor and status say so; everything else works.
    assert codes.pop("doctor") == codes.pop("status") == 1
    assert set(codes.values()) == {0}
    assert len(started) == 1
    assert len(gateway.linked) == 1


def test_the_file_of_the_page_is_valid_and_says_what_the_page_says(tmp_path):
    path = tmp_path / "provider.toml"
    path.write_text(block("toml"))
    found = load_settings({}, path)
    assert (found.problems, found.file.unknown, found.file.retired) == ((), (), ())
    assert found.config.models == ("org/name",)
    assert [str(window) for window in found.windows] == ["mon,tue,wed,thu,fri 22:00-07:00"]


def test_every_check_has_its_place_on_the_page():
    names = set()
    for module in Path(checks.__file__).parent.glob("*.py"):
        text = module.read_text()
        names |= set(re.findall(r'\bname="([a-z ]+)"', text))
    names |= {"debugger", "core dumps", "sip", "secure boot", "authenticated root", "rdma"}
    assert len(names) > 20
    assert {name for name in names if f"`{name}`" not in PAGE.read_text()} == set()


def test_every_command_is_in_the_rooms_readme():
    readme = (PAGE.parents[1] / "provider" / "README.md").read_text()
    told = re.findall(r"^\| (.*?) \|", readme, re.MULTILINE)
    words = {word for cell in told for word in re.findall(r"[a-z-]+", cell)}
    assert {one.name for one in COMMANDS if not one.hidden} <= words
