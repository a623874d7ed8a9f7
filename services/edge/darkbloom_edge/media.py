"""Images and videos inside the box: what they are, how large, and what they may cost.

A part of a message says `type`, `media_type`, `data` (standard base64) and, of an image, `width`
and `height` in pixels. All of it is read out of the first bytes here, on both ends, and never
believed: neither a label of the caller nor one of a server on the internet decides what an engine
is handed. Nothing is decoded, so that nothing can explode; whoever decodes knows the dimensions.
"""

import base64
import binascii
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from darkbloom_edge.errors import MalformedError

MAX_FILE_BYTES: Final = 8 << 20
"""Largest image or video."""
MAX_TOTAL_BYTES: Final = 10 << 20
"""Most bytes of all media of one request."""
MAX_MEDIA: Final = 64
"""Most media of one request."""
MAX_PIXELS: Final = 100_000_000
"""Most pixels of one image."""

IMAGE_ESTIMATE_TOKENS: Final = 300
VIDEO_ESTIMATE_TOKENS: Final = 1500
"""What routing takes them for."""
IMAGE_BOUND_TOKENS: Final = 16_384
"""Most prompt tokens of one image; engines that would make more of it scale it down."""
VIDEO_BOUND_TOKENS: Final = 32_768
_BASE_TOKENS: Final = 1024
"""What an engine may make of the smallest image: some scale every one to the same size."""
_PATCH: Final = 28
"""Side in pixels of what becomes one token, in engines that take images as large as they are."""

_MAX_SEGMENTS: Final = 1024
_MAX_BLOCKS: Final = 65_536
_GIF_HEAD: Final = 13
_GIF_COLOURS: Final = 0x80
_GIF_EXTENSION: Final = 0x21
_GIF_IMAGE: Final = 0x2C
_FRAME_HEADERS: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_MARKER: Final = re.compile(rb"\xff+([^\xff\x00])")
_SIDE: Final = 0x3FFF
"""A WebP of these kinds has sides of 14 bits."""
_STILL_BRANDS: Final = frozenset({b"avif", b"avis", b"heic", b"heix", b"mif1", b"msf1"})


class MediaKind(StrEnum):
    """What a model does with it."""

    IMAGE = "image"
    VIDEO = "video"


@dataclass(frozen=True, slots=True)
class Media:
    """What the first bytes of a file say."""

    kind: MediaKind
    media_type: str
    """`image/png`, `image/jpeg`, `image/gif`, `image/webp`, `video/mp4`, `video/quicktime` or
    `video/webm`."""
    width: int = 0
    """In pixels; 0 of a video."""
    height: int = 0


def inspect(data: bytes) -> Media:
    """Say what a file is.

    Raises:
        MalformedError: none of the known kinds, cut short, too many bytes or too many pixels.
    """
    if len(data) > MAX_FILE_BYTES:
        raise MalformedError(f"is larger than {MAX_FILE_BYTES} bytes")
    try:
        found = _recognised(data)
    except struct.error:
        raise MalformedError("is cut short") from None
    if found is None:
        raise MalformedError("is no png, jpeg, gif, webp, mp4, mov or webm")
    if found.kind is MediaKind.IMAGE and not 0 < found.width * found.height <= MAX_PIXELS:
        raise MalformedError(f"does not have between 1 and {MAX_PIXELS} pixels")
    return found


def decode(text: str) -> bytes:
    """Decode base64 that has one spelling only.

    Raises:
        MalformedError: it is none.
    """
    if len(text) > MAX_FILE_BYTES // 3 * 4 + 8:
        raise MalformedError(f"is larger than {MAX_FILE_BYTES} bytes")
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise MalformedError("is not base64") from None
    if not data or base64.b64encode(data).decode("ascii") != text:
        raise MalformedError("is not base64 in its canonical form")
    return data


def part_of(data: bytes, wanted: MediaKind) -> dict[str, Any]:
    """Return the part of a message that carries a file.

    Raises:
        MalformedError: it is not of the wanted kind, or as `inspect`.
    """
    found = inspect(data)
    if found.kind is not wanted:
        raise MalformedError(f"is no {wanted.value}")
    part: dict[str, Any] = {
        "type": found.kind.value,
        "media_type": found.media_type,
        "data": base64.b64encode(data).decode("ascii"),
    }
    if found.kind is MediaKind.IMAGE:
        part |= {"width": found.width, "height": found.height}
    return part


