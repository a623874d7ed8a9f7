"""Stripe's nested form encoding: `a[b][0]=c`."""

import re
from collections.abc import Iterable
from typing import Any

_PART = re.compile(r"\[([^\]]*)\]")


def parse(pairs: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Return nested dicts and lists of strings."""
    tree: dict[str, Any] = {}
    for name, value in pairs:
        head, bracket, rest = name.partition("[")
        parts = [head, *_PART.findall(bracket + rest)]
        node = tree
        for part in parts[:-1]:
            node = node.setdefault(part, {})
        last = parts[-1] or str(len(node))
        node[last] = value
    return {name: _lists(value) for name, value in tree.items()}


def _lists(node: Any) -> Any:
    if not isinstance(node, dict):
        return node
    if node and all(key.isdigit() for key in node):
        return [_lists(node[key]) for key in sorted(node, key=int)]
    return {key: _lists(value) for key, value in node.items()}
