"""Messages between agent and launcher: a length of 4 bytes, big endian, and a JSON object.

The launcher is our own signed program, and the socket was made before the agent began; still both
sides bound and check what they read, because one of them may be an older version.
"""

import asyncio
from typing import Any

from darkbloom_edge.errors import MalformedError
from darkbloom_edge.strict_json import canonical_json, parse_json_object

from darkbloom_provider.mac.errors import LauncherError

LENGTH_BYTES = 4
MAX_MESSAGE_BYTES = 262_144
"""Largest message; an attestation object in base64 has about 10 KiB."""


def encode_message(message: dict[str, Any]) -> bytes:
    """Return one message as it travels.

    Raises:
        LauncherError: too large.
    """
    body = canonical_json(message)
    if len(body) > MAX_MESSAGE_BYTES:
        raise LauncherError("message_too_large")

    return len(body).to_bytes(LENGTH_BYTES, "big") + body


def decode_message(body: bytes) -> dict[str, Any]:
    """Read the JSON of one message.

    Raises:
        LauncherError: not one JSON object.
    """
    try:
        return parse_json_object(body, max_bytes=MAX_MESSAGE_BYTES)
    except MalformedError:
        raise LauncherError("malformed_message") from None


async def read_message(reader: asyncio.StreamReader) -> dict[str, Any] | None:
    """Return the next message; None at the end of the stream.

    Raises:
        LauncherError: cut off, too large, or not one JSON object.
    """
    try:
        head = await reader.readexactly(LENGTH_BYTES)
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise LauncherError("cut_off") from None
        return None
    size = int.from_bytes(head, "big")
    if size > MAX_MESSAGE_BYTES:
        raise LauncherError("message_too_large")

    try:
        return decode_message(await reader.readexactly(size))
    except asyncio.IncompleteReadError:
        raise LauncherError("cut_off") from None
