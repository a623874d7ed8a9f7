"""What keeps a release from being made. Pure: the facts are handed in, every reason is named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tools.release import changelog, versions
from tools.release.errors import ReleaseError


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """What is known of a tree that shall become a release."""

    version: str
    """What is asked for."""
    declared: str
    """What the tree says."""
    stale: Sequence[str]
    """Files that say another version than the tree."""
    dirty: Sequence[str]
    """What git does not know, or knows otherwise."""
    tags: Sequence[str]
    """Tags of releases before this commit, or at it."""
    tagged: str | None
    """Commit of the tag of this version; None where there is none."""
    head: str
    """The commit."""
    changelog: str
    upgrading: str


def refusals(facts: Facts) -> list[str]:
    """Return each reason why this is not to be released, for a person; none where it may be."""
    try:
        wanted = versions.parse(facts.version)
    except ReleaseError as error:
        return [str(error)]
    found = []
    if facts.dirty:
        found.append(
            f"the tree is dirty: {len(facts.dirty)} files, first {facts.dirty[0].strip()!r}; "
            "commit or remove them"
        )
    if facts.version != facts.declared:
        found.append(
            f"the tree says {facts.declared}; run `make release-version VERSION={facts.version}`"
        )
    found += [f"{path} says another version; run `make release-version`" for path in facts.stale]
    if facts.tagged is None:
        found.append(f"the tag v{facts.version} is missing; tag the approved commit first")
    elif facts.tagged != facts.head:
        found.append(f"the tag v{facts.version} is another commit; a version is released once")
    for tag in facts.tags:
        if tag == f"v{facts.version}":
            continue
        if versions.parse(tag.removeprefix("v")) >= wanted:
            found.append(f"{facts.version} is not higher than the released {tag}")
    found += _words(facts)
    return found


def _words(facts: Facts) -> list[str]:
    found = []
    if not changelog.entries(changelog.sections(facts.changelog).get(facts.version, "")):
        found.append(
            f"CHANGELOG.md has no section [{facts.version}]; "
            f"run `make release-prepare VERSION={facts.version}`"
        )
    elif changelog.days(facts.changelog)[facts.version] is None:
        found.append(f"the section [{facts.version}] of CHANGELOG.md has no date")
    notes = changelog.notes(facts.upgrading, facts.version)
    if not notes:
        found.append(f"docs/upgrading.md has no notes for {facts.version}")
    elif "WRITE:" in notes:
        found.append(f"the notes for {facts.version} in docs/upgrading.md are still the skeleton")
    return found
