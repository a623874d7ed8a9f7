"""What keeps a release from being made, each reason by name."""

from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from tools.release import changelog, preparing
from tools.release.errors import ReleaseError
from tools.release.gates import Facts, refusals

LOG = """\
# Changelog

## [Unreleased]

### Added

- Later.

## [0.2.0] - 2026-11-30

### Added

- One thing,
  on two lines.

### Fixed

- Another.

## [0.1.0] - 2026-11-22

- First.
"""
NOTES = "# Upgrading\n\nRules.\n\n## 0.2.0\n\nNothing to do.\n\n## 0.1.0\n\nFirst.\n"
GOOD = Facts(
    version="0.2.0",
    declared="0.2.0",
    stale=(),
    dirty=(),
    tags=("v0.1.0",),
    tagged="a" * 40,
    head="a" * 40,
    changelog=LOG,
    upgrading=NOTES,
)


def test_a_clean_higher_described_version_is_released() -> None:
    assert refusals(GOOD) == []
    assert refusals(replace(GOOD, tags=("v0.1.0", "v0.2.0"))) == []


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        (replace(GOOD, version="0.2"), "three numbers"),
        (replace(GOOD, dirty=(" M Makefile",)), "the tree is dirty: 1 files, first 'M Makefile'"),
        (replace(GOOD, declared="0.3.0"), "the tree says 0.3.0"),
        (replace(GOOD, stale=("provider/pyproject.toml",)), "provider/pyproject.toml says another"),
        (replace(GOOD, tags=("v0.1.0", "v0.3.0")), "not higher than the released v0.3.0"),
        (replace(GOOD, tags=("v0.10.0",)), "not higher than the released v0.10.0"),
        (replace(GOOD, tagged="b" * 40), "is another commit"),
        (replace(GOOD, tagged=None), "the tag v0.2.0 is missing"),
        (replace(GOOD, changelog=LOG.replace("[0.2.0]", "[0.9.0]")), "no section [0.2.0]"),
        (replace(GOOD, changelog=LOG.replace(" - 2026-11-30", "")), "has no date"),
        (replace(GOOD, upgrading="# Upgrading\n"), "has no notes for 0.2.0"),
        (replace(GOOD, upgrading=NOTES.replace("Nothing", "WRITE:")), "still the skeleton"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_release_is_refused(facts: Facts, reason: str) -> None:
    (found,) = refusals(facts)
    assert reason in found


def test_every_reason_is_said_at_once() -> None:
    bad = replace(GOOD, dirty=("?? x",), declared="0.1.9", changelog="", upgrading="")
    assert len(refusals(bad)) == 4


def test_what_is_unreleased_becomes_the_version() -> None:
    text = changelog.cut(LOG, "0.3.0", date(2026, 12, 1))
    sections = changelog.sections(text)
    assert list(sections) == ["Unreleased", "0.3.0", "0.2.0", "0.1.0"]
    assert sections["Unreleased"] == ""
    assert changelog.entries(sections["0.3.0"]) == ["- Later."]
    assert changelog.entries(sections["0.2.0"]) == ["- One thing,\n  on two lines.", "- Another."]
    assert changelog.days(text)["0.3.0"] == "2026-12-01"
    with pytest.raises(ReleaseError, match="nothing to release"):
        changelog.cut(text, "0.4.0", date(2026, 12, 2))
    with pytest.raises(ReleaseError, match="already"):
        changelog.cut(LOG, "0.2.0", date(2026, 12, 2))


def test_nothing_is_prepared_below_what_was_released(tmp_path: Path) -> None:
    (tmp_path / "CHANGELOG.md").write_text(LOG)
    for version in ("0.1.9", "0.2.0"):
        with pytest.raises(ReleaseError, match=r"not higher than the released 0\.2\.0"):
            preparing.prepare(tmp_path, version, date(2026, 12, 1))
    assert (tmp_path / "CHANGELOG.md").read_text() == LOG
