"""LFM2's calls: a Python list of calls with literal keyword arguments."""

import ast
from typing import Any, Final

from darkbloom_provider.engine.tools.held import HeldCall, NoCallError

MAX_SOURCE_CHARS: Final = 64 << 10
_JSON_NAMES: Final[dict[str, Any]] = {"true": True, "false": False, "null": None}


def pythonic_calls(payload: str) -> list[HeldCall]:
    """Read `[name(key="value", other=1), …]`; nothing is ever evaluated.

    Raises:
        NoCallError: It is anything else.
    """
    if len(payload) > MAX_SOURCE_CHARS:
        raise NoCallError("too long")
    try:
        tree = ast.parse(payload.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise NoCallError("no python") from None
    calls = tree.elts if isinstance(tree, ast.List) else [tree]
    return [_call(call) for call in calls]


def _call(node: ast.expr) -> HeldCall:
    if not isinstance(node, ast.Call) or node.args:
        raise NoCallError("no call with keywords")
    arguments: dict[str, Any] = {}
    for keyword in node.keywords:
        if keyword.arg is None:
            raise NoCallError("no call with keywords")
        arguments[keyword.arg] = _literal(keyword.value)
    return HeldCall(_name(node.func), arguments)


def _name(node: ast.expr) -> str:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{_name(node.value)}.{node.attr}"
    raise NoCallError("no name")


def _literal(node: ast.expr) -> Any:
    if isinstance(node, ast.Name) and node.id in _JSON_NAMES:
        return _JSON_NAMES[node.id]
    if isinstance(node, ast.Constant) and isinstance(node.value, str | int | float | None):
        return node.value
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        value = _literal(node.operand)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return -value
    if isinstance(node, ast.List | ast.Tuple):
        return [_literal(item) for item in node.elts]
    if isinstance(node, ast.Dict):
        return {
            _key(key): _literal(value) for key, value in zip(node.keys, node.values, strict=True)
        }
    raise NoCallError("no literal")


def _key(node: ast.expr | None) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    raise NoCallError("no key")
