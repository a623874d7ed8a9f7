"""The changelog: what is unreleased becomes a version, on a day."""

from __future__ import annotations

import re
from datetime import date

from tools.release.errors import ReleaseError

_HEADING = re.compile(r"(?m)^## \[(?P<name>[^\]]+)\](?: - (?P<day>\d{4}-\d{2}-\d{2}))?$")
UNRELEASED = "Unreleased"


def sections(text: str) -> dict[str, str]:
    """Return the body of each section, newest first."""
    found = list(_HEADING.finditer(text))
    ends = [*(one.start() for one in found), len(text)][1:]
    return {
        one["name"]: text[one.end() : end].strip() for one, end in zip(found, ends, strict=True)
    }


def days(text: str) -> dict[str, str | None]:
    """Return the day of each section."""
    return {one["name"]: one["day"] for one in _HEADING.finditer(text)}


def entries(body: str) -> list[str]:
    """Return the entries of a section, each with its lines, without the headings between."""
    found: list[str] = []
    for line in body.splitlines():
        if line.startswith("- "):
            found.append(line)
        elif line.strip() and not line.startswith("#") and found:
            found[-1] += "\n" + line
    return found


def cut(text: str, version: str, day: date) -> str:
    """Return the changelog with what was unreleased under a version, and nothing unreleased.

    Raises:
        ReleaseError: The version has a section, or nothing is unreleased.
    """
    known = sections(text)
    if version in known:
        raise ReleaseError(f"the changelog has a section for {version} already")
    if UNRELEASED not in known or not entries(known[UNRELEASED]):
        raise ReleaseError("the changelog says nothing under [Unreleased]: nothing to release")
    heading = f"## [{UNRELEASED}]"
    return text.replace(heading, f"{heading}\n\n## [{version}] - {day.isoformat()}", 1)


def notes(text: str, version: str) -> str:
    """Return the notes of a version out of docs/upgrading.md; empty where there are none."""
    found = re.split(r"(?m)^## ", text)
    for part in found[1:]:
        title, _, body = part.partition("\n")
        if title.split()[:1] == [version]:
            return body.strip()
    return ""
