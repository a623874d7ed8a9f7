"""Open something on a thread, and close it also where nobody waits for it any more."""

import asyncio
import threading
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar, final


class Closable(Protocol):
    """Whatever must be closed."""

    def close(self) -> None:
        """Let go."""
        ...


T = TypeVar("T", bound=Closable)


async def open_on_thread(make: Callable[[], T]) -> T:
    """Return what `make` opens; a caller that is cancelled meanwhile leaves nothing open.

    The thread closes it then, whenever it is done: the loop may be gone before.
    """
    handover = _Handover(make)
    try:
        return await asyncio.to_thread(handover.run)
    except asyncio.CancelledError:
        handover.abandon()
        raise


@final
class _Handover(Generic[T]):
    """What a thread has opened belongs to whoever comes second: the taker, or the end."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._made: T | None = None
        self._abandoned = False

    def run(self) -> T:
        made = self._make()
        with self._lock:
            self._made = made
            if self._abandoned:
                made.close()
        return made

    def abandon(self) -> None:
        with self._lock:
            self._abandoned = True
            if self._made is not None:
                self._made.close()