def check_part(part: Mapping[str, Any]) -> int:
    """Check a part that somebody else has made, and return the bytes of its file.

    Raises:
        MalformedError: it does not say what its bytes are.
    """
    text = part.get("data")
    if not isinstance(text, str):
        raise MalformedError("has no data")
    data = decode(text)
    found = inspect(data)
    said: dict[str, Any] = {"type": found.kind.value, "media_type": found.media_type}
    if found.kind is MediaKind.IMAGE:
        said |= {"width": found.width, "height": found.height}
    if {key: value for key, value in part.items() if key != "data"} != said:
        raise MalformedError("does not say what its bytes are")
    return len(data)


def bound_tokens(part: Mapping[str, Any]) -> int:
    """Bound the prompt tokens of a part from above, also of one that is still to be fetched."""
    if part["type"] != MediaKind.IMAGE.value or "width" not in part:
        return VIDEO_BOUND_TOKENS if "video" in part["type"] else IMAGE_BOUND_TOKENS
    patches: int = -(-part["width"] // _PATCH) * -(-part["height"] // _PATCH)
    return min(IMAGE_BOUND_TOKENS, _BASE_TOKENS + patches)


def estimate_tokens(part: Mapping[str, Any]) -> int:
    """Guess the prompt tokens of a part, for routing."""
    return VIDEO_ESTIMATE_TOKENS if "video" in part["type"] else IMAGE_ESTIMATE_TOKENS


def _recognised(data: bytes) -> Media | None:
    looks = (_png, _gif, _jpeg, _webp, _video)
    return next((found for look in looks if (found := look(data)) is not None), None)


def _png(data: bytes) -> Media | None:
    if not data.startswith(b"\x89PNG\r\n\x1a\n") or data[12:16] != b"IHDR":
        return None
    return Media(MediaKind.IMAGE, "image/png", *struct.unpack_from(">II", data, 16))


def _gif(data: bytes) -> Media | None:
    """Read the screen and the first image, past the colours and whatever else comes before."""
    if not data.startswith((b"GIF87a", b"GIF89a")):
        return None
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    at, inside = _GIF_HEAD + (6 << (flags & 7) if flags & _GIF_COLOURS else 0), False
    for _ in range(_MAX_BLOCKS):
        (byte,) = struct.unpack_from("B", data, at)
        at += 1
        if inside:
            # A block of an extension says its length; 0 ends them.
            at, inside = at + byte, byte != 0
        elif byte == _GIF_EXTENSION:
            at, inside = at + 1, True
        elif byte == _GIF_IMAGE:
            # A screen may be smaller than what is painted on it: decoders widen it.
            left, top, across, down = struct.unpack_from("<HHHH", data, at)
            size = max(width, left + across), max(height, top + down)
            return Media(MediaKind.IMAGE, "image/gif", *size)
        else:
            return None
    return None


def _jpeg(data: bytes) -> Media | None:
    """Go from marker to marker up to the frame header, past metadata of any length."""
    if not data.startswith(b"\xff\xd8\xff"):
        return None
    at = 2
    for _ in range(_MAX_SEGMENTS):
        marker = _MARKER.match(data, at)
        if marker is None:
            return None
        at = marker.end()
        if marker[1][0] in _FRAME_HEADERS:
            height, width = struct.unpack_from(">HH", data, at + 3)
            return Media(MediaKind.IMAGE, "image/jpeg", width, height)
        (length,) = struct.unpack_from(">H", data, at)
        at += length
    return None


def _webp(data: bytes) -> Media | None:
    """Read the first chunk: lossy, lossless, or the header of an extended file."""
    if not data.startswith(b"RIFF") or data[8:12] != b"WEBP":
        return None
    kind = data[12:16]
    if kind == b"VP8 " and data[23:26] == b"\x9d\x01\x2a":
        width, height = (side & _SIDE for side in struct.unpack_from("<HH", data, 26))
    elif kind == b"VP8L" and data[20:21] == b"\x2f":
        (bits,) = struct.unpack_from("<I", data, 21)
        width, height = (bits & _SIDE) + 1, (bits >> 14 & _SIDE) + 1
    elif kind == b"VP8X":
        low, high, last, *rest = struct.unpack_from("<BBBBBB", data, 24)
        width = int.from_bytes((low, high, last), "little") + 1
        height = int.from_bytes(rest, "little") + 1
    else:
        return None
    return Media(MediaKind.IMAGE, "image/webp", width, height)


def _video(data: bytes) -> Media | None:
    if data[4:8] == b"ftyp" and data[8:12] not in _STILL_BRANDS:
        name = "video/quicktime" if data[8:12] == b"qt  " else "video/mp4"
        return Media(MediaKind.VIDEO, name)
    if data.startswith(b"\x1aE\xdf\xa3") and b"webm" in data[:64]:
        return Media(MediaKind.VIDEO, "video/webm")
    return None
