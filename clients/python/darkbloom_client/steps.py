"""What an exchange asks of whoever does its I/O: one flow serves the sync and the async transport.

A flow is a generator. It yields steps and is sent their results; it opens no socket and knows no
event loop, so that every rule of the protocol is written, and tested, once.
"""

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias, TypeVar

Headers: TypeAlias = list[tuple[str, str]]
MAX_REPLY_BYTES = 16 * 1024 * 1024
"""Largest reply that is read whole."""


class LineBrokenError(Exception):
    """The connection broke while an answer was read."""


class Reply(NamedTuple):
    """A response of the gateway; `content` is empty where it is read piece by piece."""

    status: int
    headers: Mapping[str, str]
    """By lower-case name."""
    content: bytes = b""

    def __repr__(self) -> str:
        return f"Reply({self.status}, <redacted>)"


@dataclass(frozen=True, slots=True)
class Call:
    """Send a request and read the whole reply; the result is a `Reply`."""

    method: str
    path: str
    """From `/v1` on, with its query."""
    headers: Headers = field(default_factory=list, repr=False)
    content: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class Open:
    """The same, but leave the content of a 200 to `Read`; others are read whole."""

    method: str
    path: str
    headers: Headers = field(default_factory=list, repr=False)
    content: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class Read:
    """Read what has come; the result is bytes, empty at the end. May throw `LineBrokenError`."""


@dataclass(frozen=True, slots=True)
class Shut:
    """Close what was opened."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Let some time pass."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Begin:
    """Begin the caller's response."""

    status: int
    headers: Headers


@dataclass(frozen=True, slots=True)
class Emit:
    """Hand the caller more of its content."""

    data: bytes = field(repr=False)


Step: TypeAlias = Call | Open | Read | Shut | Wait | Begin | Emit
T = TypeVar("T")
Flow: TypeAlias = Generator[Step, Any, T]
