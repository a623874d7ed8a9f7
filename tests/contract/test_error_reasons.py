"""Each machine-readable reason is raised by somebody, or is a promise to nobody."""

import re
from pathlib import Path

import pytest
from darkbloom.common.v1.error_reason_pb2 import ErrorReason

ROOT = Path(__file__).resolve().parents[2]
NAMES = [value.name.removeprefix("ERROR_REASON_") for value in ErrorReason.DESCRIPTOR.values[1:]]
SOURCES = "\n".join(
    path.read_text()
    for room in ("services/*/darkbloom_*", "provider/darkbloom_provider")
    for folder in ROOT.glob(room)
    for path in folder.rglob("*.py")
)


@pytest.mark.parametrize("name", NAMES)
def test_a_reason_is_used_outside_the_contract(name: str) -> None:
    assert re.search(rf"\b(ERROR_REASON_)?{name}\b", SOURCES)
