"""Where the files of a release come from: an in-toto Statement v1 with SLSA provenance v1.

It says what this build knows: the commit, the pins, the tools' versions. It is made and signed by
who built, on a machine of theirs: SLSA build level 1, signed; nothing here claims more.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://slsa.dev/provenance/v1"
MEDIA_TYPE = "application/vnd.in-toto+json"
BUILD_TYPE = "https://darkbloom.invalid/release/wheels/v1"
"""A name, not an address: `docs/releasing.md` describes it."""
TOOLS = ("hatchling", "cyclonedx-python-lib", "cryptography", "packaging")


@dataclass(frozen=True, kw_only=True, slots=True)
class Build:
    """What was built, from what, by whom, when."""

    version: str
    commit: str
    builder: str
    """URI of who built, as they name themselves."""
    source: str
    """URI of the repository, as they name it."""
    began: datetime
    ended: datetime


def materials(tree: Path) -> dict[str, str]:
    """Return SHA-256 of each file that pins what goes into a release, by its path."""
    pinned = [tree / "constraints.txt", tree / "deploy" / "images.env"]
    pinned += sorted((tree / "deploy" / "requirements").glob("*.txt"))
    return {
        path.relative_to(tree).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in pinned
    }


def statement(build: Build, subjects: Mapping[str, str], pinned: Mapping[str, str]) -> bytes:
    """Return the statement.

    Args:
        build: What is said about it.
        subjects: SHA-256 by name of each file of the release.
        pinned: SHA-256 by path of what pins its ingredients.
    """
    source = {
        "uri": f"{build.source}@refs/tags/v{build.version}",
        "digest": {"gitCommit": build.commit},
    }
    document: dict[str, Any] = {
        "_type": STATEMENT,
        "subject": [
            {"name": name, "digest": {"sha256": digest}}
            for name, digest in sorted(subjects.items())
        ],
        "predicateType": PREDICATE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {"version": build.version, "commit": build.commit},
                "internalParameters": {
                    "python": platform.python_version(),
                    "tools": {name: metadata.version(name) for name in TOOLS},
                },
                "resolvedDependencies": [
                    source,
                    *(
                        {"name": name, "digest": {"sha256": digest}}
                        for name, digest in sorted(pinned.items())
                    ),
                ],
            },
            "runDetails": {
                "builder": {"id": build.builder},
                "metadata": {"startedOn": _time(build.began), "finishedOn": _time(build.ended)},
            },
        },
    }
    return json.dumps(document, indent=1, sort_keys=True).encode() + b"\n"


def _time(when: datetime) -> str:
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
