"""One version for all rooms. The workspace's pyproject.toml says it; everything else repeats it.

Three numbers and nothing else: agents compare versions as semver does and wheels as PEP 440 does,
and only there the two agree.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

from tools.release.errors import ReleaseError
from tools.release.rooms import IMAGES, ROOT, rooms

_VERSION = re.compile(r"(0|[1-9]\d{0,5})\.(0|[1-9]\d{0,5})\.(0|[1-9]\d{0,5})", re.ASCII)
_PROJECT = (re.compile(r'(?m)^version = "([^"]*)"$'), 'version = "{}"')


def parse(text: str) -> tuple[int, int, int]:
    """Return the numbers of a version.

    Raises:
        ReleaseError: It is none.
    """
    found = _VERSION.fullmatch(text)
    if found is None:
        raise ReleaseError(f"{text!r} is no version: a release is three numbers, such as 0.2.0")
    major, minor, patch = (int(part) for part in found.groups())
    return major, minor, patch


def declared(root: Path = ROOT) -> str:
    """Return the version of the tree: what the next release will be, or this one is."""
    return str(tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"])


def texts(version: str, root: Path = ROOT) -> Iterator[tuple[Path, str]]:
    """Yield each file that repeats the version, with the text that it must have."""
    parse(version)
    projects = [root / "pyproject.toml"]
    projects += [root / room.path / "pyproject.toml" for room in rooms(root)]
    for path in projects:
        pattern, wanted = _PROJECT
        yield path, pattern.sub(wanted.format(version), path.read_text(), count=1)

    # Images that have a digest are what was released; only the names of a build here move.
    named = re.compile(rf"(?m)^((?:{'|'.join(IMAGES).upper()})_IMAGE=[^@\n]*):\d+\.\d+\.\d+$")
    path = root / "deploy" / "images.env"
    yield path, named.sub(rf"\g<1>:{version}", path.read_text())
    path = root / "deploy" / "kustomize" / "components" / "images" / "kustomization.yaml"
    tag = re.compile(r'(newName: darkbloom-[a-z]+\n    newTag: )"\d+\.\d+\.\d+"$', re.MULTILINE)
    yield path, tag.sub(rf'\g<1>"{version}"', path.read_text())
    path = root / "deploy" / "Dockerfile"
    yield path, re.sub(r"(?m)^ARG VERSION=.*$", f"ARG VERSION={version}", path.read_text())
    path = root / "deploy" / "README.md"
    loaded = re.compile(r"(darkbloom-\{[a-z,]+\}):\d+\.\d+\.\d+")
    yield path, loaded.sub(rf"\g<1>:{version}", path.read_text())
    path = root / "docs" / "openapi.json"
    document = re.compile(r'("info": \{[^{}]*?"version": )"[^"]*"')
    yield path, document.sub(rf'\g<1>"{version}"', path.read_text(), count=1)


def stale(version: str, root: Path = ROOT) -> list[Path]:
    """Return the files that say another version."""
    return [path for path, text in texts(version, root) if path.read_text() != text]


def write(version: str, root: Path = ROOT) -> list[Path]:
    """Make every file say this version; returns those that changed."""
    changed = []
    for path, text in texts(version, root):
        if path.read_text() != text:
            path.write_text(text)
            changed.append(path)
    return changed
