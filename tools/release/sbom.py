"""Bills of materials: CycloneDX 1.6, JSON, one for each room and one for all.

The same commit gives the same bytes: the time is the commit's, and the serial number follows from
the content.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from functools import cache, lru_cache
from importlib import metadata
from typing import Any

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.bom_ref import BomRef
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import License, LicenseAcknowledgement
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

from tools.release.errors import ReleaseError
from tools.release.pins import Package, Pins
from tools.release.rooms import Room

_NAMESPACE = uuid.UUID("6d7ad0d2-3c4f-5f0e-9d7a-6b5d1c0f2a41")
_PROPERTY = "darkbloom:"
_CLASSIFIERS = {
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD-3-Clause",
    "MIT License": "MIT",
    "ISC License (ISCL)": "ISC",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
}
_WORDS = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache 2.0 License": "Apache-2.0",
    "Apache License 2.0": "Apache-2.0",
    "BSD": "BSD-3-Clause",
}
_MAX_NAME_CHARS = 80


def of_room(
    room: Room, pins: Pins, *, version: str, seconds: int, wheels: Iterable[tuple[str, str]] = ()
) -> str:
    """Return the bill of one room.

    Args:
        room: Which.
        pins: What is pinned.
        version: Of our rooms.
        seconds: Time of the commit, since the epoch.
        wheels: Names and SHA-256 of the files that the room is installed from.
    """
    subject = _ours(room.name, version, ComponentType.APPLICATION)
    for name, digest in wheels:
        subject.properties.add(Property(name=f"{_PROPERTY}sha256:{name}", value=digest))
    parts = {name: _ours(name, version, ComponentType.LIBRARY) for name in pins.ours(room)}
    packages = pins.packages(room)
    bom = _bom(subject, seconds)
    others = _add(bom, packages)
    for part in parts.values():
        bom.components.add(part)
    wanted = [others[name] for name in pins.direct(room) if name in others]
    bom.register_dependency(subject, [*parts.values(), *wanted])
    _link(bom, packages, others)
    return _text(bom)


def of_all(rooms: Sequence[Room], pins: Pins, *, version: str, seconds: int) -> str:
    """Return the bill of the whole release."""
    subject = _ours("darkbloom", version, ComponentType.APPLICATION)
    bom = _bom(subject, seconds)
    joined: dict[tuple[str, str], Package] = {}
    for room in rooms:
        for one in pins.packages(room):
            known = joined.get((one.name, one.version), one)
            joined[one.name, one.version] = Package(
                name=one.name,
                version=one.version,
                needs=one.needs | known.needs,
                platforms=one.platforms | known.platforms,
            )
    packages = list(joined.values())
    others = _add(bom, packages)
    parts = {room.name: _ours(room.name, version, ComponentType.APPLICATION) for room in rooms}
    for room in rooms:
        bom.components.add(parts[room.name])
        wanted = [others[name] for name in pins.direct(room) if name in others]
        neighbours = [parts[name] for name in pins.ours(room)]
        bom.register_dependency(parts[room.name], [*neighbours, *wanted])
    bom.register_dependency(subject, parts.values())
    _link(bom, packages, others)
    return _text(bom)


@lru_cache(maxsize=64)
def fault(text: str) -> str | None:
    """Return why a bill is none by CycloneDX's own schema; None where it is one."""
    try:
        found = _validator().validate_str(text)
    except ValueError:
        return "it is no JSON"
    if found is None:
        return None
    return str(getattr(found.data, "message", found.data)).splitlines()[0]


@cache
def _validator() -> JsonStrictValidator:
    return JsonStrictValidator(SchemaVersion.V1_6)


@cache
def licence(name: str) -> License | None:
    """Return the licence that an installed package declares; None where it is not installed.

    An expression wins over a classifier, a classifier over free text.
    """
    try:
        said = metadata.metadata(name)
    except metadata.PackageNotFoundError:
        return None
    declared = LicenseAcknowledgement.DECLARED
    make = LicenseFactory()
    if said["License-Expression"]:
        return make.make_from_string(said["License-Expression"], license_acknowledgement=declared)
    classified = [
        _CLASSIFIERS[tail]
        for line in said.get_all("Classifier") or ()
        if (tail := line.rpartition(" :: ")[2]) in _CLASSIFIERS
    ]
    if classified:
        text = " OR ".join(sorted(set(classified)))
        return make.make_from_string(text, license_acknowledgement=declared)
    free = (said["License"] or "").strip().partition("\n")[0][:_MAX_NAME_CHARS]
    if not free:
        return None
    return make.make_from_string(_WORDS.get(free, free), license_acknowledgement=declared)


def _ours(name: str, version: str, kind: ComponentType) -> Component:
    return Component(
        name=name,
        version=version,
        type=kind,
        bom_ref=BomRef(f"{name}@{version}"),
        purl=PackageURL("generic", name=name, version=version),
    )


def _bom(subject: Component, seconds: int) -> Bom:
    bom = Bom()
    bom.metadata.timestamp = datetime.fromtimestamp(seconds, UTC)
    bom.metadata.component = subject
    return bom


def _add(bom: Bom, packages: Iterable[Package]) -> dict[str, Component]:
    """Add components of others; returns them by name (the newest, where two are pinned)."""
    made = {}
    for package in packages:
        purl = PackageURL("pypi", name=package.name, version=package.version)
        component = Component(
            name=package.name,
            version=package.version,
            type=ComponentType.LIBRARY,
            bom_ref=BomRef(purl.to_string()),
            purl=purl,
            properties=[
                Property(name=f"{_PROPERTY}platform", value=where) for where in package.platforms
            ],
        )
        found = licence(package.name)
        if found is not None:
            component.licenses.add(found)
        bom.components.add(component)
        made[package.name] = component
    return made


def _link(bom: Bom, packages: Iterable[Package], others: dict[str, Component]) -> None:
    for package in packages:
        needs = sorted(name for name in package.needs if name in others and name != package.name)
        bom.register_dependency(others[package.name], [others[name] for name in needs])


def _text(bom: Bom) -> str:
    """Render, with a serial number that follows from everything else."""
    bom.serial_number = _NAMESPACE
    document: dict[str, Any] = json.loads(JsonV1Dot6(bom).output_as_string())
    plain = json.dumps(document, sort_keys=True)
    document["serialNumber"] = f"urn:uuid:{uuid.uuid5(_NAMESPACE, plain)}"
    text = json.dumps(document, indent=1, sort_keys=True) + "\n"
    if (why := fault(text)) is not None:
        raise ReleaseError(f"the bill of materials is not CycloneDX: {why}")
    return text
