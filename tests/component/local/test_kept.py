"""Clusters that are kept for the meshes of one process."""

from pathlib import Path

import pytest
from darkbloom_local.errors import LocalError
from darkbloom_local.kept import KeptClusters
from darkbloom_local.stores import Postgres

ROOMS = frozenset({"billing", "registry"})


def cluster(root: Path, name: str, version: str = "") -> Postgres:
    found = Postgres(root / name, durable=False)
    if version:
        found.data.mkdir(parents=True, mode=0o700)
        (found.data / "PG_VERSION").write_text(version)
    return found


def test_a_cluster_begins_as_a_copy_of_the_one_that_was_kept(tmp_path: Path) -> None:
    kept = KeptClusters()
    kept.keep(ROOMS, cluster(tmp_path, "first", "18"))
    second = cluster(tmp_path, "second")

    assert not second.exists
    assert kept.give(ROOMS, second)
    assert second.exists
    assert second.data.stat().st_mode & 0o777 == 0o700


def test_what_a_copy_becomes_reaches_no_later_one(tmp_path: Path) -> None:
    kept = KeptClusters()
    first = cluster(tmp_path, "first", "18")
    kept.keep(ROOMS, first)
    (first.data / "later").write_text("of the first alone")
    second, third = cluster(tmp_path, "second"), cluster(tmp_path, "third")
    assert kept.give(ROOMS, second)
    (second.data / "later").write_text("of the second alone")

    assert kept.give(ROOMS, third)
    assert [path.name for path in third.data.iterdir()] == ["PG_VERSION"]


def test_other_schemas_are_another_cluster(tmp_path: Path) -> None:
    kept = KeptClusters()
    kept.keep(ROOMS, cluster(tmp_path, "first", "18"))
    assert not kept.give(ROOMS | {"router"}, cluster(tmp_path, "second"))


def test_a_cluster_that_cannot_be_read_is_not_kept(tmp_path: Path) -> None:
    kept = KeptClusters()
    with pytest.raises(LocalError, match="cannot copy"):
        kept.keep(ROOMS, cluster(tmp_path, "missing"))
    assert not kept.give(ROOMS, cluster(tmp_path, "second"))
