"""Every runbook is exercised by a drill or by a test, or says why not."""

from pathlib import Path

RUNBOOKS = {
    path.stem: path
    for path in (Path(__file__).resolve().parents[2] / "docs/operations/runbooks").glob("*.md")
}
