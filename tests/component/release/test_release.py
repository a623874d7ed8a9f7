"""A release of this very tree, made in a clone: the same twice, signed, checked, tampered with."""

import json
import shutil
import subprocess
import zipfile
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from tools.release import dsse, layout, making, preparing, provenance, sbom, verifying, versions
from tools.release.errors import ReleaseError
from tools.release.rooms import ROOT, rooms
from tools.release.trees import Repository

VERSION = "9.9.9"
NOW = datetime(2030, 1, 2, tzinfo=UTC)
Tamper = Callable[[Path], None]


def git(root: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=test", "-c", "user.email=test@example.invalid")
    subprocess.run(["git", *identity, *arguments], cwd=root, check=True, capture_output=True)


def order(out: Path, key: Ed25519PrivateKey) -> making.Order:
    return making.Order(
        version=VERSION,
        out=out,
        key=key,
        builder="https://example.invalid/builders/test",
        source="git+https://example.invalid/mesh",
    )


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """What is here, as a repository of one commit that is prepared for a release."""
    if not (ROOT / ".git").exists():
        pytest.skip("this tree is no clone")
    root = tmp_path_factory.mktemp("clone")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, root / name)
    text = (root / "CHANGELOG.md").read_text()
    (root / "CHANGELOG.md").write_text(
        text.replace("## [Unreleased]\n", "## [Unreleased]\n\n### Added\n\n- A test.\n", 1)
    )
    git(root, "init", "--quiet")
    preparing.prepare(root, VERSION, date(2030, 1, 2))
    notes = root / "docs" / "upgrading.md"
    notes.write_text(notes.read_text().replace("WRITE:", "Nothing:"))
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message=release")
    git(root, "tag", f"v{VERSION}")
    return Repository(root)


@pytest.fixture(scope="module")
def key() -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(bytes(range(32)))


@pytest.fixture(scope="module")
def public(key: Ed25519PrivateKey) -> Ed25519PublicKey:
    return key.public_key()


@pytest.fixture(scope="module")
def released(
    repository: Repository, key: Ed25519PrivateKey, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    out = tmp_path_factory.mktemp("dist") / VERSION
    making.make(repository, order(out, key), lambda: NOW)
    return out


def test_a_release_holds_both_archives_and_a_bill_of_every_room_and_is_good(
    released: Path, public: Ed25519PublicKey, repository: Repository
) -> None:
    faults = verifying.verify(released, public, version=VERSION, commit=repository.head())
    assert faults == []
    there = set(layout.files(released))
    for room in rooms(repository.root):
        assert f"{room.stem}-{VERSION}-py3-none-any.whl" in there
        assert f"{room.stem}-{VERSION}.tar.gz" in there
        assert layout.bill(room.name) in there
    assert "- A test." in (released / layout.NOTES).read_text()


def test_the_same_commit_gives_the_same_bytes(
    released: Path, repository: Repository, tmp_path: Path
) -> None:
    """Another folder and another time; all but the provenance, which says when, is the same."""
    head = repository.head()
    tree = repository.export(head, tmp_path / "elsewhere")
    making.unsigned(tree, tmp_path / "again", VERSION, repository.seconds(head))
    again = {
        name: layout.digest(tmp_path / "again" / name) for name in layout.files(tmp_path / "again")
    }
    signed = {layout.PROVENANCE, layout.SUMS, layout.SUMS_SIGNATURE}
    assert again == {
        name: layout.digest(released / name) for name in set(layout.files(released)) - signed
    }


def test_sha256sum_agrees(released: Path) -> None:
    checked = subprocess.run(
        ["sha256sum", "--check", "--strict", "--quiet", layout.SUMS],
        cwd=released,
        check=False,
        capture_output=True,
    )
    assert (checked.returncode, checked.stdout) == (0, b"")


def test_the_provenance_names_the_commit_the_pins_and_every_file(
    released: Path, public: Ed25519PublicKey, repository: Repository
) -> None:
    envelope = (released / layout.PROVENANCE).read_text()
    said = json.loads(dsse.opened(provenance.MEDIA_TYPE, envelope, public))
    definition = said["predicate"]["buildDefinition"]
    assert said["_type"] == "https://in-toto.io/Statement/v1"
    assert said["predicateType"] == "https://slsa.dev/provenance/v1"
    assert definition["resolvedDependencies"][0] == {
        "uri": f"git+https://example.invalid/mesh@refs/tags/v{VERSION}",
        "digest": {"gitCommit": repository.head()},
    }
    pinned = {
        one["name"]: one["digest"]["sha256"] for one in definition["resolvedDependencies"][1:]
    }
    assert pinned["constraints.txt"] == layout.digest(ROOT / "constraints.txt")
    assert "deploy/requirements/router.txt" in pinned
    assert len(said["subject"]) == len(layout.files(released)) - 3


def test_a_bill_names_packages_with_versions_licences_and_who_needs_them(released: Path) -> None:
    bill = json.loads((released / layout.bill("darkbloom-router")).read_text())
    parts = {part["name"]: part for part in bill["components"]}
    pins = (released / layout.CONSTRAINTS).read_text()
    assert f"grpcio=={parts['grpcio']['version']}\n" in pins
    assert parts["grpcio"]["licenses"][0]["license"]["id"] == "Apache-2.0"
    assert parts["grpcio"]["purl"] == f"pkg:pypi/grpcio@{parts['grpcio']['version']}"
    edges = {one["ref"]: one.get("dependsOn", []) for one in bill["dependencies"]}
    assert f"darkbloom-protos@{VERSION}" in edges[f"darkbloom-router@{VERSION}"]
    assert "stripe" not in parts

    whole = json.loads((released / layout.bill(layout.WHOLE)).read_text())
    assert {part["name"] for part in whole["components"]} >= {"darkbloom-router", "stripe", "mlx"}
    assert sbom.fault(json.dumps({**whole, "bomFormat": "other"})) is not None


def _append(name: str) -> Tamper:
    def tamper(folder: Path) -> None:
        with (folder / name).open("ab") as file:
            file.write(b"\n")

    return tamper


def _replaced_wheel(folder: Path) -> None:
    """Change code inside a wheel and nothing else."""
    path = folder / f"darkbloom_edge-{VERSION}-py3-none-any.whl"
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    parts["darkbloom_edge/__init__.py"] += b"\n# changed\n"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)


