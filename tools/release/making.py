"""Make the folder of a release out of a commit."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tools.release import changelog, dsse, gates, layout, provenance, sbom, versions, wheels
from tools.release.errors import ReleaseError
from tools.release.pins import Pins, constraints_of
from tools.release.rooms import Room, rooms
from tools.release.trees import Repository

_CHANGELOG = "CHANGELOG.md"
_UPGRADING = "docs/upgrading.md"


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """What is asked for."""

    version: str
    out: Path
    """Folder that is made; it must not exist."""
    key: Ed25519PrivateKey
    builder: str
    source: str


def facts(repository: Repository, version: str) -> gates.Facts:
    """Return what is known of a clone."""
    root = repository.root
    declared = versions.declared(root)
    upgrading = root / _UPGRADING
    return gates.Facts(
        version=version,
        declared=declared,
        stale=[path.relative_to(root).as_posix() for path in versions.stale(declared, root)],
        dirty=repository.dirty(),
        tags=repository.tags(),
        tagged=repository.tagged(f"v{version}"),
        head=repository.head(),
        changelog=(root / _CHANGELOG).read_text(),
        upgrading=upgrading.read_text() if upgrading.exists() else "",
    )


def require(repository: Repository, version: str) -> None:
    """Return where the commit that is checked out may be released as this version.

    Raises:
        ReleaseError: It may not; the message has every reason.
    """
    if reasons := gates.refusals(facts(repository, version)):
        raise ReleaseError("refused:\n" + "\n".join(f"  - {reason}" for reason in reasons))


def make(repository: Repository, order: Order, now: Callable[[], datetime]) -> list[str]:
    """Make a release of the commit that is checked out; returns the names of its files.

    Raises:
        ReleaseError: It is refused, or something cannot be built; no folder is left behind.
    """
    require(repository, order.version)
    if order.out.exists():
        raise ReleaseError(f"{order.out} exists; a release is made once, into a new folder")
    commit = repository.head()
    with tempfile.TemporaryDirectory(prefix="darkbloom-release-") as scratch:
        tree = repository.export(commit, Path(scratch) / "tree")
        made = Path(scratch) / "made"
        began = now()
        unsigned(tree, made, order.version, repository.seconds(commit))
        build = provenance.Build(
            version=order.version,
            commit=commit,
            builder=order.builder,
            source=order.source,
            began=began,
            ended=now(),
        )
        seal(made, build, provenance.materials(tree), order.key)
        order.out.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(made, order.out)
    return layout.files(order.out)


def unsigned(tree: Path, out: Path, version: str, seconds: int) -> None:
    """Write everything that follows from the commit alone: the same bytes each time."""
    wheels.build(tree, out, seconds=seconds)
    all_rooms = rooms(tree)
    pins = Pins(constraints_of(tree), all_rooms)
    (out / layout.BILLS).mkdir()
    for room in all_rooms:
        text = sbom.of_room(
            room, pins, version=version, seconds=seconds, wheels=_wheels(out, room, version)
        )
        (out / layout.bill(room.name)).write_text(text)
    whole = sbom.of_all(all_rooms, pins, version=version, seconds=seconds)
    (out / layout.bill(layout.WHOLE)).write_text(whole)
    shutil.copyfile(tree / "constraints.txt", out / layout.CONSTRAINTS)
    shutil.copytree(tree / "deploy" / "requirements", out / "requirements")
    (out / layout.NOTES).write_text(_notes(tree, version))


def seal(
    out: Path, build: provenance.Build, pinned: dict[str, str], key: Ed25519PrivateKey
) -> None:
    """Write provenance, digests and signatures over what lies in the folder."""
    subjects = {name: layout.digest(out / name) for name in layout.files(out)}
    said = provenance.statement(build, subjects, pinned)
    (out / layout.PROVENANCE).write_text(dsse.sign(provenance.MEDIA_TYPE, said, key))
    sums = {name: layout.digest(out / name) for name in layout.files(out)}
    text = layout.sums_text(sums)
    (out / layout.SUMS).write_text(text)
    (out / layout.SUMS_SIGNATURE).write_text(dsse.sign(layout.SUMS_TYPE, text.encode(), key))


def _wheels(out: Path, room: Room, version: str) -> list[tuple[str, str]]:
    found = out.glob(f"{room.stem}-{version}*")
    return [(path.name, layout.digest(path)) for path in sorted(found)]


def _notes(tree: Path, version: str) -> str:
    said = changelog.sections((tree / _CHANGELOG).read_text())[version]
    upgrade = changelog.notes((tree / _UPGRADING).read_text(), version)
    return f"# {version}\n\n## Upgrading\n\n{upgrade}\n\n## Changes\n\n{said}\n"
