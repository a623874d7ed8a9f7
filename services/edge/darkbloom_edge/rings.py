"""To which machines a release is offered as an update: a stable ring of each release's own.

A machine says a mark that it drew once, which names nobody. Where its place lies below the percent
of a release it is in the ring; a wider ring holds every narrower one, and each release draws other
machines first.
"""

import hashlib
import re
from typing import Final

STEPS: Final = (1, 10, 100)
"""Percent of the machines, in the order of the steps."""
MARK_BYTES: Final = 8
_MARK = re.compile(r"[0-9a-f]{16}\Z")
_PLACES: Final = 10_000


def is_mark(text: str) -> bool:
    """Return whether this is a machine's mark: 16 lower-case hex digits."""
    return _MARK.match(text) is not None


def place(code_release: str, mark: str) -> float:
    """Return where a machine stands for a release, in percent: at least 0 and below 100."""
    digest = hashlib.sha256(f"{code_release}\0{mark}".encode()).digest()
    return int.from_bytes(digest[:8]) % _PLACES * 100 / _PLACES


def in_ring(code_release: str, percent: int, mark: str) -> bool:
    """Return whether a machine is offered a release; one without a mark gets what all get."""
    if percent >= STEPS[-1]:
        return True
    return is_mark(mark) and place(code_release, mark) < percent
