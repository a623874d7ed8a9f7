"""Which replicas there are: one sorted set in Valkey, each member with its own expiry."""

from collections.abc import Iterable
from dataclasses import dataclass

import orjson
from darkbloom_mesh.errors import StoreUnavailableError
from redis.asyncio import Redis
from redis.exceptions import RedisError

_KEY = "rt:replicas"
_JOIN = """
local now = redis.call('TIME')
local ms = now[1] * 1000 + math.floor(now[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', ms)
if ARGV[1] ~= '' then redis.call('ZADD', KEYS[1], ms + ARGV[2], ARGV[1]) end
return redis.call('ZRANGE', KEYS[1], 0, 255)
"""


@dataclass(frozen=True, slots=True, order=True)
class Member:
    """One router process."""

    replica: str
    session: str
    """`replica/process`: new with every start."""
    address: str
    """host:port of its internal listener."""


class Members:
    """The list of replicas, as the store has it.

    Args:
        store: Valkey.
        me: This process; it is left out of what `beat` returns.
        life_s: After so long without a beat a member is gone.
    """

    def __init__(self, store: Redis, me: Member, *, life_s: float = 15.0) -> None:
        self._store = store
        self._me = me
        self._life_ms = int(life_s * 1000)
        self._join = store.register_script(_JOIN)

    async def beat(self) -> list[Member]:
        """Say that this process lives; returns the others.

        Raises:
            StoreUnavailableError: The store does not answer; who was known still is.
        """
        record = orjson.dumps([self._me.replica, self._me.session, self._me.address])
        try:
            found = await self._join(keys=[_KEY], args=[record, self._life_ms])
        except (RedisError, OSError) as error:
            raise StoreUnavailableError("replicas cannot be listed now") from error
        # By expiry: where a replica came back under its name, its newest process is the last one.
        members = {member.replica: member for member in (Member(*orjson.loads(i)) for i in found)}
        members.pop(self._me.replica, None)
        return sorted(members.values())

    def leads(self, others: Iterable[Member]) -> bool:
        """Return whether this process does what only one should: the first by name does.

        Where two lists differ for a moment two may lead: what they do must bear that.
        """
        return all(self._me.replica < other.replica for other in others)

    async def leave(self) -> None:
        """Stop being listed.

        Raises:
            StoreUnavailableError: The record expires by itself then.
        """
        record = orjson.dumps([self._me.replica, self._me.session, self._me.address])
        try:
            await self._store.zrem(_KEY, record)
        except (RedisError, OSError) as error:
            raise StoreUnavailableError("replicas cannot be changed now") from error
