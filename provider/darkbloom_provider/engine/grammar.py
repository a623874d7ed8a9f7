"""The grammar of one answer: what may come before it, its frame, and the schemas inside.

A grammar is written in the Lark dialect of llguidance, with JSON schemas as grammars of their own,
and is plain text: it is compiled elsewhere. Markers that are single tokens of the vocabulary are
written as these tokens, so that no text can imitate them.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from darkbloom_provider.engine.schema import EMPTY_OBJECT, narrowed

MAX_PARALLEL_CALLS: Final = 4
"""Most calls of one answer whose calls are forced: a model that likes calling must end."""

_JSON_STYLE: Final[Mapping[str, Any]] = {
    # The spacing of most training data; fixed, so that no model pads for ever.
    "item_separator": ", ",
    "key_separator": ": ",
    "whitespace_flexible": False,
    "coerce_one_of": False,
    "lenient": False,
}
_TEXT: Final = "TEXT: /(?s:.*)/"

Marker = Callable[[str], int | None]
"""Gives the token that is exactly this marker, where the vocabulary has one."""


class Frame(NamedTuple):
    """How one call is written around its name and its arguments, as markers and plain text."""

    before: tuple[str, ...]
    between: tuple[str, ...]
    after: tuple[str, ...]


class Thinking(NamedTuple):
    """What may come before the answer proper."""

    before: tuple[str, ...]
    """Opens it."""
    close: str
    after: tuple[str, ...]
    """Follows the close, before the answer."""
    opened: bool
    """The prompt ends inside it: it must be closed and cannot be opened."""


class Function(NamedTuple):
    """A function that may be called; repr is redacted."""

    name: str
    parameters: Mapping[str, Any] | None

    def __repr__(self) -> str:
        return "Function(<redacted>)"


class Calls(NamedTuple):
    """The calls that an answer may be."""

    functions: Sequence[Function]
    """At least one; their schemas have passed `check_schema`."""
    frame: Frame
    most: int = 1


def answer_grammar(
    *,
    schema: Mapping[str, Any] | None = None,
    calls: Calls | None = None,
    marker: Marker,
    thinking: Thinking | None = None,
    lead: tuple[str, ...] = (),
) -> str:
    """Write the grammar of an answer that is one JSON value, or calls, or either.

    Args:
        schema: Of the value; has passed `check_schema`.
        calls: What may be called; one of both must be given.
        marker: Of the vocabulary.
        thinking: What may come before.
        lead: Markers and text before the value.
    """
    schemas: list[Mapping[str, Any]] = []
    rules = [
        "start: body" if thinking is None else "start: thinking body",
        f"body: {' | '.join(_branches(schema, calls))}",
    ]
    if calls is not None:
        rules += _call_rules(calls, marker)
        schemas += [function.parameters or EMPTY_OBJECT for function in calls.functions]
    if schema is not None:
        rules.append(f"value: {_literals(lead, marker)} @s{len(schemas)}")
        schemas.append(schema)
    if thinking is not None:
        rules += _thinking_rules(thinking, marker)
    grammars: list[dict[str, Any]] = [{"name": "answer", "lark_grammar": "\n".join(rules)}]
    grammars += [
        {"name": f"s{index}", "json_schema": {**narrowed(one), "x-guidance": _JSON_STYLE}}
        for index, one in enumerate(schemas)
    ]
    return json.dumps({"grammars": grammars}, separators=(",", ":"))


def _branches(schema: Mapping[str, Any] | None, calls: Calls | None) -> list[str]:
    branches = [] if schema is None else ["value"]
    if calls is not None:
        more = f' ("\\n" call){{0,{calls.most - 1}}}' if calls.most > 1 else ""
        branches.append(f"call{more}")
    return branches


def _call_rules(calls: Calls, marker: Marker) -> list[str]:
    before, between, after = (_literals(part, marker) for part in calls.frame)
    named = " | ".join(
        f"{json.dumps(function.name)} {between} @s{index}"
        for index, function in enumerate(calls.functions)
    )
    return [f"call: {before} named {after}", f"named: {named}"]


def _thinking_rules(thinking: Thinking, marker: Marker) -> list[str]:
    close = _literals((thinking.close,), marker)
    # A token of its own cannot be in text; a marker that is text ends it where it first stands.
    single = marker(thinking.close) is not None
    rest = f"thought: TEXT {close}" if single else f"thought[lazy]: TEXT {close}"
    inside = f"thought {_literals(thinking.after, marker)} GAP"
    opened = f"thinking: {inside}"
    optional = f"thinking: ({_literals(thinking.before, marker)} {inside})?"
    return [opened if thinking.opened else optional, rest, _TEXT, r"GAP: /\n{0,2}/"]


def _literals(parts: Sequence[str], marker: Marker) -> str:
    written = []
    for part in parts:
        token = marker(part)
        written.append(json.dumps(part) if token is None else f"<[{token}]>")
    return " ".join(written)
