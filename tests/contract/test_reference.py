"""Generated pages say what the code says, and pages with numbers say what the code computes."""

import re
from pathlib import Path

import pytest
from darkbloom_edge.memory import GIB, Memory, fits

from tools.reference.__main__ import PAGES, ROOT
from tools.reference.llms import SERVED
from tools.reference.machines import MODELS, RESERVE_GB

DRAFTS = sorted((ROOT / "docs/legal").glob("*.md"))


@pytest.mark.parametrize("name", PAGES)
def test_a_generated_page_is_fresh(name: str) -> None:
    assert (ROOT / name).read_text() == PAGES[name](), "run make reference"


def test_the_map_for_programs_follows_its_convention() -> None:
    lines = (ROOT / "llms.txt").read_text().splitlines()

    assert re.fullmatch(r"# \S.*", lines[0])
    assert lines[2].startswith("> ")
    sections = [line for line in lines if line.startswith("#")][1:]
    assert sections[-1] == "## Optional"
    assert all(line.startswith("## ") for line in sections)
    listed = [line for line in lines[lines.index(sections[0]) :] if line and line[0] != "#"]
    assert all(re.fullmatch(r"- \[[^\]]+\]\([^)\s]+\): \S.*", line) for line in listed)


def test_every_page_that_a_gateway_serves_is_whole() -> None:
    text = (ROOT / "services/gateway/darkbloom_gateway/pages/llms-full.txt").read_text()

    for name in SERVED:
        assert (ROOT / "docs" / name).read_text().rstrip("\n") in text


def test_the_page_for_providers_names_what_fits() -> None:
    page = (ROOT / "docs/hardware.md").read_text()
    rows = re.findall(r"^\| (\d+) \| (.+) \|$", page, re.MULTILINE)

    assert len(rows) > 5
    for size, said in rows:
        memory = Memory(
            physical=int(size) * GIB, available=int(size) * GIB, reserve=RESERVE_GB * GIB
        )
        fitting = [name for name, weight in MODELS if fits(weight * GIB // 100, memory)]
        assert said == (fitting[-1] if fitting else "none"), size


@pytest.mark.parametrize("page", DRAFTS, ids=lambda page: page.stem)
def test_every_legal_page_says_that_it_is_a_draft(page: Path) -> None:
    assert "**DRAFT. Not legal advice, not in force.**" in page.read_text()[:300]


@pytest.mark.parametrize("page", ["privacy.md"])
def test_how_long_things_are_kept_is_what_the_settings_say(page: str) -> None:
    said = re.findall(
        r"\| (\d+) (days|hours?) \(`(DARKBLOOM_[A-Z_]+)`\)", (ROOT / "docs" / page).read_text()
    )
    settings = (ROOT / "docs/reference/settings.md").read_text()

    assert len(said) >= 4
    for number, unit, name in said:
        (default,) = re.findall(rf"^\| `{name}` \|[^|]*\| `([0-9.]+)` \|", settings, re.MULTILINE)
        scale = 3600 if name.endswith("_S") else 1
        assert float(default) == float(number) * (scale if unit.startswith("hour") else 1), name
