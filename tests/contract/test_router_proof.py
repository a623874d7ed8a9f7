"""What the router promises names the test that makes it happen, and that test exists."""

import re
from pathlib import Path

import pytest
from darkbloom_router import refusals
from darkbloom_router.model import Gate
from darkbloom_router.refusals import Refusal

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "services/router/README.md").read_text()
SECTION = README.split("\n## What proves it\n", 1)[1].split("\n## ", 1)[0]
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in SECTION.splitlines()
    if line.startswith("|") and not set(line) <= set("|- ")
]
KNOWN = {
    name: text
    for path in (ROOT / "tests").rglob("test_*.py")
    for text in (path.read_text(),)
    for name in re.findall(r"^ *(?:async )?def test_(\w+)\(", text, re.MULTILINE)
}
NAMED = sorted({name for row in ROWS for name in re.findall(r"`([a-z][a-z0-9_]{15,})`", row[-1])})


@pytest.mark.parametrize("name", NAMED)
def test_a_test_that_is_named_exists(name: str) -> None:
    assert name in KNOWN


def test_every_row_names_at_least_one_test() -> None:
    headings = {"Invariant (routing section 19)", "Gate", "Refusal", "Symptom"}
    for row in ROWS:
        assert row[0] in headings or re.findall(r"`[a-z][a-z0-9_]{15,}`", row[-1]), row


def test_invariants_gates_refusals_and_symptoms_are_all_there() -> None:
    first = [row[0].strip("`") for row in ROWS]
    assert [int(cell.split(".")[0]) for cell in first if re.match(r"\d+\.", cell)] == [
        *range(1, 13)
    ]
    gates = {gate.name.lower() for gate in Gate} - {"eligible"}
    assert gates <= set(first)
    said = {name for name, value in vars(refusals).items() if isinstance(value, Refusal)}
    assert said <= set(first)
