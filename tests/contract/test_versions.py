"""One version for all rooms, said in pyproject.toml and repeated by `make release-version`."""

import re
import shutil
from importlib import metadata
from pathlib import Path

import pytest

from tools.release import versions
from tools.release.errors import ReleaseError
from tools.release.rooms import IMAGES, ROOT, rooms


def test_every_room_image_and_document_says_the_version_of_the_workspace() -> None:
    assert versions.stale(versions.declared()) == []


def test_what_is_installed_is_the_version_of_the_tree() -> None:
    said = {room.name: metadata.version(room.name) for room in rooms()}
    assert set(said.values()) == {versions.declared()}, "make install"


def test_no_code_has_a_version_of_its_own() -> None:
    literal = re.compile(r'^[A-Z_]*VERSION(: [^=]*)? = "\d+\.\d+\.\d+"')
    found = [
        f"{path.relative_to(ROOT)}: {line}"
        for room in rooms()
        for path in (ROOT / room.path).glob("darkbloom_*/**/*.py")
        for line in path.read_text().splitlines()
        if literal.search(line)
    ]
    assert found == []


def test_another_version_is_written_everywhere_and_nowhere_else(tmp_path: Path) -> None:
    here = versions.declared()
    for path, _ in versions.texts(here):
        copy = tmp_path / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)

    changed = versions.write("9.8.7", tmp_path)

    assert versions.stale("9.8.7", tmp_path) == []
    assert len(changed) == len(list(versions.texts(here)))
    for path in changed:
        before = (ROOT / path.relative_to(tmp_path)).read_text().splitlines()
        after = path.read_text().splitlines()
        moved = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
        assert all(old.replace(here, "9.8.7") == new for old, new in moved)
        named = len(IMAGES) if path.name in ("images.env", "kustomization.yaml") else 1
        assert len(moved) == named, path


def test_a_released_image_keeps_its_digest(tmp_path: Path) -> None:
    for path, _ in versions.texts(versions.declared()):
        copy = tmp_path / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    pinned = f"registry.example/darkbloom-router@sha256:{'a' * 64}"
    listed = tmp_path / "deploy" / "images.env"
    text = re.sub(r"(?m)^ROUTER_IMAGE=.*$", f"ROUTER_IMAGE={pinned}", listed.read_text())
    listed.write_text(text)

    versions.write("9.8.7", tmp_path)

    assert f"ROUTER_IMAGE={pinned}\n" in listed.read_text()
    assert "GATEWAY_IMAGE=darkbloom-gateway:9.8.7\n" in listed.read_text()


@pytest.mark.parametrize("text", ["", "1", "1.2", "v1.2.3", "01.2.3", "1.2.3.dev0", "1.2.3-rc.1"])
def test_a_version_is_three_numbers(text: str) -> None:
    with pytest.raises(ReleaseError, match="three numbers"):
        versions.parse(text)
    assert versions.parse("1.20.3") == (1, 20, 3)
