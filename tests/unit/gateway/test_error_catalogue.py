"""`docs/errors.md` says what the code can say, and nothing else."""

import ast
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from darkbloom_edge.errors import RequestError
from darkbloom_gateway import errors
from darkbloom_gateway.errors import ApiError
from darkbloom_router import refusals
from darkbloom_router.refusals import Refusal

PAGE = Path(__file__).parents[3] / "docs/errors.md"
Row = tuple[int, str, str, bool]

ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "bad_request": ("x",),
    "unauthenticated": ("x",),
    "forbidden": ("x",),
    "insufficient_funds": ({},),
    "key_cap_reached": ({},),
    "not_found": ("x",),
    "method_not_allowed": ("POST",),
    "body_too_large": (1,),
    "prompt_above_limit": ("key", "tokens", 2, 1),
    "above_limit": ("key", "tokens", 2, 1),
    "rate_limited": (1.0,),
    "envelope_unreadable": (errors.body_too_slow(),),
    "account_frozen": (None,),
    "of_request": (RequestError("x", "y"),),
}


def rows(section: int) -> set[Row]:
    text = PAGE.read_text().split(f"\n## {section}. ")[1].split("\n## ")[0]
    found = set()
    for line in text.splitlines():
        cells = [cell.strip().strip("`") for cell in line.strip("|").split("|")]
        if cells[0].isdigit():
            status, kind, code, retry = cells[:4]
            found.add((int(status), kind, code or kind, retry == "yes"))
    return found


def row_of(error: ApiError) -> Row:
    return error.http_status, error.kind, error.code, error.retry_after_s is not None


def constructors() -> dict[str, Callable[..., ApiError]]:
    return {
        name: made
        for name, made in inspect.getmembers(errors, inspect.isfunction)
        if made.__module__ == errors.__name__
        and inspect.signature(made).return_annotation is ApiError
    }


def test_every_error_of_the_gateway_has_a_row_and_every_row_an_error() -> None:
    made = {row_of(make(*ARGUMENTS.get(name, ()))) for name, make in constructors().items()}
    made.add(row_of(errors.account_frozen(7)))

    assert made == rows(1)


def test_every_refusal_of_the_router_has_a_row() -> None:
    made = {
        (one.http_status, one.kind, one.code, one.retry_after_s is not None)
        for _, one in inspect.getmembers(refusals, lambda value: isinstance(value, Refusal))
    }

    assert made
    assert made <= rows(2)


SOURCE = Path(errors.__file__).parent


def literal_kinds() -> set[tuple[int, str]]:
    """Return status and type of every error that a route names in its source."""
    found = set()
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "ApiError":
                parts = node.args[:2]
            elif isinstance(node, ast.Tuple) and len(node.elts) == 3:
                parts = node.elts[:2]
            else:
                continue
            values = [part.value for part in parts if isinstance(part, ast.Constant)]
            match values:
                case [int() as status, str() as kind] if 400 <= status < 600:
                    found.add((status, kind))
    return found


def test_every_error_of_the_other_routes_is_on_the_page() -> None:
    named = {(status, kind) for status, kind, _, _ in rows(1) | rows(2)}
    for line in PAGE.read_text().split("\n## 3. ")[1].split("\n## ")[0].splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells[0].isdigit():
            named |= {(int(cells[0]), kind) for kind in re.findall("`([a-z_]+)`", cells[1])}

    made = literal_kinds()
    assert (409, "stripe_account_gone") in made
    assert made <= named
