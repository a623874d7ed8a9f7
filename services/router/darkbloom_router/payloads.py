"""Decoding control payloads of strangers."""

from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from darkbloom_router.meter import Meter

MessageT = TypeVar("MessageT", bound=Message)


def read(kind: type[MessageT], payload: bytes, meter: Meter, link: str) -> MessageT | None:
    """Return the message of a control frame; a malformed one is counted and None."""
    try:
        return kind.FromString(payload)
    except DecodeError:
        meter.ignored(link, "malformed")
        return None
