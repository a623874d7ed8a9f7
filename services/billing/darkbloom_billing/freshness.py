"""Keeping a copy in memory fresh: read again when told, and now and then anyway."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog
from darkbloom_mesh.errors import MeshError

_log = structlog.get_logger()


async def keep_fresh(
    refresh: Callable[[], Awaitable[None]], stale: asyncio.Event, period_s: float, *, failed: str
) -> None:
    """Refresh for ever; a word that is lost costs one period.

    Args:
        refresh: Reads everything anew.
        stale: Set where the copy may be old.
        period_s: Longest wait for that.
        failed: The event that is logged where a read fails; the next one makes up for it.
    """
    while True:
        try:
            async with asyncio.timeout(period_s):
                await stale.wait()
        except TimeoutError:
            pass
        stale.clear()
        try:
            await refresh()
        except MeshError as error:
            _log.warning(failed, reason=error.reason_name)
