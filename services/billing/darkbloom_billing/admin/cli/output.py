"""Answers as people read them, and as programs do."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC
from typing import Any

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Console
from rich.table import Table
from rich.text import Text

_MICRO = 1_000_000
_WIDEST = 10_000
"""Columns that no row of ours fills."""


def plain(message: Message) -> dict[str, Any]:
    """Return a message as JSON values: numbers stay numbers, times are RFC 3339, enums words."""
    return {
        field.name: _value(field, getattr(message, field.name), message)
        for field in message.DESCRIPTOR.fields
    }


def show(
    content: Mapping[str, Any], columns: Sequence[str], *, rows: str = "", as_json: bool
) -> None:
    """Print an answer on stdout.

    Args:
        content: The answer.
        columns: Of a table of rows.
        rows: Name of the list in the answer; empty: the answer is one thing.
        as_json: One JSON object instead.
    """
    if as_json:
        print(json.dumps(content))  # noqa: T201 - the output of a command
        return
    console = Console()
    if not rows:
        # A pipe has no width: what reads it wants every character.
        paper = console if console.is_terminal else Console(width=_WIDEST)
        paper.print(_thing(_flat(content), console))
        return
    _print_rows(console, content[rows], columns)
    if content.get("next_page_token"):
        console.print(Text(f"more: --page {content['next_page_token']}"), soft_wrap=True)


def _print_rows(
    console: Console, found: Sequence[Mapping[str, Any]], columns: Sequence[str]
) -> None:
    """Print a table where it fits, else row by row: an id that is cut off is of no use."""
    table = Table(*(_label(name) for name in columns))
    for row in found:
        table.add_row(*(_cell(name, row[name]) for name in columns))
    wide = Console(width=_WIDEST)
    if wide.measure(table).maximum <= console.width:
        console.print(table)
        return
    if not console.is_terminal:
        wide.print(table)
        return
    for row in found:
        console.print(_thing([(name, row[name]) for name in columns], console))


def _thing(fields: Sequence[tuple[str, Any]], console: Console) -> Table:
    table = Table(show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold", no_wrap=not console.is_terminal)
    for name, value in fields:
        table.add_row(_label(name), _cell(name, value))
    return table


def _label(name: str) -> str:
    """Return how people call a field: amounts are shown in dollars, so no micros."""
    return name.removesuffix("_micros")


def problem(message: str, facts: Mapping[str, str], *, as_json: bool) -> None:
    """Print why it did not work on stderr."""
    console = Console(stderr=True, soft_wrap=True)
    if as_json:
        console.print_json(json.dumps({"error": {"message": message, **facts}}), indent=None)
        return
    extra = ", ".join(f"{name.removeprefix('darkbloom-')} {value}" for name, value in facts.items())
    console.print(Text(f"{message} ({extra})" if extra else message))


def note(message: str) -> None:
    """Print what a reader should know beside the answer, on stderr."""
    Console(stderr=True, soft_wrap=True).print(Text(message))


def dollars(amount: int) -> str:
    """Write micro-USD as dollars."""
    sign = "-" if amount < 0 else ""
    return f"{sign}{abs(amount) // _MICRO}.{abs(amount) % _MICRO:06d}"


def _value(field: Any, value: Any, message: Message) -> Any:
    if field.is_repeated:
        return [_one(field, item) for item in value]
    if field.has_presence and not message.HasField(field.name):
        return None
    return _one(field, value)


def _one(field: Any, value: Any) -> Any:
    if isinstance(value, Timestamp):
        return value.ToDatetime(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, Message):
        return plain(value)
    if field.enum_type is not None:
        known = field.enum_type.values_by_number.get(value)
        return known.name.rpartition("_")[2].lower() if known is not None else value
    return value.hex() if isinstance(value, bytes) else value


def _flat(content: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Return the fields of one thing; those of a thing inside it stand for it."""
    found: list[tuple[str, Any]] = []
    for name, value in content.items():
        if isinstance(value, Mapping):
            found += _flat(value)
        else:
            found.append((name, value))
    return found


def _cell(name: str, value: Any) -> Text:
    """Return a cell; amounts are shown in dollars, because people read those."""
    if value is None or value == "":
        return Text("-")
    if isinstance(value, int) and name.endswith("_micros"):
        return Text(f"${dollars(value)}", justify="right")
    if isinstance(value, list):
        return Text(", ".join(_item(item) for item in value) or "-")
    return Text(str(value))


def _item(item: Any) -> str:
    return (
        " ".join(str(value) for value in item.values()) if isinstance(item, Mapping) else str(item)
    )
