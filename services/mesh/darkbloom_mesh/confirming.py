"""A replica says which state of the mesh it goes by, again and again, and that it ends.

Whoever is told knows from `REPEAT_S` how long a replica that lives is silent at the most, and
when one that was killed may be forgotten.
"""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Protocol, final

from darkbloom_mesh.clock import Clock

LOOK_S = 1.0
"""Between two looks at whether the state is a newer one."""
REPEAT_S = 10.0
"""Between two confirmations of one state."""
LEAVE_S = 2.0
"""Of the last word; a neighbour that is away keeps nobody from ending."""


class Say(Protocol):
    """Tells the neighbour, within a deadline, and notes a failure by itself."""

    async def __call__(self, generation: int, *, leaving: bool) -> None:
        """Tell by which generation this replica goes, or that it ends."""
        ...


@final
class Confirmations:
    """Says one thing at a time; one that fails is made up for by the next.

    Args:
        say: To whom.
        generation: The state in force; 0 before the first.
        clock: Between looks.
    """

    def __init__(self, say: Say, generation: Callable[[], int], clock: Clock) -> None:
        self._say = say
        self._generation = generation
        self._clock = clock
        self._told = 0
        self._left = False
        self._speaking = asyncio.Lock()

    async def run(self) -> None:
        """Confirm until it ends."""
        told_at = self._clock.monotonic()
        while not self._left:
            await self._clock.sleep(LOOK_S)
            now = self._clock.monotonic()
            if self._generation() != self._told or now - told_at >= REPEAT_S:
                told_at = now
                await self._confirm()

    async def leave(self) -> None:
        """Say that this replica ends; without it the listener must think that it may be at work."""
        async with self._speaking:
            self._left = True
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LEAVE_S):
                    await self._say(self._generation(), leaving=True)

    async def _confirm(self) -> None:
        generation = self._generation()
        async with self._speaking:
            if not self._left:
                await self._say(generation, leaving=False)
        # Also after a failure: a neighbour that is away is asked again in ten seconds, not in one.
        self._told = generation
