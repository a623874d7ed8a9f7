"""Before a release: its section of the changelog, a place for its notes, its version everywhere."""

from __future__ import annotations

from datetime import date
from pathlib import Path

from tools.release import changelog, versions
from tools.release.errors import ReleaseError

SKELETON = """\
## {version}

**Migrations.** WRITE: which rooms migrate, what is expanded, what an old pod may still read.

**Settings.** WRITE: new, changed and removed variables, or "none".

**Protocol.** WRITE: what agents and rooms of the release before must know, or "additive".

**Rollback.** WRITE: to which version, and what is lost by it.

"""


def prepare(root: Path, version: str, day: date) -> list[str]:
    """Write what can be written; returns what a person has to do next.

    Raises:
        ReleaseError: The version is none, was released, or nothing is unreleased.
    """
    asked = versions.parse(version)
    log = root / "CHANGELOG.md"
    text = log.read_text()
    known = [name for name in changelog.sections(text) if name != changelog.UNRELEASED]
    later = [name for name in known if versions.parse(name) >= asked]
    if later:
        raise ReleaseError(f"{version} is not higher than the released {later[0]}")
    log.write_text(changelog.cut(text, version, day))
    versions.write(version, root)

    todo = []
    upgrading = root / "docs" / "upgrading.md"
    notes = upgrading.read_text()
    if not changelog.notes(notes, version):
        at = notes.find("\n## ")
        head, rest = (notes[: at + 1], notes[at + 1 :]) if at >= 0 else (notes + "\n", "")
        upgrading.write_text(head + SKELETON.format(version=version) + rest)
    if "WRITE:" in changelog.notes(upgrading.read_text(), version):
        todo.append(f"write the notes for {version} in docs/upgrading.md")
    todo.append("read the section in CHANGELOG.md as an operator would")
    todo.append("`make check`, commit, have it approved (docs/releasing.md)")
    todo.append(f"`git tag --annotate v{version}`, then `make release VERSION={version} KEY=…`")
    return todo
