"""A task that lives beside a request, exactly as long as a `with`."""

import asyncio
from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self


class Companion(ABC):
    """Begins with the `with` and ends with it; whoever leaves the `with` waits for its end."""

    _companion: asyncio.Task[None] | None = None

    @abstractmethod
    async def _accompany(self) -> None:
        """Do the work until cancelled, or done."""

    async def __aenter__(self) -> Self:
        """Begin."""
        name = type(self).__name__.lower()
        self._companion = asyncio.get_running_loop().create_task(self._accompany(), name=name)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop, and wait for the task; what it was writing is complete then."""
        task, self._companion = self._companion, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task})
