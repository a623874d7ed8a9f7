"""Protos keep the naming rules that no linter knows."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROTOS = sorted((ROOT / "protos/darkbloom").rglob("*.proto"))
IDS = [str(path.relative_to(ROOT / "protos/darkbloom")) for path in PROTOS]


@pytest.mark.parametrize("path", PROTOS, ids=IDS)
def test_a_package_imports_only_itself_common_and_google(path: Path) -> None:
    own = str(path.parent.relative_to(ROOT / "protos"))
    for imported in re.findall(r'^import "(.+)";$', path.read_text(), re.MULTILINE):
        assert imported.startswith((own, "darkbloom/common/v1/", "google/protobuf/"))


def test_every_package_has_its_room() -> None:
    rooms = {path.name for path in (ROOT / "services").iterdir() if path.is_dir()}
    packages = {path.name for path in (ROOT / "protos/darkbloom").iterdir()}
    assert packages - {"common"} <= rooms
