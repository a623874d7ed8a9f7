"""What every reader of calls promises."""

from collections.abc import Mapping, Sequence
from enum import Enum, auto
from typing import Any, NamedTuple, Protocol


class Reading(Enum):
    """What the reader says after a character."""

    MORE = auto()
    """It reads on."""
    DONE = auto()
    """The payload is over; `rest` belongs to what follows."""
    REJECTED = auto()
    """It was no call, and no piece of one was given."""


class CallPiece(NamedTuple):
    """The beginning of a call, which has a name, or more of its arguments."""

    name: str = ""
    arguments: str = ""

    def __repr__(self) -> str:
        return "CallPiece(<redacted>)"


class CallReader(Protocol):
    """Reads one payload, which may hold several calls."""

    pieces: list[CallPiece]
    """What became certain; the owner takes it and empties the list."""
    rest: str
    """After `DONE`: characters that were taken and are not part of the payload."""

    def feed(self, char: str) -> Reading:
        """Take one character."""
        ...

    def finish(self) -> Reading:
        """Take the end of the text; `MORE` is never given."""
        ...


Schemas = Mapping[str, Mapping[str, Any] | None]
"""The parameters of each function that the request offers, by name."""


def schemas_of(tools: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any] | None]:
    """Read names and parameters out of tools in OpenAI's shape."""
    found: dict[str, Mapping[str, Any] | None] = {}
    for tool in tools:
        function = tool.get("function")
        if isinstance(function, Mapping) and isinstance(function.get("name"), str):
            parameters = function.get("parameters")
            found[function["name"]] = parameters if isinstance(parameters, Mapping) else None
    return found
