"""Long streams of news from other rooms: read for ever, noticed when dead, found again."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import TypeVar

import structlog
from darkbloom_mesh.backoff import Backoff
from darkbloom_mesh.clock import Clock
from darkbloom_mesh.errors import MeshError

T = TypeVar("T")
SILENCE_S = 35.0
"""A stream whose heartbeats have failed three times is dead."""
_log = structlog.get_logger()


async def keep_watching(
    name: str,
    connect: Callable[[], AsyncIterator[T]],
    take: Callable[[T], None],
    *,
    backoff: Backoff,
    clock: Clock,
    on_lost: Callable[[], None] = lambda: None,
) -> None:
    """Hand every event to `take`, reconnecting with full jitter, until cancelled.

    Args:
        name: for logs.
        connect: opens the stream from where the last one stopped.
        take: called in order; must not block.
        backoff: waits between tries.
        clock: time of the waits.
        on_lost: called whenever a stream has ended.
    """
    loop = asyncio.get_running_loop()
    while True:
        try:
            async with asyncio.timeout(SILENCE_S) as patience:
                async for event in connect():
                    take(event)
                    backoff.reset()
                    patience.reschedule(loop.time() + SILENCE_S)
        except (MeshError, TimeoutError) as error:
            _log.warning("watch_lost", watch=name, error_type=type(error).__name__)
        on_lost()
        await clock.sleep(backoff.next_s())
