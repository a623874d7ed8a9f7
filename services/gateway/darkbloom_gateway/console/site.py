"""The console's files: read once, named by what is in them, and the fence that browsers put around.

Every asset lives under a directory whose name is a digest of all assets, so that it may be kept for
ever and two versions never mix; only the page itself is asked for again.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable

BASE = "/console"
"""Where the console lives; the paths of the API never begin so."""
PAGES = (
    "account",
    "callback",
    "chat",
    "earnings",
    "keys",
    "link",
    "machines",
    "money",
    "network",
    "usage",
)
"""Paths below the first page; all are the same file, which looks at its own path."""
_INDEX = "index.html"
_HOLE = b"{{assets}}"
_DIGEST_CHARS = 16
_TYPES = {
    "css": "text/css; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
    "txt": "text/plain; charset=utf-8",
}


@dataclass(frozen=True, slots=True)
class Asset:
    """One file as it is sent."""

    content: bytes
    media_type: str
    etag: str
    """Quoted, strong."""


@dataclass(frozen=True, slots=True)
class Site:
    """Everything that the console consists of."""

    version: str
    """Digest of all assets, in hex; a part of their paths."""
    page: Asset
    """The one HTML page."""
    assets: Mapping[str, Asset]
    """By path below the version."""


def load_site(root: Traversable | None = None) -> Site:
    """Read the files of the console.

    Args:
        root: directory of the files; None takes those of this package.

    Raises:
        ValueError: a file is of a kind that has no media type here.
    """
    raw = dict(_walk(root or files("darkbloom_gateway.console").joinpath("static")))
    digest = hashlib.sha256()
    for path, content in sorted(raw.items()):
        digest.update(f"{path}\0{len(content)}\0".encode() + content)
    version = digest.hexdigest()[:_DIGEST_CHARS]
    page = raw.pop(_INDEX).replace(_HOLE, f"{BASE}/assets/{version}".encode())

    return Site(
        version=version,
        page=_asset(_INDEX, page),
        assets={path: _asset(path, content) for path, content in raw.items()},
    )


def fence(sign_in_origin: str | None) -> Mapping[str, str]:
    """Return the headers that keep the page to itself.

    Args:
        sign_in_origin: the one other origin that scripts may call; None: no other.
    """
    policy = {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": "'self'",
        "connect-src": f"'self' {sign_in_origin}" if sign_in_origin else "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        # No text can become markup or code, whatever a script is made to do.
        "require-trusted-types-for": "'script'",
        "trusted-types": "'none'",
    }
    return {
        "content-security-policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
        "cross-origin-opener-policy": "same-origin",
        "cross-origin-resource-policy": "same-origin",
        "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
        "referrer-policy": "no-referrer",
        "strict-transport-security": "max-age=63072000",
        "x-content-type-options": "nosniff",
        "x-frame-options": "DENY",
    }


def _walk(directory: Traversable, prefix: str = "") -> Iterator[tuple[str, bytes]]:
    for entry in directory.iterdir():
        path = f"{prefix}{entry.name}"
        if entry.is_dir():
            yield from _walk(entry, f"{path}/")
        else:
            yield path, entry.read_bytes()


def _asset(path: str, content: bytes) -> Asset:
    kind = path.rpartition(".")[2]
    if kind not in _TYPES:
        raise ValueError(f"no media type for {path}")
    digest = hashlib.sha256(content).hexdigest()[: 2 * _DIGEST_CHARS]
    return Asset(content, _TYPES[kind], f'"{digest}"')
