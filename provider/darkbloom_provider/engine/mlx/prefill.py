"""One prompt on its way into its own KV, chunk by chunk.

A chunk ends at a multiple of its size, counted from the first token, and belongs to one row. So
what is computed for a row does not depend on who waited beside it, nor on where a pause or a
prefix cut its prompt at such a multiple.
"""

from collections.abc import Iterable
from typing import Any, Final

import mlx.core as mx

from darkbloom_provider.engine.mlx.row import Row

OLDEST_EVERY: Final = 4
"""Each chunk of this number goes to the row that has waited longest, so that a stream of short
prompts slows a long one and never stops it."""


def read_chunk(model: Any, row: Row, chunk_tokens: int) -> int:
    """Read the next chunk of a row into its KV, and wait for it.

    Args:
        model: Of mlx-lm.
        row: With a cache and at least one unread token.
        chunk_tokens: Size of a chunk.

    Returns:
        Tokens read.
    """
    begin = row.covered
    end = min((begin // chunk_tokens + 1) * chunk_tokens, len(row.history) - 1)
    model(mx.array(row.history[begin:end])[None], cache=row.cache)
    # The logits are never evaluated: only the cache is wanted.
    mx.eval([layer.state for layer in row.cache or ()])
    row.covered = end
    return end - begin


def next_to_read(reading: Iterable[Row], turn: int) -> Row:
    """Choose whose chunk is next: the row nearest to its first token, by turns the oldest.

    Args:
        reading: Rows with unread tokens, oldest first; at least one.
        turn: Counts chunks.
    """
    rows = list(reading)
    if turn % OLDEST_EVERY == OLDEST_EVERY - 1:
        return rows[0]
    return min(rows, key=lambda row: row.unread)
