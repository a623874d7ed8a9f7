"""HTTP errors as the code makes them: status, type and code."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator

from darkbloom_gateway import errors
from darkbloom_router import refusals
from darkbloom_router.refusals import Refusal

Row = tuple[int, str, str, str]
"""Status, type, code, and when."""


def rows() -> list[Row]:
    """Return every error that has a maker of its own, by status; each once."""
    found: dict[tuple[int, str, str], list[str]] = {}
    for status, kind, code, when in (*_of_router(), *_of_gateway()):
        whens = found.setdefault((status, kind, code), [])
        if when not in whens:
            whens.append(when)
    return sorted((*row, "; ".join(sorted(whens))) for row, whens in found.items())


def _of_gateway() -> Iterator[Row]:
    for node in ast.parse(inspect.getsource(errors)).body:
        if not isinstance(node, ast.FunctionDef):
            continue
        said = (ast.get_docstring(node) or "").partition("\n")[0]
        number, _, when = said.partition(": ")
        if not number.isdigit():
            continue
        for call in ast.walk(node):
            kind, code = _kind_and_code(call)
            if kind:
                yield int(number), kind, code or kind, when.rstrip(".")


def _kind_and_code(node: ast.AST) -> tuple[str, str]:
    """Return what a call says, where it makes an error; two empty texts otherwise."""
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
        return "", ""
    texts = {
        word.arg: str(word.value.value)
        for word in node.keywords
        if isinstance(word.value, ast.Constant)
    }
    if node.func.id == "unavailable":
        return "service_unavailable", texts.get("code", "")
    if node.func.id != "ApiError" or len(node.args) <= 1:
        return "", ""
    kind = node.args[1]
    return (str(kind.value) if isinstance(kind, ast.Constant) else ""), texts.get("code", "")


def _of_router() -> Iterator[Row]:
    for _, one in inspect.getmembers(refusals, lambda value: isinstance(value, Refusal)):
        yield one.http_status, one.kind, one.code or one.kind, one.message
