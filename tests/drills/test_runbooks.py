"""Every runbook is exercised by drills or tests that exist, or says why not; the table is true."""

import re
from pathlib import Path

import pytest

from tests.drills.catalogue import every_drill
from tests.drills.table import HEAD, said

ROOT = Path(__file__).resolve().parents[2]
OPERATIONS = ROOT / "docs" / "operations"
RUNBOOKS = {path.stem: path for path in (OPERATIONS / "runbooks").glob("*.md")}


@pytest.mark.parametrize("name", sorted(RUNBOOKS))
def test_a_runbook_is_exercised_or_says_why_not(name: str) -> None:
    text = RUNBOOKS[name].read_text()
    by = re.findall(r"(?m)^Exercised by (.+)\.$", text)
    why_not = re.findall(r"(?m)^Not exercised: .{20,}\.$", text)
    assert len(by) + len(why_not) == 1

    told = set(re.findall(r"--only ([a-z0-9-]+)", "".join(by)))
    assert told == {drill.name for drill in every_drill().values() if name in drill.runbooks}
    tests = re.findall(r"`(tests/[^`]+)`", "".join(by))
    assert why_not or told or tests
    for path in tests:
        assert (ROOT / path).is_file(), path


def test_the_table_says_of_each_drill_what_the_code_says() -> None:
    page = (OPERATIONS / "drills.md").read_text()
    assert HEAD in page
    rows = re.findall(r"(?m)^\| `([a-z0-9-]+)` \|", page)
    assert rows == list(every_drill())
    for drill in every_drill().values():
        assert said(drill) in page, drill.name
    assert "(drills.md)" in (OPERATIONS / "README.md").read_text()
