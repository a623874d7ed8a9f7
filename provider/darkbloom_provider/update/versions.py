"""Which of two versions is newer: semantic versions, pre-releases before their release."""

from __future__ import annotations

import re

_VERSION = re.compile(r"(\d{1,9})\.(\d{1,9})\.(\d{1,9})(?:-([0-9A-Za-z.-]{1,40}))?\Z", re.ASCII)
Order = tuple[int, int, int, bool, tuple[tuple[bool, int, str], ...]]


def order(version: str) -> Order | None:
    """Return what versions are sorted by, or None for what is none."""
    match = _VERSION.match(version)
    if match is None:
        return None
    major, minor, patch = (int(part) for part in match.groups()[:3])
    label = match.group(4)
    parts = tuple(_part(part) for part in label.split(".")) if label else ()
    return major, minor, patch, label is None, parts


def newer(candidate: str, than: str) -> bool:
    """Whether `candidate` is a version, and a later one."""
    ours, theirs = order(than), order(candidate)
    return theirs is not None and (ours is None or theirs > ours)


def _part(text: str) -> tuple[bool, int, str]:
    """Numbers compare as numbers and come before words."""
    number = text.isascii() and text.isdigit()
    return not number, int(text) if number else 0, text
