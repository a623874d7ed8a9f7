"""Between blocks and bytes: what the SSD tier asks of whoever makes blocks."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from darkbloom_provider.engine.prefix.memory import Block


class Lowered(NamedTuple):
    """A block as bytes."""

    facts: Mapping[str, Any]
    """Shapes and kinds, for the metadata."""
    data: Sequence[memoryview]


class Codec(Protocol):
    """Between blocks and bytes."""

    def lower(self, block: Block) -> Lowered | None:
        """Look at a block as bytes; on the engine thread. None where it cannot be written."""
        ...

    def lift(self, facts: Mapping[str, Any], content: bytes) -> Block:
        """Make a block of bytes; on any thread.

        Raises:
            ValueError: the bytes are not what the facts say.
        """
        ...
