"""Check a release's folder offline: a public key and the files are all that is needed.

Every fault has a name; all of them are said, not only the first.
"""

from __future__ import annotations

import base64
import hashlib
import json
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from email.parser import HeaderParser
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from tools.release import dsse, layout, provenance, sbom


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong."""

    name: str
    """For programs: one of `docs/releasing.md`."""
    why: str
    """For a person."""

    def __str__(self) -> str:
        """Return one line."""
        return f"{self.name}: {self.why}"


def verify(
    folder: Path, key: Ed25519PublicKey, *, version: str = "", commit: str = ""
) -> list[Fault]:
    """Return everything that is wrong with a release; nothing where it is good.

    Args:
        folder: The release.
        key: Who may sign releases.
        version: What it must be; empty takes what the provenance says.
        commit: Of what it must be made; empty takes any.
    """
    sums, faults = _signed_sums(folder, key)
    faults += _files(folder, sums)
    said, more = _provenance(folder, key, sums)
    faults += more
    if said is None:
        return faults
    asked = _dig(said, "predicate", "buildDefinition", "externalParameters")
    made = str(_dig(asked, "version") or "")
    if version and made != version:
        faults.append(Fault("provenance_version", f"it is {made or 'nameless'}, not {version}"))
    if commit and _dig(asked, "commit") != commit:
        faults.append(Fault("provenance_commit", f"it is of {_dig(asked, 'commit')}, not {commit}"))
    faults += _pins(folder, said)
    faults += _bills(folder, made)
    faults += _wheels(folder, made)
    return faults


def _signed_sums(folder: Path, key: Ed25519PublicKey) -> tuple[dict[str, str], list[Fault]]:
    """Return the digests as they were signed; as they lie there where no signature holds."""
    faults = []
    lying = _text(folder / layout.SUMS)
    if lying is None:
        faults.append(Fault("sums_missing", f"there is no {layout.SUMS}"))
    envelope = _text(folder / layout.SUMS_SIGNATURE)
    signed: str | None = None
    if envelope is None:
        faults.append(Fault("sums_signature_missing", f"there is no {layout.SUMS_SIGNATURE}"))
    else:
        try:
            signed = dsse.opened(layout.SUMS_TYPE, envelope, key).decode("utf-8", "replace")
        except dsse.EnvelopeError as error:
            faults.append(Fault("sums_signature_bad", f"{layout.SUMS_SIGNATURE}: {error}"))
    if signed is not None and lying is not None and signed != lying:
        faults.append(Fault("sums_altered", f"{layout.SUMS} is not what was signed"))
    try:
        return layout.sums_of(signed or lying or ""), faults
    except ValueError as error:
        return {}, [*faults, Fault("sums_malformed", f"a line is none: {error}")]


def _files(folder: Path, sums: dict[str, str]) -> Iterator[Fault]:
    there = set(layout.files(folder)) - {layout.SUMS, layout.SUMS_SIGNATURE}
    for name in sorted(sums):
        if name not in there:
            yield Fault("file_missing", f"{name} is listed and not there")
        elif (folder / name).is_symlink():
            yield Fault("file_altered", f"{name} is a link")
        elif layout.digest(folder / name) != sums[name]:
            yield Fault("file_altered", f"{name} is not what was released")
    for name in sorted(there - set(sums)):
        yield Fault("file_unlisted", f"{name} is there and was not released")


def _provenance(
    folder: Path, key: Ed25519PublicKey, sums: dict[str, str]
) -> tuple[dict[str, Any] | None, list[Fault]]:
    envelope = _text(folder / layout.PROVENANCE)
    if envelope is None:
        return None, [Fault("provenance_missing", f"there is no {layout.PROVENANCE}")]
    try:
        payload = dsse.opened(provenance.MEDIA_TYPE, envelope, key)
    except dsse.EnvelopeError as error:
        return None, [Fault("provenance_signature_bad", f"{layout.PROVENANCE}: {error}")]
    try:
        said = json.loads(payload)
        kinds = (said["_type"], said["predicateType"])
        subjects = {one["name"]: one["digest"]["sha256"] for one in said["subject"]}
    except (ValueError, KeyError, TypeError):
        return None, [Fault("provenance_malformed", "it is no in-toto statement")]
    if kinds != (provenance.STATEMENT, provenance.PREDICATE):
        return None, [Fault("provenance_malformed", f"it is a {kinds[1]} in a {kinds[0]}")]
    wanted = {name: one for name, one in sums.items() if name != layout.PROVENANCE}
    return said, [
        Fault("provenance_subject", f"it says another digest of {name}, or none")
        for name in sorted(set(wanted) | set(subjects))
        if wanted.get(name) != subjects.get(name)
    ]


def _pins(folder: Path, said: dict[str, Any]) -> Iterator[Fault]:
    listed = _dig(said, "predicate", "buildDefinition", "resolvedDependencies") or []
    pinned = {_dig(one, "name"): _dig(one, "digest", "sha256") for one in listed}
    shipped = {layout.CONSTRAINTS: layout.CONSTRAINTS}
    for path in sorted((folder / "requirements").glob("*.txt")):
        shipped[f"deploy/requirements/{path.name}"] = f"requirements/{path.name}"
    for name, lying in shipped.items():
        path = folder / lying
        if path.is_file() and pinned.get(name) != layout.digest(path):
            yield Fault("provenance_pins", f"{lying} is not what the build was pinned with")


def _bills(folder: Path, version: str) -> Iterator[Fault]:
    rooms = sorted({path.name.split("-")[0] for path in folder.glob("*.whl")})
    for name in (*(room.replace("_", "-") for room in rooms), layout.WHOLE):
        text = _text(folder / layout.bill(name))
        if text is None:
            yield Fault("sbom_missing", f"{name} has no bill of materials")
            continue
        if (why := sbom.fault(text)) is not None:
            yield Fault("sbom_malformed", f"{layout.bill(name)}: {why}")
            continue
        subject = _dig(json.loads(text), "metadata", "component") or {}
        if (subject.get("name"), subject.get("version")) != (name, version):
            yield Fault("sbom_version", f"{layout.bill(name)} is of {subject.get('version')}")
        for one in subject.get("properties", ()):
            _, _, file = str(one.get("name")).partition("sha256:")
            if file and _digest(folder / file) != one.get("value"):
                yield Fault("sbom_wheel", f"{layout.bill(name)} is of another {file}")


def _wheels(folder: Path, version: str) -> Iterator[Fault]:
    for path in sorted(folder.glob("*.whl")):
        try:
            with zipfile.ZipFile(path) as archive:
                yield from _wheel(path.name, archive, version)
        except (zipfile.BadZipFile, KeyError, ValueError, StopIteration):
            yield Fault("wheel_malformed", f"{path.name} is no wheel")


def _wheel(name: str, archive: zipfile.ZipFile, version: str) -> Iterator[Fault]:
    names = archive.namelist()
    info = next(one for one in names if one.endswith(".dist-info/METADATA")).rpartition("/")[0]
    said = HeaderParser().parsestr(archive.read(f"{info}/METADATA").decode())["Version"]
    if said != version:
        yield Fault("wheel_version", f"{name} says {said}, the release is {version}")
    recorded = {}
    for line in archive.read(f"{info}/RECORD").decode().splitlines():
        file, digest, _ = line.rsplit(",", 2)
        recorded[file] = digest
    for one in names:
        if one == f"{info}/RECORD":
            continue
        found = base64.urlsafe_b64encode(hashlib.sha256(archive.read(one)).digest())
        if recorded.get(one) != f"sha256={found.decode().rstrip('=')}":
            yield Fault("wheel_record", f"{one} in {name} is not what its RECORD says")


def _text(path: Path) -> str | None:
    try:
        return path.read_bytes().decode("utf-8", "replace")
    except OSError:
        return None


def _digest(path: Path) -> str:
    return layout.digest(path) if path.is_file() else ""


def _dig(found: Any, *names: str) -> Any:
    for name in names:
        if not isinstance(found, dict):
            return None
        found = found.get(name)
    return found
