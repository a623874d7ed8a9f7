"""From an archive to a tree that was measured and has run once."""

from __future__ import annotations

import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from darkbloom_edge.release import ReleaseManifest

from darkbloom_provider import code_release
from darkbloom_provider.errors import ProviderError
from darkbloom_provider.service.running import Runner
from darkbloom_provider.update.results import UpdateError, UpdateResult

MAX_MEMBERS: Final = 200_000
MAX_TREE_BYTES: Final = 16 << 30
_LAYOUTS: Final = (
    ("bin/python3", "lib/python3.*/site-packages"),
    (
        "*.app/Contents/Helpers/DarkbloomPython.app/Contents/MacOS/python3",
        "*.app/Contents/Helpers/DarkbloomPython.app/Contents/Resources/lib/python3.*/site-packages",
    ),
)
"""Where a tree keeps its interpreter and its packages: plain, or as a Mac application."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """The parts of a tree that matter here."""

    python: Path
    site: Path


def unpack(archive: Path, target: Path, run: Runner) -> None:
    """Unpack an archive whose bytes were checked.

    Raises:
        UpdateError: it is damaged, too large, or would write elsewhere.
    """
    target.mkdir()
    with archive.open("rb") as file:
        packed_by_ditto = file.read(2) == b"PK"
    if packed_by_ditto:
        # Signed applications have links and attributes that only the system's own tool restores.
        done = run(("/usr/bin/ditto", "-x", "-k", str(archive), str(target)))
        if not done.ok:
            raise UpdateError(UpdateResult.REPLACE_FAILED, "the archive cannot be unpacked here")
        return
    try:
        with tarfile.open(archive, "r:gz") as tar:
            members, size = 0, 0
            for member in tar:
                members, size = members + 1, size + member.size
                if members > MAX_MEMBERS or size > MAX_TREE_BYTES:
                    raise UpdateError(UpdateResult.REPLACE_FAILED, "the archive is too large")
                _extract(tar, member, target)
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        raise UpdateError(
            UpdateResult.REPLACE_FAILED,
            f"the archive cannot be unpacked ({type(error).__name__})",
        ) from None


def _extract(tar: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
    """Write one member; devices, absolute names and links that lead out are refused."""
    if hasattr(tarfile, "data_filter"):
        tar.extract(member, target, filter="data")
        return
    # Before 3.11.4 there is no such filter, and the system's Python may be older.
    root = target.resolve()
    place = target / member.name
    ends = [place.parent]
    if member.issym():
        ends.append(place.parent / member.linkname)
    elif member.islnk():
        ends.append(target / member.linkname)
    elif not (member.isreg() or member.isdir()):
        raise tarfile.TarError
    if any(not end.resolve().is_relative_to(root) for end in ends) or place.is_symlink():
        raise tarfile.TarError
    tar.extract(member, target, set_attrs=not member.issym())


def layout_of(tree: Path) -> Layout:
    """Find interpreter and packages.

    Raises:
        UpdateError: this is not a tree of ours.
    """
    for python, site in _LAYOUTS:
        pythons, sites = list(tree.glob(python)), list(tree.glob(site))
        if len(pythons) == len(sites) == 1:
            return Layout(python=pythons[0], site=sites[0])
    raise UpdateError(UpdateResult.REPLACE_FAILED, "the archive holds no installation")


def check_tree(tree: Path, manifest: ReleaseManifest, run: Runner) -> None:
    """Measure an unpacked tree, run it once, and let its engine compute.

    Raises:
        UpdateError: it is not what was signed, or does not run on this machine.
    """
    layout = layout_of(tree)
    try:
        found = code_release.measure(layout.site, layout.python)
    except (OSError, ProviderError):
        raise UpdateError(
            UpdateResult.HASH_MISMATCH, "the unpacked tree cannot be measured"
        ) from None
    signed = (manifest.runtime_hash, manifest.python_hash, manifest.release_version)
    if (found.runtime_hash, found.python_hash, found.version) != signed:
        raise UpdateError(UpdateResult.HASH_MISMATCH, "the unpacked tree is not what was signed")
    if sys.platform == "darwin" and (apps := list(tree.glob("*.app"))):
        verify = ("/usr/bin/codesign", "--verify", "--deep", "--strict", str(apps[0]))
        if not run(verify).ok:
            raise UpdateError(UpdateResult.HASH_MISMATCH, "the application's signature is broken")
    agent = (str(layout.python), "-I", "-B", "-m", "darkbloom_provider")
    done = run((*agent, "--version"))
    if not done.ok or done.output.strip() != manifest.release_version:
        raise UpdateError(
            UpdateResult.REPLACE_FAILED,
            f"{manifest.release_version} does not run on this machine",
            "it stays as it was; tell the operator which system this is",
        )
    if not run((*agent, "runtime-smoke")).ok:
        raise UpdateError(
            UpdateResult.REPLACE_FAILED,
            f"the engine of {manifest.release_version} does not run on this machine",
            "it stays as it was; tell the operator which system this is",
        )
