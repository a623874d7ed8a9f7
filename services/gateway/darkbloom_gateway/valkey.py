"""How this room asks Valkey: an answer or none within a moment, and nothing is tried twice."""

from typing import Any

import redis.asyncio as redis
from darkbloom_mesh.config import Secret
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff


def client(url: Secret, *, connections: int, timeout_s: float) -> Any:
    """Return a client; it connects when it is first used.

    Whoever finds no free connection waits for one: a crowd is no reason to ask nobody.

    Args:
        url: `redis://…`.
        connections: at most.
        timeout_s: longest wait for a free connection, for a new one, and for an answer.
    """
    pool: Any = redis.BlockingConnectionPool.from_url(
        url.reveal(),
        timeout=timeout_s,
        max_connections=connections,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        retry=Retry(NoBackoff(), 0),
    )
    return redis.Redis.from_pool(pool)
