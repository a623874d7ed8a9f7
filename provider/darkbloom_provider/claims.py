"""Memory that loads under way have been promised: nobody else may count on it."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Final

from darkbloom_edge.memory import Memory, fits, resident_bytes

from darkbloom_provider.engine.interface import Build

WEIGHTS: Final = (".safetensors", ".npz", ".bin")


class Claims:
    """Judges each load by the memory rule and remembers what it was promised until it is done.

    Args:
        memory: What the machine has and uses now; its `pending_loads` is filled in here.
    """

    def __init__(self, memory: Callable[[int], Memory]) -> None:
        self._memory = memory
        self._pending: dict[str, int] = {}

    async def claim(self, build: Build) -> bool:
        """Promise a build its memory, or say that it is not there; `settle` must follow."""
        weights = await asyncio.to_thread(weight_bytes, build.directory)
        if not fits(weights, self._memory(sum(self._pending.values()))):
            return False
        self._pending[build.build_id] = resident_bytes(weights)
        return True

    def settle(self, build_id: str) -> None:
        """The load is done, well or not: what it takes is measured from now on."""
        self._pending.pop(build_id, None)


def weight_bytes(directory: Path | None) -> int:
    """Return the size of a build's weights on the disk."""
    if directory is None:
        return 0
    return sum(file.stat().st_size for file in directory.iterdir() if file.suffix in WEIGHTS)
