"""What the adapter knows of one row, wherever it is."""

import dataclasses
from typing import Any, NamedTuple

import mlx.core as mx

from darkbloom_provider.engine.batch import RowSpec
from darkbloom_provider.engine.mlx.choosing import Processor, processors_of


class Drawn(NamedTuple):
    """A token that is drawn and not said yet."""

    token: int
    logprobs: mx.array | None
    """Shape (vocabulary,); None where nobody asked."""


@dataclasses.dataclass(slots=True, eq=False)
class Row:
    """A row between its steps.

    Invariant: `cache` covers `history[:covered]`; while the row decodes, its KV is in the batch
    and `cache` is None.
    """

    number: int
    spec: RowSpec
    history: list[int]
    """The prompt and every token that was said."""
    processors: list[Processor]
    cache: list[Any] | None = None
    """KV by layer, of this row alone."""
    covered: int = 0
    cached: int = 0
    """Tokens of the prompt that came out of the prefix cache."""
    drawn: Drawn | None = None
    """The token that a suspended row would have said next."""

    @classmethod
    def of(cls, number: int, spec: RowSpec) -> "Row":
        """Begin a row."""
        return cls(
            number=number, spec=spec, history=list(spec.tokens), processors=processors_of(spec)
        )

    @property
    def unread(self) -> int:
        """Tokens to be read before the row can decode, whose first input is the last of them."""
        return max(0, len(self.history) - 1 - self.covered)

    @property
    def said(self) -> int:
        """Tokens of the answer that have left as events."""
        return len(self.history) - len(self.spec.tokens)
