"""Agent versions, compared as semver compares their numbers."""

import re
from functools import lru_cache

_NUMBERS = re.compile(r"v?(\d{1,6})(?:\.(\d{1,6}))?(?:\.(\d{1,6}))?(-)?")


def below_floor(version: str, floor: str) -> bool:
    """Return whether an agent is older than the oldest that is routed; no floor stops nobody."""
    return bool(floor) and version_key(version) < version_key(floor)


@lru_cache(maxsize=512)
def version_key(text: str) -> tuple[int, int, int, int]:
    """Return a key that orders versions; what does not parse is older than everything.

    A pre-release sorts before its release.
    """
    match = _NUMBERS.match(text)
    if match is None:
        return (-1, 0, 0, 0)
    major, minor, patch, pre = match.groups()
    return (int(major), int(minor or 0), int(patch or 0), 0 if pre else 1)
