"""This machine's mark: drawn once, names nobody, and says in which ring of an update it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from darkbloom_edge.rings import MARK_BYTES, is_mark

from darkbloom_provider.service.files import write_private

_MAX_BYTES = 64


def read_mark(path: Path, entropy: Callable[[int], bytes]) -> str:
    """Return the mark, drawn where there is none; empty where none can be kept."""
    try:
        with path.open("rb") as file:
            kept = file.read(_MAX_BYTES).decode("ascii", "replace").strip()
    except OSError:
        kept = ""
    if is_mark(kept):
        return kept
    mark = entropy(MARK_BYTES).hex()
    try:
        write_private(path, mark.encode())
    except OSError:
        # A mark that changes at each look would find itself in the first ring before long.
        return ""
    return mark
