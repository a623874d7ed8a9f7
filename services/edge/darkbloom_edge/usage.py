"""Token counts as a dialect shows them."""

from typing import NamedTuple

from darkbloom_edge.delta import Delta


class Usage(NamedTuple):
    """Counts of one answer, in tokens; `completion` includes `reasoning`."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    reasoning_tokens: int = 0


def usage_of(delta: Delta) -> Usage:
    """Read the cumulative counts of the last delta."""
    return Usage(
        delta.prompt_tokens, delta.completion_tokens, delta.cached_tokens, delta.reasoning_tokens
    )
