"""The threat model names the test that tries each attack, and each of them exists."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/security.md"
NAMED = re.compile(r"`([a-z_/0-9]+/test_\w+\.py)::(test_\w+)`")
MANY = 30
"""So that a table that is not recognised is noticed."""
ATTACKS = ("| Attack | Tried by |", "| Must be refused | Tried by |")


def rows() -> list[str]:
    """Return the rows of all tables of attacks."""
    found: list[str] = []
    inside = False
    for line in PAGE.read_text().splitlines():
        if line.startswith(ATTACKS):
            inside = True
        elif not line.startswith("|"):
            inside = False
        elif inside and not line.startswith("|---"):
            found.append(line)
    return found


def test_each_named_test_exists() -> None:
    named = NAMED.findall(PAGE.read_text())
    missing = [
        f"{path}::{name}"
        for path, name in named
        if not (ROOT / "tests" / path).is_file()
        or not re.search(
            rf"^\s*(async )?def {name}\(", (ROOT / "tests" / path).read_text(), re.MULTILINE
        )
    ]
    assert named
    assert missing == []


def test_each_attack_is_tried_by_a_test() -> None:
    assert len(rows()) >= MANY
    assert [row for row in rows() if not NAMED.search(row)] == []


def test_everything_that_looks_like_a_test_is_named_in_full() -> None:
    text = PAGE.read_text()
    loose = re.findall(r"\btest_\w+(?!\w|\.py)", NAMED.sub("", text))
    assert loose == []
