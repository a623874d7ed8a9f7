"""The store believes only whole versions whose bytes are those of their manifest."""

import fcntl
import shutil
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
from darkbloom_provider.models import store as store_module
from darkbloom_provider.models.directory import import_directory
from darkbloom_provider.models.errors import (
    DiskFullError,
    ManifestError,
    ModelBusyError,
    ModelCorruptError,
    ModelExistsError,
    ModelNotFoundError,
)
from darkbloom_provider.models.store import ModelStore, StoredModel, describe

FILES = {"config.json": b"{}", "tokenizer.json": b"{}", "model.safetensors": b"weights"}


def publish(
    store: ModelStore, version: str = "r1", day: int = 1, weights: bytes = b"w"
) -> StoredModel:
    with store.staging("org/one", version) as staging:
        for name, data in (FILES | {"model.safetensors": weights}).items():
            (staging / name).write_bytes(data)
        document = describe(staging, "org/one", version, f"2026-01-0{day}T00:00:00+00:00")
        return store.publish(staging, document)


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path / "store")


def test_the_newest_version_is_the_one_that_is_got(store: ModelStore) -> None:
    publish(store, "r2", day=2)
    publish(store, "r1", day=1)

    assert store.get("org/one").manifest.version == "r2"
    assert [stored.manifest.version for stored in store.list()] == ["r2", "r1"]


def test_an_abandoned_staging_folder_leaves_nothing(store: ModelStore) -> None:
    with store.staging("org/one", "r1") as staging:
        (staging / "model.safetensors").write_bytes(b"half")

    assert store.list() == []
    assert not staging.exists()


@pytest.mark.parametrize("damage", ["change", "shorten", "remove", "add", "link"])
def test_damage_on_disk_is_found(store: ModelStore, tmp_path: Path, damage: str) -> None:
    stored = publish(store)
    weights = stored.directory / "model.safetensors"
    if damage == "change":
        weights.write_bytes(b"x")
    elif damage == "shorten":
        weights.write_bytes(b"")
    elif damage == "remove":
        weights.unlink()
    elif damage == "add":
        (stored.directory / "extra.safetensors").write_bytes(b"x")
    else:
        (tmp_path / "outside").write_bytes(b"w")
        weights.unlink()
        weights.symlink_to(tmp_path / "outside")

    with pytest.raises(ModelCorruptError):
        store.verify(stored)


def test_a_note_beside_the_weights_is_harmless(store: ModelStore) -> None:
    stored = publish(store)
    (stored.directory / "NOTES.txt").write_text("hello")

    assert store.verify(stored) == stored.manifest.aggregate_sha256


def test_a_version_that_was_moved_is_not_believed(store: ModelStore) -> None:
    stored = publish(store)
    shutil.copytree(stored.directory, stored.directory.parent / "r9")

    with pytest.raises(ModelCorruptError):
        store.get("org/one", "r9")
    assert len(store.list()) == 1


def test_other_bytes_under_the_same_version_are_refused(store: ModelStore) -> None:
    publish(store, weights=b"a")

    assert publish(store, weights=b"a", day=2).manifest.created_at.startswith("2026-01-01")
    with pytest.raises(ModelExistsError):
        publish(store, weights=b"b")


def test_a_manifest_that_does_not_fit_the_folder_is_not_published(store: ModelStore) -> None:
    with store.staging("org/one", "r1") as staging:
        (staging / "model.safetensors").write_bytes(b"a")
        document = describe(staging, "org/one", "r1", "2026-01-01")
        (staging / "model.safetensors").write_bytes(b"ab")
        with pytest.raises(ModelCorruptError):
            store.publish(staging, document)


def test_only_one_writer_at_a_time(store: ModelStore) -> None:
    stored = publish(store)
    with (stored.directory.parent / ".lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ModelBusyError), store.staging("org/one", "r2"):
            pass
        with pytest.raises(ModelBusyError):
            store.remove("org/one", "r1")

    store.remove("org/one", "r1")
    assert store.list() == []


def test_what_is_not_there_is_not_found(store: ModelStore) -> None:
    with pytest.raises(ModelNotFoundError):
        store.get("org/one")
    with pytest.raises(ModelNotFoundError):
        store.get("org/one", "r1")
    with pytest.raises(ModelNotFoundError):
        store.remove("org/one", "r1")
    with pytest.raises(ManifestError):
        store.get("../etc")


def test_a_broken_manifest_hides_its_version_only(store: ModelStore) -> None:
    publish(store, "r1")
    broken = publish(store, "r2", day=2)
    (broken.directory / "manifest.json").write_bytes(b"{")

    assert [stored.manifest.version for stored in store.list()] == ["r1"]
    with pytest.raises(ModelCorruptError):
        store.get("org/one", "r2")


def test_a_full_disk_is_told_before_anything_is_written(
    store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = SimpleNamespace(total=10, used=10, free=0)
    monkeypatch.setattr(store_module.shutil, "disk_usage", lambda _path: full)

    with pytest.raises(DiskFullError):
        store.require_space(1)


def test_a_model_folder_is_copied_without_notes_and_code(store: ModelStore, tmp_path: Path) -> None:
    source = tmp_path / "hub"
    source.mkdir()
    for name, data in (FILES | {"README.md": b"hi", "modeling.py": b"boom"}).items():
        (source / name).write_bytes(data)
    (source / "model-2.safetensors").symlink_to(source / "model.safetensors")

    manifest = import_directory(
        source,
        build_id="org/one",
        version="r1",
        root=store.root,
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
    )

    assert {file.path for file in manifest.files} == {*FILES, "model-2.safetensors"}
    assert store.verify(store.get("org/one")) == manifest.aggregate_sha256


def test_a_folder_that_is_no_model_is_refused(store: ModelStore, tmp_path: Path) -> None:
    with pytest.raises(ManifestError):
        import_directory(
            tmp_path,
            build_id="org/one",
            version="r1",
            root=store.root,
            created_at=datetime(2026, 1, 1, tzinfo=UTC),
        )
