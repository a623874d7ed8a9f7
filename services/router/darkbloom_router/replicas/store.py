"""The client of Valkey that replicas share what they must not be wrong about by.

Python 3.11 forgets a cancellation that meets the end of `asyncio.wait_for`, and the driver sends
every command under one. A task that looks at the store for ever would then outlive its service, so
each connection raises here what was forgotten there.
"""

import asyncio
from typing import Any

import redis.asyncio as redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

STORE_S = 1.0
"""Longest wait for the store."""
POOL_S = 3.0
"""Longest wait for a connection to it that others use."""


def open_store(url: str) -> redis.Redis:
    """Return a client of Valkey that answers or fails within seconds, and can be cancelled.

    Whoever finds every connection taken waits for one: a replica's providers may all come at once,
    and that says nothing about the store.
    """
    pool: Any = redis.BlockingConnectionPool.from_url(
        url,
        max_connections=4,
        timeout=POOL_S,
        socket_timeout=STORE_S,
        socket_connect_timeout=STORE_S,
        retry=Retry(NoBackoff(), 0),
    )
    pool.connection_class = type("CancellableConnection", (_Cancellable, pool.connection_class), {})
    return redis.Redis.from_pool(pool)


class _Cancellable:
    """Mixed into the connection class that the URL asks for (plain, TLS or a Unix socket)."""

    async def send_packed_command(self, *args: Any, **kwargs: Any) -> None:
        """Send; raise a cancellation that came meanwhile."""
        task = asyncio.current_task()
        before = task.cancelling() if task is not None else 0
        connection: Any = super()
        await connection.send_packed_command(*args, **kwargs)
        if task is not None and task.cancelling() > before:
            # The answer that is on its way would be taken for that of the next command.
            this: Any = self
            await this.disconnect(nowait=True)
            raise asyncio.CancelledError
