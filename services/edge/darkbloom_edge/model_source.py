"""Where the bytes of a version may be fetched: one line of text per place.

    https://host/folder                   files below it, by path
    hf:org/name@<40 hex>                  a Hugging Face repository at one commit
    s3://bucket/prefix                    an S3-compatible store; the reader knows its endpoint
    file:///folder                        a folder of this machine or of its network

A place is never believed: size and digest of every file come from the signed manifest.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final
from urllib.parse import quote, urlsplit

from darkbloom_edge.errors import MalformedError

MAX_SOURCE_CHARS: Final = 1024
"""Longest text of one place."""
MAX_SOURCES: Final = 8
"""Most places of one version."""

_HUGGING_FACE = re.compile(r"hf:([0-9A-Za-z._-]{1,96}/[0-9A-Za-z._-]{1,96})@([0-9a-f]{40})")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_HOST = re.compile(r"[0-9A-Za-z._-]+|\[[0-9A-Fa-f:.]+\]")
_LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})


class SourceKind(StrEnum):
    """How a place is read."""

    HTTPS = "https"
    HUGGING_FACE = "hf"
    S3 = "s3"
    FILE = "file"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSource:
    """One place; only `parse_source` makes one."""

    kind: SourceKind
    text: str
    """As it was written, without a slash at the end."""
    location: str
    """Base URL, `org/name`, `bucket/prefix` or an absolute path."""
    revision: str = ""
    """Commit of a Hugging Face repository."""

    def file_url(self, path: str, hub: str = "https://huggingface.co") -> str:
        """Return where a file of the version is; for places that speak HTTP.

        Args:
            path: relative path of the file.
            hub: base URL of the Hugging Face hub.
        """
        if self.kind is SourceKind.HUGGING_FACE:
            return f"{hub}/{self.location}/resolve/{self.revision}/{quote(path)}"
        return f"{self.location}/{quote(path)}"


def parse_source(text: str, *, plain_http: bool = False) -> ModelSource:
    """Read one place.

    Args:
        text: see the module.
        plain_http: whether `http` on the loopback is a place too; for development.

    Raises:
        MalformedError: any other scheme or shape.
    """
    if not 0 < len(text) <= MAX_SOURCE_CHARS or not text.isascii() or not text.isprintable():
        raise MalformedError("not a place of model files", "source")
    text = text.rstrip("/")
    found = _HUGGING_FACE.fullmatch(text)
    if found is not None and ".." not in found[1]:
        return ModelSource(
            kind=SourceKind.HUGGING_FACE, text=text, location=found[1], revision=found[2]
        )
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise MalformedError("not a place of model files", "source") from None
    odd = parts.query or parts.fragment or " " in text or "@" in parts.netloc
    if odd or ".." in parts.path.split("/"):
        raise MalformedError("has a query, a user or dots", "source")
    host = parts.netloc if port is None else parts.netloc.rpartition(":")[0]
    if parts.scheme == "https" or (
        parts.scheme == "http" and plain_http and parts.hostname in _LOOPBACK
    ):
        if _HOST.fullmatch(host) is None:
            raise MalformedError("has no host", "source")
        return ModelSource(kind=SourceKind.HTTPS, text=text, location=text)
    if parts.scheme == "s3" and _BUCKET.fullmatch(parts.netloc) is not None:
        return ModelSource(kind=SourceKind.S3, text=text, location=f"{parts.netloc}{parts.path}")
    if parts.scheme == "file" and not parts.netloc and len(parts.path) > 1:
        return ModelSource(kind=SourceKind.FILE, text=text, location=parts.path)
    raise MalformedError("must be https, hf:org/name@commit, s3 or file", "source")
