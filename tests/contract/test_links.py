"""Every link in every page leads somewhere, and every page of docs/ can be reached."""

import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).resolve().parents[2]
START = ROOT / "docs/README.md"
_CODE = re.compile(r"^(```|~~~).*?^\1[^\n]*$", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"(`+)(?!`).*?(?<!`)\1(?!`)", re.DOTALL)
_LINK = re.compile(
    r"\[(?:[^\[\]]|\[[^\]]*\])*\]\(\s*<?([^()\s>]+(?:\([^()\s]*\))?)>?(?:\s+\"[^\"]*\")?\s*\)"
)
_HEADING = re.compile(r"^#{1,6}\s+(.+?)\s*#*$", re.MULTILINE)
_ANCHOR = re.compile(r"<a (?:id|name)=\"([^\"]+)\"")


def tracked() -> list[Path]:
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
        text=True,
    )
    found = (ROOT / name for name in listing.stdout.split("\0") if name)
    return sorted({path for path in found if path.exists()})


PAGES = [path for path in tracked() if path.suffix == ".md" or path.name == "llms.txt"]


@cache
def prose(page: Path) -> str:
    """Return a page without its blocks of code."""
    return _CODE.sub("", page.read_text())


@cache
def links(page: Path) -> list[str]:
    return _LINK.findall(_SPAN.sub("`code`", prose(page)))


def slug(heading: str) -> str:
    """Return the anchor of a heading as GitHub makes it."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


@cache
def anchors(page: Path) -> frozenset[str]:
    seen: dict[str, int] = {}
    found = set(_ANCHOR.findall(page.read_text()))
    for heading in _HEADING.findall(prose(page)):
        name = slug(heading)
        count = seen.get(name, 0)
        seen[name] = count + 1
        found.add(f"{name}-{count}" if count else name)
    return frozenset(found)


def faults(page: Path) -> Iterator[str]:
    for link in links(page):
        parts = urlsplit(link)
        if parts.scheme in {"http", "https"}:
            if not parts.hostname or " " in link:
                yield f"{link}: no address"
            continue
        if parts.scheme:
            if parts.scheme != "mailto":
                yield f"{link}: unknown scheme"
            continue
        target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
        if page.name == "llms.txt" and page.parent != ROOT:
            target = ROOT / "docs" / Path(parts.path).name
        if not target.exists():
            yield f"{link}: nothing there"
        elif target != page and not target.is_relative_to(ROOT):
            yield f"{link}: leaves the repository"
        elif parts.fragment and target.suffix == ".md" and parts.fragment not in anchors(target):
            yield f"{link}: no such heading"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    assert list(faults(page)) == []


def test_every_page_of_the_documentation_can_be_reached_from_its_index() -> None:
    reached, waiting = {START}, [START]
    while waiting:
        page = waiting.pop()
        for link in links(page):
            path = urlsplit(link).path
            target = (page.parent / unquote(path)).resolve() if path else page
            if target.suffix == ".md" and target.exists() and target not in reached:
                reached.add(target)
                waiting.append(target)

    ours = {path for path in PAGES if path.is_relative_to(ROOT / "docs") and path.suffix == ".md"}
    assert sorted(str(path.relative_to(ROOT)) for path in ours - reached) == []


def test_the_check_sees_what_is_broken(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# One `word`\n## One `word`\n[a](#one-word) [b](#one-word-1) [c](#one-word-2)\n"
        "[d](absent.md) [e](https:///x) [f](ftp://x) `[g](absent.md)`\n```\n[h](absent.md)\n```\n"
    )

    assert [fault.split(":")[0] for fault in faults(page) if "leaves" not in fault] == [
        "#one-word-2",
        "absent.md",
        "https",
        "ftp",
    ]
