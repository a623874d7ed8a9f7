"""The kit stays small: 2,400 lines of code. Docstrings, comments and blank lines are free.

So are the two lists of telemetry, which are words and hardly code: what is measured, and what its
labels may say.
"""

import ast
import io
import tokenize
from importlib import resources
from pathlib import Path

BUDGET = 2_400
LISTS = ("labels.py", "telemetry.py")
SILENT = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
}


def code_lines(source: str) -> int:
    lines = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in SILENT:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            lines.difference_update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return len(lines)


def test_the_kit_keeps_its_budget() -> None:
    package = Path(str(resources.files("darkbloom_mesh")))
    sizes = {
        path.name: code_lines(path.read_text())
        for path in package.rglob("*.py")
        if path.name not in LISTS
    }
    assert len(sizes) > 10
    assert sum(sizes.values()) <= BUDGET, sizes


def test_no_file_of_the_kit_is_longer_than_400_lines() -> None:
    package = Path(str(resources.files("darkbloom_mesh")))
    assert [p.name for p in package.rglob("*.py") if len(p.read_text().splitlines()) > 400] == []
