"""SIGTERM for a command that runs once: whatever it does ends as if it were cancelled.

`asyncio.run` hears SIGINT only, and the first process of a container ignores a signal that nobody
takes.
"""

import asyncio
import signal
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")

STOPPED = 128 + signal.SIGTERM
"""Exit code of a command that was told to stop."""


async def until_terminated(work: Awaitable[T]) -> T:
    """Await `work`; the first SIGTERM cancels it, and it tidies up undisturbed by a second.

    Raises:
        asyncio.CancelledError: It was told to stop.
    """
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(work)
    told = asyncio.Event()

    def stop() -> None:
        if not told.is_set():
            told.set()
            task.cancel()

    loop.add_signal_handler(signal.SIGTERM, stop)
    try:
        return await task
    finally:
        loop.remove_signal_handler(signal.SIGTERM)
