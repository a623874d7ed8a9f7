"""The rooms: every directory that is a distribution of ours."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
IMAGES = ("gateway", "router", "billing", "attestation", "registry", "local")
"""Rooms that become images (`IMAGE_ROOMS` of the Makefile)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Room:
    """One distribution."""

    name: str
    """For example `darkbloom-router`."""
    path: str
    """Its directory, from the root of the tree."""
    requires: Sequence[str]
    """What it needs to run, requirements as they are written."""
    extras: Mapping[str, Sequence[str]]
    """What it needs beyond that, by the name of the extra."""

    @property
    def stem(self) -> str:
        """How its files begin."""
        return self.name.replace("-", "_")


def rooms(root: Path = ROOT) -> list[Room]:
    """Return every room of a tree; the workspace itself is none."""
    workspace = _project(root)["tool"]["uv"]["workspace"]["members"]
    found = sorted(path for member in workspace for path in root.glob(member))
    return [_room(root, path) for path in found if (path / "pyproject.toml").is_file()]


def _room(root: Path, path: Path) -> Room:
    project = _project(path)["project"]
    return Room(
        name=project["name"],
        path=path.relative_to(root).as_posix(),
        requires=tuple(project.get("dependencies", ())),
        extras={
            name: tuple(them) for name, them in project.get("optional-dependencies", {}).items()
        },
    )


def _project(path: Path) -> dict[str, Any]:
    return tomllib.loads((path / "pyproject.toml").read_text())
