"""Files of every kind of media that is taken, as small as they can be."""

import base64
import struct
import zlib
from typing import Any


def png(width: int = 3, height: int = 2) -> bytes:
    """A whole image that any decoder shows."""
    rows = b"".join(b"\0" + b"\x10\x20\x30" * width for _ in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def png_header(width: int, height: int) -> bytes:
    """The beginning of an image that would be too large to make."""
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", width, height)


def jpeg(width: int = 5, height: int = 4, *, metadata: int = 0) -> bytes:
    """Markers up to the frame header, behind so many segments of metadata."""
    segment = b"\xff\xe1" + struct.pack(">H", 2 + 1000) + b"\xff\xd8" * 500
    frame = b"\xff\xff\xc2" + struct.pack(">HBHH", 8, 8, height, width)
    return b"\xff\xd8" + segment * metadata + frame


def gif(width: int = 7, height: int = 6, *, screen: tuple[int, int] = (1, 1)) -> bytes:
    """The beginning: a screen with colours, a comment, and an image that ends at this size."""
    head = b"GIF89a" + struct.pack("<HHB", *screen, 0x80) + b"\0\0" + b"\0" * 6
    comment = b"\x21\xfe" + b"\x2c" + b"\x2c" * 44 + b"\x01!" + b"\0"
    image = struct.pack("<BHHHHB", 0x2C, 2, 1, width - 2, height - 1, 0)
    return head + comment + image + b"\x02\0;"


def webp(kind: str, width: int = 9, height: int = 8) -> bytes:
    """The first chunk: `VP8 `, `VP8L` or `VP8X`."""
    if kind == "VP8 ":
        body = b"\0\0\0\x9d\x01\x2a" + struct.pack("<HH", width | 0x4000, height)
    elif kind == "VP8L":
        body = b"\x2f" + struct.pack("<I", (width - 1) | (height - 1) << 14)
    else:
        body = b"\0" * 4 + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    chunk = kind.encode() + struct.pack("<I", len(body)) + body
    return b"RIFF" + struct.pack("<I", 4 + len(chunk)) + b"WEBP" + chunk


MP4 = b"\0\0\0\x18ftypisom" + b"\0" * 16
MOV = b"\0\0\0\x18ftypqt  " + b"\0" * 16
WEBM = b"\x1aE\xdf\xa3\x9fB\x86\x81\x01B\x82\x84webm" + b"\0" * 8
HEIC = b"\0\0\0\x18ftypheic" + b"\0" * 16


def data_url(data: bytes, media_type: str = "image/png") -> str:
    """The file as a caller inlines it."""
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


def image_part(url: str) -> dict[str, Any]:
    """A part of a chat message."""
    return {"type": "image_url", "image_url": {"url": url, "detail": "high"}}


def seen(url: str, text: str = "what is this?") -> list[dict[str, Any]]:
    """Messages that show one image."""
    content = [{"type": "text", "text": text}, image_part(url)]
    return [{"role": "user", "content": content}]
