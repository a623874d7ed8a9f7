"""The environment table of a room says what its configuration reads, no more and no less."""

import inspect
import re
from dataclasses import fields
from importlib import import_module
from pathlib import Path

import pytest
from darkbloom_mesh.config import CommonConfig, RoomConfig, describe

ROOT = Path(__file__).resolve().parents[2]
ROOMS = {
    **{name: ROOT / "services" / name for name in ("attestation", "billing", "gateway")},
    **{name: ROOT / "services" / name for name in ("registry", "router")},
    "provider": ROOT / "provider",
}
COMMON = {field.name.upper() for field in fields(RoomConfig)}


def config_of(room: str) -> type[CommonConfig]:
    module = import_module(f"darkbloom_{room}.config")
    own = [
        found
        for _, found in inspect.getmembers(module, inspect.isclass)
        if issubclass(found, CommonConfig) and found.__module__ == module.__name__
    ]
    assert len(own) == 1
    return own[0]


@pytest.mark.parametrize("room", ROOMS)
def test_the_table_is_complete_and_true(room: str) -> None:
    readme = (ROOMS[room] / "README.md").read_text()
    prefix = f"DARKBLOOM_{room.upper()}_"
    told = set(re.findall(rf"\b{prefix}([A-Z0-9_]+)\b", readme))
    rows = describe(config_of(room), room)
    read = {row.name.removeprefix(prefix): row for row in rows}

    assert told <= set(read), "the readme names variables that nothing reads"
    for name, row in read.items():
        shared = name in COMMON  # their table is in services/mesh/README.md
        assert shared or name in told or set(row.aliases) & set(re.findall(r"[A-Z_]+", readme)), (
            name
        )
