"""Which third-party packages a room brings along: its requirements, followed through the pins.

A release is for Linux (rooms in images) and for macOS (the agent on a Mac), so both answers are
joined. Versions come from constraints.txt; who needs whom comes from what is installed here. A
package that only the other platform installs is named with its version and has no licence here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import copy
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tools.release.errors import ReleaseError
from tools.release.rooms import Room

LINUX = {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix"}
MACOS = {
    "sys_platform": "darwin",
    "platform_system": "Darwin",
    "os_name": "posix",
    "platform_machine": "arm64",
}
PLATFORMS: Mapping[str, Mapping[str, str]] = {"linux": LINUX, "macos": MACOS}


@dataclass(frozen=True, kw_only=True, slots=True)
class Package:
    """A distribution of somebody else, at the version that is pinned."""

    name: str
    version: str
    needs: frozenset[str]
    """Names of what it needs itself."""
    platforms: frozenset[str]
    """Where it is installed: `linux`, `macos`."""


class Pins:
    """The pins of a tree, and what is installed.

    Args:
        constraints: Text of constraints.txt.
        ours: Our rooms.
    """

    def __init__(self, constraints: str, ours: Iterable[Room]) -> None:
        lines = (line.split("#")[0].strip() for line in constraints.splitlines())
        self._lines = [Requirement(line) for line in lines if line]
        self._ours = {room.name: room for room in ours}

    def ours(self, room: Room) -> list[str]:
        """Return the other rooms that a room needs, directly."""
        names = {canonicalize_name(Requirement(text).name) for text in _all(room)}
        return sorted(names & set(self._ours) - {room.name})

    def direct(self, room: Room) -> list[str]:
        """Return the packages of others that a room asks for itself, extras included."""
        asked: set[str] = set()
        for platform in PLATFORMS.values():
            wanted = [r for r in map(Requirement, _all(room)) if _applies(r, platform)]
            asked |= {canonicalize_name(one.name) for one in wanted}
        return sorted(asked - set(self._ours))

    def packages(self, room: Room) -> list[Package]:
        """Return everything of others that a room and the rooms that it needs bring along.

        Raises:
            ReleaseError: Something is not pinned.
        """
        found: dict[tuple[str, str], tuple[set[str], set[str]]] = {}
        for name, platform in PLATFORMS.items():
            for package, (version, needs) in self._closure(room, platform).items():
                joined, where = found.setdefault((package, version), (set(), set()))
                joined |= needs
                where.add(name)
        return [
            Package(name=name, version=version, needs=frozenset(needs), platforms=frozenset(where))
            for (name, version), (needs, where) in sorted(found.items())
        ]

    def _closure(self, room: Room, platform: Mapping[str, str]) -> dict[str, tuple[str, set[str]]]:
        found: dict[str, tuple[str, set[str]]] = {}
        seen: set[tuple[str, frozenset[str]]] = set()
        waiting = [Requirement(text) for text in _all(room)]
        while waiting:
            wanted = waiting.pop()
            name = canonicalize_name(wanted.name)
            key = (name, frozenset(wanted.extras))
            if key in seen or not _applies(wanted, platform):
                continue
            seen.add(key)
            if name in self._ours:
                waiting += [Requirement(text) for text in _all(self._ours[name])]
                continue
            needs = _needs(name, wanted.extras, platform)
            waiting += needs
            known = found.setdefault(name, (self._version(name, platform), set()))[1]
            known |= {canonicalize_name(one.name) for one in needs}
        return found

    def _version(self, name: str, platform: Mapping[str, str]) -> str:
        for line in self._lines:
            if canonicalize_name(line.name) == name and _applies(line, platform):
                (pin,) = line.specifier
                return pin.version
        raise ReleaseError(f"{name} is needed and not pinned; run `make lock`")


def _all(room: Room) -> list[str]:
    return [*room.requires, *(text for extra in room.extras.values() for text in extra)]


def _applies(wanted: Requirement, platform: Mapping[str, str]) -> bool:
    if wanted.marker is None:
        return True
    return wanted.marker.evaluate(_environment(platform, ""))


def _environment(platform: Mapping[str, str], extra: str) -> dict[str, str]:
    here = {name: str(value) for name, value in default_environment().items()}
    return {**here, **platform, "extra": extra}


def _needs(name: str, extras: set[str], platform: Mapping[str, str]) -> list[Requirement]:
    here = [_environment(platform, extra) for extra in ("", *extras)]
    needs = []
    for one in _declared(name):
        if one.marker is None or any(one.marker.evaluate(each) for each in here):
            # What is needed is decided; its own dependencies are judged anew.
            kept = copy(one)
            kept.marker = None
            needs.append(kept)
    return needs


@cache
def _declared(name: str) -> tuple[Requirement, ...]:
    """Return what an installed package says that it needs; nothing where it is not installed."""
    try:
        return tuple(Requirement(text) for text in metadata.requires(name) or ())
    except metadata.PackageNotFoundError:
        return ()


def constraints_of(tree: Path) -> str:
    """Return the text of the pins of a tree."""
    return (tree / "constraints.txt").read_text()
