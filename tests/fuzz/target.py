"""What a target of fuzzing is."""

from collections.abc import Callable
from dataclasses import dataclass

from darkbloom_edge.errors import EdgeError


@dataclass(frozen=True)
class Target:
    """One decoder."""

    name: str
    decode: Callable[[bytes], object]
    seeds: tuple[bytes, ...]
    """Bytes that it accepts; what is tried begins with them."""
    refusals: tuple[type[Exception], ...] = (EdgeError,)
    """All that it may raise."""
