"""What a release's folder holds, by name."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

SUMS = "SHA256SUMS"
SUMS_SIGNATURE = "SHA256SUMS.dsse.json"
SUMS_TYPE = "application/vnd.darkbloom.sha256sums"
PROVENANCE = "provenance.intoto.json"
NOTES = "NOTES.md"
CONSTRAINTS = "constraints.txt"
BILLS = "sbom"
WHOLE = "darkbloom"
"""Name of the bill of everything."""
_LINE = re.compile(
    r"([0-9a-f]{64})  ([A-Za-z0-9_][A-Za-z0-9_.+-]*(?:/[A-Za-z0-9_][A-Za-z0-9_.+-]*)*)"
)


def bill(room: str) -> str:
    """Return the name of a room's bill of materials."""
    return f"{BILLS}/{room}.cdx.json"


def digest(path: Path) -> str:
    """Return the SHA-256 of a file, hex."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def files(folder: Path) -> list[str]:
    """Return the name of every file in a folder, sorted."""
    found = (path for path in folder.rglob("*") if path.is_file() or path.is_symlink())
    return sorted(path.relative_to(folder).as_posix() for path in found)


def sums_text(sums: Mapping[str, str]) -> str:
    """Return what `sha256sum --check` reads."""
    return "".join(f"{sums[name]}  {name}\n" for name in sorted(sums))


def sums_of(text: str) -> dict[str, str]:
    """Return digests by name.

    Raises:
        ValueError: A line is none, or a name is there twice.
    """
    found: dict[str, str] = {}
    for line in text.splitlines():
        match = _LINE.fullmatch(line)
        if match is None or match[2] in found:
            raise ValueError(line[:120])
        found[match[2]] = match[1]
    return found
