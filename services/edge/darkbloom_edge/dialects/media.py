"""Media parts of the dialects: inline ones are read here, remote ones are left to be fetched.

Only chat takes addresses of the internet. Here they are only noted: this library opens nothing, and
whoever has no fetcher, such as a client in end-to-end mode, refuses `Lowered.remote`.
"""

from dataclasses import dataclass, field
from typing import Any, Final, final

from darkbloom_edge.errors import MalformedError, RequestError
from darkbloom_edge.media import MediaKind, decode, part_of

MAX_REMOTE: Final = 16
"""Most addresses of one request."""
MAX_URL_CHARS: Final = 4096
_DATA: Final = "data:"
_BASE64: Final = ";base64"


@final
class MediaPart(dict[str, Any]):
    """A part that was checked here; no JSON document has one, so no caller can forge it."""

    def __repr__(self) -> str:
        return "MediaPart(<redacted>)"


@dataclass(frozen=True, slots=True)
class RemoteMedia:
    """Something that is still to be fetched."""

    kind: MediaKind
    param: str
    """The field that names it."""
    url: str = field(repr=False)


def placeholder(kind: MediaKind, url: str, param: str) -> MediaPart:
    """Return the part that stands for something to be fetched."""
    return MediaPart(type=f"remote_{kind.value}", remote=RemoteMedia(kind, param, url))


def read_url(url: Any, kind: MediaKind, param: str, *, remote: bool = False) -> MediaPart:
    """Read a `data:` URL, or note an address.

    Args:
        url: as the caller wrote it.
        kind: what it must be.
        param: its field.
        remote: whether addresses are taken.

    Raises:
        RequestError: neither, or the bytes are not of that kind.
    """
    if not isinstance(url, str) or not url:
        raise RequestError(f"{param} must be a url", param)
    if url[: len(_DATA)].lower() == _DATA:
        return _read_data(url, kind, param)
    if not remote:
        raise RequestError(f"{param} must be a data: url, nothing is fetched here", param)
    if not url.lower().startswith("https://") or len(url) > MAX_URL_CHARS:
        raise RequestError(
            f"{param} must be a data: or https: url of at most {MAX_URL_CHARS} characters", param
        )
    return placeholder(kind, url, param)


def read_base64(text: Any, kind: MediaKind, param: str) -> MediaPart:
    """Read a file in base64.

    Raises:
        RequestError: it is none, or the bytes are not of that kind.
    """
    if not isinstance(text, str):
        raise RequestError(f"{param} must be a string", param)
    try:
        return MediaPart(part_of(decode(text), kind))
    except MalformedError as error:
        raise RequestError(f"{param} {error.what}", param) from None


def joined(parts: list[str | MediaPart]) -> str | list[dict[str, Any]]:
    """Return a content: one text where there are only texts, else parts in their order."""
    if not any(isinstance(part, MediaPart) for part in parts):
        return "".join(part for part in parts if isinstance(part, str))

    content: list[dict[str, Any]] = []
    for part in parts:
        if isinstance(part, MediaPart):
            content.append(part)
        elif content and content[-1]["type"] == "text":
            content[-1]["text"] += part
        elif part:
            content.append({"type": "text", "text": part})
    return content


def _read_data(url: str, kind: MediaKind, param: str) -> MediaPart:
    head, comma, text = url.partition(",")
    if not comma or not head.lower().endswith(_BASE64):
        raise RequestError(f"{param} must be a data: url in base64", param)
    return read_base64(text, kind, param)
