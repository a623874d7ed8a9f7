"""Which code runs here: hashes over the interpreter, the installed agent and its libraries.

The measurer is the measured, so this proves nothing against an owner who lies; it tells an honest
agent from an outdated one and names the release in verdicts (security section 6). Unlike the
original scheme, records cover names and modes: each file contributes `path NUL mode NUL size NUL
sha256 LF`, sorted by path, and the hash of a tree is SHA-256 over them.
"""

from __future__ import annotations

import hashlib
import platform
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module, metadata
from pathlib import Path

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
    """SHA-256 over the records of our packages and the library list, hex."""
    template_hashes: dict[str, str]
    """Chat templates shipped with the agent; empty while models bring their own."""
    version: str
    """Agent version, semver."""
    platform: str
    """For example `linux-x86_64` or `macos-arm64`."""


def measure() -> CodeRelease:
    """Hash the running installation; takes tens of milliseconds, so call it off the event loop."""
    roots = [Path(str(import_module(name).__file__)).parent for name in PACKAGES]
    digest = hashlib.sha256()
    for root in roots:
        digest.update(tree_hash(root).encode("ascii"))
    for name in LIBRARIES:
        digest.update(_library_record(name))
    runtime_hash = digest.hexdigest()
    return CodeRelease(
        code_release=f"sha256:{runtime_hash}",
        python_hash=file_hash(Path(sys.executable).resolve()),
        runtime_hash=runtime_hash,
        template_hashes={},
        version=metadata.version("darkbloom-provider"),
        platform=f"{'macos' if sys.platform == 'darwin' else sys.platform}-{platform.machine()}",
    )


def tree_hash(root: Path) -> str:
    """Return the hash of a folder's files but compiled ones; links count as the files they name."""
    digest = hashlib.sha256()
    for path in sorted(_sources(root)):
        stat = path.stat()
        record = (
            path.relative_to(root).as_posix(),
            format(
                stat.st_mode & 0o111, "o"
            ),  # executable or not; a umask must not change a release
            str(stat.st_size),
            file_hash(path),
        )
        digest.update(("\0".join(record) + "\n").encode())
    return digest.hexdigest()


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file, hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _sources(root: Path) -> Iterable[Path]:
    return (p for p in root.rglob("*") if p.is_file() and "__pycache__" not in p.parts)


def _library_record(name: str) -> bytes:
    try:
        distribution = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return f"{name}\0absent\n".encode()
    record = distribution.read_text("RECORD") or ""
    files = sorted(line for line in record.splitlines() if not _unstable(line))
    listing = hashlib.sha256("\n".join(files).encode()).hexdigest()
    return f"{name}\0{distribution.version}\0{listing}\n".encode()


def _unstable(line: str) -> bool:
    # Installers add compiled files, scripts and their own notes; none of them is the library's
    # code.
    path = line.split(",", 1)[0]
    return path.endswith(".pyc") or ".dist-info/" in path or path.startswith("../")
