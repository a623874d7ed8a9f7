"""What the previous release left: its commit, its contracts, its part of the changelog."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.compat.previous import recorded
from tools.release import changelog, versions
from tools.release.rooms import ROOT
from tools.release.trees import Repository

BUF = Path(sys.executable).with_name("buf")


@pytest.fixture(scope="module")
def repository() -> Repository:
    found = Repository()
    tag, _ = recorded()
    if not (ROOT / ".git").exists() or found.tagged(tag) is None:
        pytest.skip(f"the tag {tag} is not in this clone")
    return found


def test_the_record_names_the_commit_of_the_last_tag(repository: Repository) -> None:
    tag, commit = recorded()
    assert repository.tagged(tag) == commit
    newest = max(repository.tags(), key=lambda name: versions.parse(name.removeprefix("v")))
    assert newest in (tag, f"v{versions.declared()}")


def test_the_tree_is_on_its_way_to_a_later_version(repository: Repository) -> None:
    tag, _ = recorded()
    assert versions.parse(versions.declared()) > versions.parse(tag.removeprefix("v"))


def test_nothing_is_added_to_the_changelog_of_a_version_that_was_released(
    repository: Repository,
) -> None:
    """The changelog merges by union, so a line can slip below the heading of a release."""
    tag, commit = recorded()
    version = tag.removeprefix("v")
    then = changelog.sections(repository.text(commit, "CHANGELOG.md"))
    # The first tag was set on a commit whose changelog had no section for it yet.
    released = then.get(version) or then[changelog.UNRELEASED]
    now = changelog.sections((ROOT / "CHANGELOG.md").read_text())[version]
    slipped = set(changelog.entries(now)) - set(changelog.entries(released))
    assert slipped == set(), f"move these lines from [{version}] up to [Unreleased]"


def breaking(against: str, tree: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(BUF), "breaking", str(tree), "--against", against],
        cwd=ROOT,
        env={"PATH": os.defpath, "BUF_CACHE_DIR": str(tree / ".buf")},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.skipif(not BUF.exists(), reason="no buf in this environment")
def test_a_field_taken_from_a_released_message_is_a_break(
    repository: Repository, tmp_path: Path
) -> None:
    """The same command as `make proto-lint`, over a copy in which one field is gone."""
    tag, _ = recorded()
    for name in ("buf.yaml", "protos"):
        source = ROOT / name
        copy = shutil.copytree if source.is_dir() else shutil.copy
        copy(source, tmp_path / name)
    against = f"{ROOT / '.git'}#tag={tag}"
    proto = tmp_path / "protos/darkbloom/common/v1/price.proto"
    text = proto.read_text()
    assert "  string key_id = 3;\n" in text
    proto.write_text(text.replace("  string key_id = 3;\n", ""))

    (found,) = breaking(against, tmp_path).stdout.splitlines()
    assert 'Previously present field "3" with name "key_id" on message "SignedDocument"' in found