def _wheel_and_sums(folder: Path) -> None:
    """Change a wheel and list its new digest, without a key."""
    _replaced_wheel(folder)
    name = f"darkbloom_edge-{VERSION}-py3-none-any.whl"
    sums = layout.sums_of((folder / layout.SUMS).read_text())
    sums[name] = layout.digest(folder / name)
    (folder / layout.SUMS).write_text(layout.sums_text(sums))


def _everything_by_a_stranger(folder: Path) -> None:
    """Sign it all again with another key."""
    for name in (layout.SUMS, layout.SUMS_SIGNATURE, layout.PROVENANCE):
        (folder / name).unlink()
    _replaced_wheel(folder)
    build = provenance.Build(
        version=VERSION, commit="0" * 40, builder="x:y", source="x:y", began=NOW, ended=NOW
    )
    making.seal(folder, build, {}, Ed25519PrivateKey.from_private_bytes(bytes(32)))


def _swapped_envelopes(folder: Path) -> None:
    """A signature of the right key over something of another type."""
    shutil.copy(folder / layout.PROVENANCE, folder / layout.SUMS_SIGNATURE)


def _removed(name: str) -> Tamper:
    return lambda folder: (folder / name).unlink()


def _added(folder: Path) -> None:
    (folder / "darkbloom_extra-1.0-py3-none-any.whl").write_bytes(b"PK")


TAMPERED: dict[str, tuple[Tamper, set[str]]] = {
    "an archive": (_append(f"darkbloom_router-{VERSION}.tar.gz"), {"file_altered", "sbom_wheel"}),
    "code in a wheel": (_replaced_wheel, {"file_altered", "sbom_wheel", "wheel_record"}),
    "a wheel and the list": (
        _wheel_and_sums,
        {"file_altered", "sums_altered", "sbom_wheel", "wheel_record"},
    ),
    "everything, by a stranger": (
        _everything_by_a_stranger,
        {"sums_signature_bad", "provenance_signature_bad"},
    ),
    "envelopes of each other": (_swapped_envelopes, {"sums_signature_bad"}),
    "no list": (_removed(layout.SUMS), {"sums_missing"}),
    "no signature": (_removed(layout.SUMS_SIGNATURE), {"sums_signature_missing"}),
    "no provenance": (_removed(layout.PROVENANCE), {"file_missing", "provenance_missing"}),
    "no bill": (_removed(layout.bill("darkbloom-edge")), {"file_missing", "sbom_missing"}),
    "other pins": (_append(layout.CONSTRAINTS), {"file_altered", "provenance_pins"}),
    "one file more": (
        _added,
        {"file_unlisted", "sbom_missing", "wheel_malformed"},
    ),
}


@pytest.mark.parametrize(("tamper", "names"), TAMPERED.values(), ids=TAMPERED)
def test_what_was_tampered_with_is_named(
    released: Path, public: Ed25519PublicKey, tmp_path: Path, tamper: Tamper, names: set[str]
) -> None:
    folder = tmp_path / VERSION
    shutil.copytree(released, folder)
    tamper(folder)
    faults = verifying.verify(folder, public)
    assert {fault.name for fault in faults} == names
    assert all(fault.why for fault in faults)


def test_another_version_and_another_commit_are_named(
    released: Path, public: Ed25519PublicKey
) -> None:
    faults = verifying.verify(released, public, version="1.0.0", commit="0" * 40)
    assert [fault.name for fault in faults] == ["provenance_version", "provenance_commit"]


def test_a_release_is_refused_from_a_dirty_tree_and_into_a_folder_that_exists(
    repository: Repository, key: Ed25519PrivateKey, tmp_path: Path
) -> None:
    with pytest.raises(ReleaseError, match="exists"):
        making.make(repository, order(tmp_path, key), lambda: NOW)

    lying = repository.root / "services" / "new.py"
    lying.write_text("")
    try:
        with pytest.raises(ReleaseError, match="dirty"):
            making.make(repository, order(tmp_path / "out", key), lambda: NOW)
    finally:
        lying.unlink()
    assert not (tmp_path / "out").exists()


def test_what_is_prepared_says_its_version_everywhere(repository: Repository) -> None:
    assert versions.declared(repository.root) == VERSION
    assert making.facts(repository, VERSION).stale == []
