"""Open something on a thread, and close it also where nobody waits for it any more."""

import asyncio
from collections.abc import Callable
from typing import Protocol, TypeVar


class Closable(Protocol):
    """Whatever must be closed."""

    def close(self) -> None:
        """Let go."""
        ...


T = TypeVar("T", bound=Closable)


async def open_on_thread(make: Callable[[], T]) -> T:
    """Return what `make` opens; a caller that is cancelled meanwhile leaves nothing open."""
    work = asyncio.ensure_future(asyncio.to_thread(make))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        work.add_done_callback(_close)
        raise


def _close(work: "asyncio.Future[T]") -> None:
    if not work.cancelled() and work.exception() is None:
        work.result().close()
