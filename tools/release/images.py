"""Images of a release: built and pushed with their own bills and provenance, signed by digest.

Needs docker with buildx, and cosign; neither an engine nor a registry was at hand where this was
written, so it was never run beyond its command lines. A digest that was pushed goes into
deploy/images.env, which everything that deploys reads.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tools.release.errors import ReleaseError
from tools.release.rooms import IMAGES, ROOT

ROOMS = IMAGES
PLATFORMS = "linux/amd64,linux/arm64"
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_TIMEOUT_S = 3600
_NAME = re.compile(r"[a-z0-9][a-z0-9.:-]*(/[a-z0-9][a-z0-9._-]*)*")


class Runner(Protocol):
    """Runs a program."""

    def run(self, argv: Sequence[str]) -> None:
        """Run it to its end; raises ReleaseError where it fails."""
        ...

    def metadata(self, path: Path) -> str:
        """Return what buildx wrote about an image."""
        ...


class Shell:
    """Really runs."""

    def run(self, argv: Sequence[str]) -> None:
        """Run a program; its output is the person's."""
        try:
            code = subprocess.run(list(argv), cwd=ROOT, check=False, timeout=_TIMEOUT_S).returncode
        except FileNotFoundError:
            raise ReleaseError(f"there is no {argv[0]} on this machine") from None
        except subprocess.TimeoutExpired:
            raise ReleaseError(f"{argv[0]} took longer than {_TIMEOUT_S} s") from None
        if code:
            raise ReleaseError(f"`{shlex.join(argv)}` ended with {code}")

    def metadata(self, path: Path) -> str:
        """Read the file."""
        return path.read_text()


class Printed:
    """Only says what would be run."""

    def run(self, argv: Sequence[str]) -> None:
        """Print the command line."""
        print(shlex.join(argv))

    def metadata(self, path: Path) -> str:
        """Return a digest that names nothing."""
        del path
        return json.dumps({"containerimage.digest": f"sha256:{'0' * 64}"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What is built, and where it goes."""

    version: str
    commit: str
    seconds: int
    """Time of the commit; of every file in an image."""
    registry: str
    """Host and path, without the room."""
    key: str
    """Of cosign: a file or a KMS URI; empty signs with the identity of who runs it (keyless)."""
    rooms: Sequence[str] = ROOMS

    def __post_init__(self) -> None:
        """Refuse what is no registry and no room."""
        if _NAME.fullmatch(self.registry) is None:
            raise ReleaseError(f"{self.registry!r} is no registry, such as registry.example/mesh")
        if unknown := sorted(set(self.rooms) - set(ROOMS)):
            raise ReleaseError(f"{', '.join(unknown)} is no room with an image")


def build(plan: Plan, room: str, metadata: Path) -> list[str]:
    """Return the command line that builds and pushes one image, with SBOM and provenance."""
    arguments = {"ROOM": room, "VERSION": plan.version, "COMMIT": plan.commit}
    arguments["SOURCE_DATE_EPOCH"] = str(plan.seconds)
    return [
        *("docker", "buildx", "build", "--file", "deploy/Dockerfile", "--platform", PLATFORMS),
        *(part for pair in arguments.items() for part in ("--build-arg", "=".join(pair))),
        *("--sbom=true", "--provenance=mode=max", "--metadata-file", str(metadata)),
        *("--output", "type=image,push=true,rewrite-timestamp=true"),
        *("--tag", f"{plan.registry}/darkbloom-{room}:{plan.version}", "."),
    ]


def sign(plan: Plan, reference: str) -> list[str]:
    """Return the command line that signs an image, named by its digest and never by its tag."""
    key = ["--key", plan.key] if plan.key else []
    labels = ("-a", f"version={plan.version}", "-a", f"commit={plan.commit}")
    return ["cosign", "sign", "--yes", "--recursive", *key, *labels, reference]


def release(plan: Plan, runner: Runner) -> Iterator[str]:
    """Build, push and sign each image, then write the digests down; yields each reference.

    Raises:
        ReleaseError: A program failed, or named no digest. What was pushed stays pushed: nothing
            names it, and the next run pushes the same.
    """
    pushed: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for room in plan.rooms:
            written = Path(scratch) / f"{room}.json"
            runner.run(build(plan, room, written))
            digest = _digest(runner.metadata(written))
            pushed[room] = f"{plan.registry}/darkbloom-{room}@{digest}"
            runner.run(sign(plan, pushed[room]))
            yield pushed[room]
    named = [f"{room.upper()}_IMAGE={reference}" for room, reference in pushed.items()]
    runner.run([".venv/bin/python", "tools/images.py", *named])


def _digest(metadata: str) -> str:
    try:
        found = json.loads(metadata)["containerimage.digest"]
    except (ValueError, KeyError, TypeError):
        found = ""
    if not isinstance(found, str) or _DIGEST.fullmatch(found) is None:
        raise ReleaseError("buildx named no digest of what it pushed")
    return found
