"""The house keeps its own rules: no index host, one version, complete tables, sound scripts."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PLACES = ("protos", "services/*", "provider", "deploy/local", "clients/python")
PROJECTS = sorted(path for place in PLACES for path in ROOT.glob(f"{place}/pyproject.toml"))


def tracked() -> list[Path]:
    listing = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True
    )
    return [ROOT / name for name in listing.stdout.split("\0") if name]


def test_no_committed_file_names_an_index_host() -> None:
    hosts = re.compile(rb"pypi\.org|pythonhosted|index-url\s*=|https?://[^ \"']*/simple\b")
    named = [
        path
        for path in tracked()
        if path.is_file() and path != Path(__file__) and hosts.search(path.read_bytes())
    ]
    assert named == []


def test_no_committed_file_has_the_marks_of_a_conflict() -> None:
    marks = re.compile(rb"^(<<<<<<<|>>>>>>>) ", re.MULTILINE)
    marked = [path for path in tracked() if path.is_file() and marks.search(path.read_bytes())]
    assert marked == []


def test_every_room_has_the_same_version_and_cannot_be_published() -> None:
    projects = [tomllib.loads(path.read_text())["project"] for path in PROJECTS]
    assert len({project["version"] for project in projects}) == 1
    assert all("Private :: Do Not Upload" in project["classifiers"] for project in projects)


def test_every_room_is_installed_for_development() -> None:
    wanted = (ROOT / "requirements-dev.txt").read_text()
    for path in PROJECTS:
        assert f"-e ./{path.parent.relative_to(ROOT)}" in wanted


def test_every_runtime_dependency_has_its_line_among_the_decisions() -> None:
    page = (ROOT / "docs/adr/0006-dependencies.md").read_text()
    listed = set(re.findall(r"`([a-z0-9-]+)(?:\[[a-z,]+\])?`", page))
    # `grpcio`, `-health-checking` and the like share a row.
    families = {name.split("-")[0] for name in re.findall(r"`([a-z]+)-\*`", page)}
    for path in PROJECTS:
        for requirement in tomllib.loads(path.read_text())["project"]["dependencies"]:
            name = re.split(r"[^a-zA-Z0-9-]", requirement)[0].lower()
            if name.startswith("darkbloom-") or name.split("-")[0] in families:
                continue
            assert name in listed or f"-{name.split('-', 1)[-1]}" in listed, requirement


@pytest.mark.parametrize("page", sorted((ROOT / "docs/adr").glob("0*.md")), ids=lambda p: p.stem)
def test_every_decision_says_what_would_change_our_mind(page: Path) -> None:
    text = page.read_text()
    assert page.name in (ROOT / "docs/adr/README.md").read_text()
    assert "\n## " in text
    if page.stem != "0006-dependencies":
        for heading in ("Context", "Options", "Decision", "What would change our mind"):
            assert f"\n## {heading}\n" in text


@pytest.mark.tool("shellcheck")
@pytest.mark.parametrize("script", ["run", "tools"])
def test_shell_scripts_are_sound(script: str) -> None:
    check = subprocess.run(
        ["shellcheck", str(ROOT / ".ci" / script)], capture_output=True, text=True, check=False
    )
    assert check.returncode == 0, check.stdout
