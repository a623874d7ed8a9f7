"""Writes what the pages say of drills: the table's rows, and who exercises each runbook."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.drills.drill import Drill
from tests.drills.table import HEAD, row, said

_EXERCISED = re.compile(r"(?m)^Exercised by .+\.$")
_ROWS = re.compile(r"(?ms)^\| Drill \|.*?\n(?=\n|\Z)")
_RULE = "|---|---|---|---|---|---|---|"


def write(
    operations: Path, drills: Mapping[str, Drill], results: Mapping[str, Mapping[str, Any]]
) -> None:
    """Write the pages; a drill that was not played now keeps its figures.

    Args:
        operations: docs/operations.
        drills: Every drill, by name.
        results: What was measured now, by name.
    """
    page = operations / "drills.md"
    text = page.read_text()
    rows = [HEAD, _RULE]
    for name, drill in drills.items():
        figures = re.search(rf"(?m)^\| `{name}` \|.*\|(( [^|]+ \|){{3}})$", text)
        measured = "recovery_s" in results.get(name, {})
        kept = f"{said(drill)}{figures[1]}" if figures else row(drill, {})
        rows.append(row(drill, results[name]) if measured else kept)
    page.write_text(_ROWS.sub(lambda _: "\n".join(rows) + "\n", text))

    for runbook in (operations / "runbooks").glob("*.md"):
        names = [name for name, drill in drills.items() if runbook.stem in drill.runbooks]
        _exercise(runbook, names)


def _exercise(runbook: Path, names: list[str]) -> None:
    """Name these drills, beside the tests that the runbook names."""
    text = runbook.read_text()
    tests = re.findall(r"`tests/[^`]+`", "".join(_EXERCISED.findall(text)))
    only = " ".join(f"--only {name}" for name in names)
    by = [f'`make drills ARGS="{only}"`'] if names else []
    if by or tests:
        line = f"Exercised by {', '.join([*by, *tests])}."
        runbook.write_text(_EXERCISED.sub(lambda _: line, text))
