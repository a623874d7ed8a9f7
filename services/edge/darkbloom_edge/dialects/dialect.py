"""What a dialect is: how it reads a body, and how it writes an answer (docs/wire.md §4).

One pipeline at the edge serves all of them. It knows deltas and counts; only a dialect knows what
they look like outside.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

from darkbloom_edge.delta import Delta
from darkbloom_edge.dialects.chat_request import Lowered
from darkbloom_edge.usage import Usage


@dataclass(frozen=True, slots=True)
class Setting:
    """What an answer says about itself besides its content."""

    job: str
    """Bare id of the attempt that answers; each dialect puts its own prefix before it."""
    created: int
    """Unix time in seconds."""
    model: str
    """Exactly what the caller sent."""
    include_usage: bool = False
    """Whether a stream shows its usage where that is the caller's choice."""
    output_bound: int | None = None
    """Tokens at which the answer ended by length."""
    echo: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """Fields of the request that the answer repeats."""


class AnswerStream(Protocol):
    """Renders one choice of a streamed answer as whole server-sent events."""

    @property
    def keep_alive(self) -> bytes:
        """What may be written between two events so that nobody takes the line for dead."""
        ...

    def chunk(self, delta: Delta) -> bytes:
        """Render the content of one delta; nothing where it has none.

        Raises:
            MalformedError: the delta cannot be rendered.
        """
        ...

    def ending(self, delta: Delta, usage: Usage) -> bytes:
        """Render the end of this choice.

        Args:
            delta: the final one, whose content was rendered already.
            usage: of this choice.
        """
        ...

    def closing(self, usage: Usage, extras: Mapping[str, bytes]) -> bytes:
        """Render the end of the whole stream, its one terminator included.

        Args:
            usage: of all choices.
            extras: JSON values by name, such as `receipt`.
        """
        ...

    def broken(self, message: str, kind: str) -> bytes:
        """Render the one event that ends a broken stream.

        Args:
            message: for people.
            kind: `provider_error` or `timeout`.
        """
        ...


class AnswerCollector(Protocol):
    """Collects one choice of an answer that leaves in one piece."""

    def feed(self, delta: Delta) -> None:
        """Take the next delta.

        Raises:
            MalformedError: it does not fit what came before.
        """
        ...

    def whole(
        self, usage: Usage, extras: Mapping[str, bytes], others: Sequence[Self] = ()
    ) -> bytes:
        """Render the whole body.

        Args:
            usage: of all choices.
            extras: as in a stream.
            others: the other choices, in their order.

        Raises:
            MalformedError: what came cannot be said in this dialect.
        """
        ...


class Dialect(Protocol):
    """One shape of request and answer; without state."""

    def lower(self, body: bytes) -> Lowered:
        """Read a body.

        Raises:
            RequestError: it is not one of this dialect, or asks for what nobody here does.
        """
        ...

    def stream(self, setting: Setting, choice: int = 0) -> AnswerStream:
        """Begin a streamed answer, or one more choice of it."""
        ...

    def collector(self, setting: Setting, choice: int = 0) -> AnswerCollector:
        """Begin an answer in one piece, or one more choice of it."""
        ...
