"""Which code runs here: hashes over the interpreter, the installed agent and its libraries.

The measurer is the measured, so this proves nothing against an owner who lies; it tells an honest
agent from an outdated one and names the release in verdicts (security section 6). Unlike the
original scheme, records cover names and modes; `darkbloom_edge.release` says how they are hashed.
"""

from __future__ import annotations

import hashlib
import json
import platform
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from importlib import import_module, metadata
from pathlib import Path

from darkbloom_edge.documents import rfc3339
from darkbloom_edge.release import (
    EXECUTABLE_BITS,
    Bundle,
    Library,
    Package,
    ReleaseManifest,
    TreeFile,
    code_release_id,
    runtime_hash,
)

from darkbloom_provider.errors import ProviderError

PACKAGES = ("darkbloom_provider", "darkbloom_edge", "darkbloom_mesh")
"""Our own packages that touch a request here."""
LIBRARIES = (
    "cryptography",
    "grpcio",
    "jinja2",
    "mlx",
    "mlx-lm",
    "msgspec",
    "orjson",
    "protobuf",
    "pynacl",
    "tokenizers",
    "transformers",
)
"""Distributions whose code sees plaintext or keys; named by version, and by the hashes their
installer recorded.
"""

_CHUNK = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class CodeRelease:
    """One measured tree of code."""

    code_release: str
    """`sha256:` and `runtime_hash`."""
    python_hash: str
    """SHA-256 of the interpreter, hex."""
    runtime_hash: str
    """Over the records of our packages and of the libraries, hex."""
    template_hashes: dict[str, str]
    """Chat templates shipped with the agent; empty while models bring their own."""
    version: str
    """Agent version, semver."""
    platform: str
    """For example `linux-x86_64` or `macos-arm64`."""
    packages: tuple[Package, ...] = field(repr=False)
    """Our own packages, file by file."""
    libraries: tuple[Library, ...] = field(repr=False)
    """What else sees plaintext or keys."""

    def announcement(self) -> str:
        """Return it as the attestation service takes it, JSON."""
        return json.dumps(
            {
                "code_release": self.code_release,
                "version": self.version,
                "platform": self.platform,
                "python_hash": self.python_hash,
                "runtime_hash": self.runtime_hash,
                "template_hashes": self.template_hashes,
            },
            indent=2,
        )

    def manifest(self, created: datetime, bundle: Bundle | None = None) -> ReleaseManifest:
        """Return what an operator signs; `bundle` is the archive that installs it."""
        return ReleaseManifest(
            release_version=self.version,
            platform=self.platform,
            code_release=self.code_release,
            python_hash=self.python_hash,
            runtime_hash=self.runtime_hash,
            template_hashes=self.template_hashes,
            packages=list(self.packages),
            libraries=list(self.libraries),
            created_at=rfc3339(created),
            bundle=bundle,
        )


def platform_name() -> str:
    """Return what releases call this platform, for example `macos-arm64`."""
    return f"{'macos' if sys.platform == 'darwin' else sys.platform}-{platform.machine()}"


def measure(site: Path | None = None, python: Path | None = None) -> CodeRelease:
    """Hash an installation; takes tens of milliseconds, so call it off the event loop.

    Args:
        site: a folder that holds everything, such as `site-packages` of a release that another
            interpreter measures; None is the running installation.
        python: its interpreter; None is the running one.
    """
    packages = tuple(
        Package(name=name, files=list(tree_files(_root(name, site)))) for name in PACKAGES
    )
    libraries = tuple(_library(name, site) for name in LIBRARIES)
    hashed = runtime_hash(packages, libraries)
    return CodeRelease(
        code_release=code_release_id(hashed),
        python_hash=file_hash((python or Path(sys.executable)).resolve()),
        runtime_hash=hashed,
        template_hashes={},
        version=_version(site),
        platform=platform_name(),
        packages=packages,
        libraries=libraries,
    )


def tree_files(root: Path) -> Iterable[TreeFile]:
    """Return a folder's files but compiled ones; links count as the files they name."""
    for path in sorted(_sources(root)):
        stat = path.stat()
        yield TreeFile(
            path=path.relative_to(root).as_posix(),
            mode=format(stat.st_mode & EXECUTABLE_BITS, "o"),
            size=stat.st_size,
            sha256=file_hash(path),
        )


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file, hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _root(name: str, site: Path | None) -> Path:
    if site is not None:
        return site / name
    return Path(str(import_module(name).__file__)).parent


def _sources(root: Path) -> Iterable[Path]:
    return (
        path
        for path in root.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc"
    )


def _distribution(name: str, site: Path | None) -> metadata.Distribution | None:
    if site is None:
        try:
            return metadata.distribution(name)
        except metadata.PackageNotFoundError:
            return None
    return next(iter(metadata.distributions(name=name, path=[str(site)])), None)


def _version(site: Path | None) -> str:
    found = _distribution("darkbloom-provider", site)
    if found is None:
        raise ProviderError(f"{site} holds no darkbloom-provider")
    return found.version


def _library(name: str, site: Path | None) -> Library:
    distribution = _distribution(name, site)
    if distribution is None:
        return Library(name=name, installed="")
    record = distribution.read_text("RECORD") or ""
    files = sorted(line for line in record.splitlines() if not _unstable(line))
    return Library(
        name=name,
        installed=distribution.version,
        listing_sha256=hashlib.sha256("\n".join(files).encode()).hexdigest(),
    )


def _unstable(line: str) -> bool:
    # Installers add compiled files, scripts and their own notes; none of them is the library's
    # code.
    path = line.split(",", 1)[0]
    return path.endswith(".pyc") or ".dist-info/" in path or path.startswith("../")
