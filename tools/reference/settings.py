"""`docs/reference/settings.md`: what each process reads from its environment."""

from __future__ import annotations

import inspect
from importlib import import_module

from darkbloom_mesh.config import CommonConfig, RoomConfig, Row, describe

from tools.reference.markdown import NOTE, cell, code, table

ROOMS = ("gateway", "router", "billing", "attestation", "registry", "provider")


def page() -> str:
    """Return the page."""
    inner = {row.name.partition("DARKBLOOM_X_")[2] for row in describe(RoomConfig, "x")}
    outer = {row.name.partition("DARKBLOOM_X_")[2] for row in describe(CommonConfig, "x")}
    parts = [
        "# Settings\n\n",
        f"{NOTE}\n\n",
        (
            "A process reads its environment once, at start. An unknown variable with its prefix, or a value that does not parse, stops the start with every problem listed (exit code 78). "
            "An empty variable counts as unset. The other name is read where the room's own is unset. `_S` are seconds, lists have commas.\n\n"
        ),
        "## Every room\n\n",
        (
            "`<ROOM>` is the room's name in capitals. The provider reads only those marked with ●; the rest is for rooms of the inner mesh. "
            "Where a room has another default, its own table says so.\n\n"
        ),
        table(
            ("Variable", "Other name", "Default", "Provider", ""),
            [
                (
                    code(row.name.replace("_X_", "_<ROOM>_")),
                    _aliases(row),
                    _default(row),
                    "●" if row.name.removeprefix("DARKBLOOM_X_") in outer else "",
                    cell(row.doc),
                )
                for row in describe(RoomConfig, "x")
            ],
        ),
    ]
    shared = {
        row.name.removeprefix("DARKBLOOM_X_"): row.default for row in describe(RoomConfig, "x")
    }
    for room in ROOMS:
        prefix = f"DARKBLOOM_{room.upper()}_"
        rows = [
            (code(row.name), _aliases(row), _default(row), cell(row.doc))
            for row in describe(_config_of(room), room)
            if (name := row.name.removeprefix(prefix)) not in inner
            or shared.get(name) != row.default
        ]
        parts.append(f"## {room.capitalize()}\n\n")
        parts.append(table(("Variable", "Other name", "Default", ""), rows))
    return "".join(parts).rstrip("\n") + "\n"


def _config_of(room: str) -> type[CommonConfig]:
    module = import_module(f"darkbloom_{room}.config")
    (own,) = (
        found
        for _, found in inspect.getmembers(module, inspect.isclass)
        if issubclass(found, CommonConfig) and found.__module__ == module.__name__
    )
    return own


def _aliases(row: Row) -> str:
    return ", ".join(map(code, row.aliases))


def _default(row: Row) -> str:
    return code(cell(row.default)) or "empty"
