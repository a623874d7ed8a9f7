"""One line per build for all replicas, as near to first come, first served as hints can make it.

Waiters stay where they came in; Valkey only knows who has waited for how long (routing section
20.4). A replica whose waiters are not the oldest holds back for 50 ms when a place comes free, so
that the place goes to the others first. Nothing here is needed to be right: without the store, or
with an answer that has grown old, each replica serves its own line as if it were alone.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from darkbloom_mesh.clock import Clock
from redis.asyncio import Redis
from redis.exceptions import RedisError

HOLD_S = 0.05
"""How long younger waiters leave a free place to older ones elsewhere."""
TELL_S = 0.25
"""Between two looks while anybody waits here."""
POLL_S = 1.0
"""Between two looks otherwise, and between two tries of those who wait."""
FRESH_S = 2.5
"""After so long without an answer a replica is alone."""
LIFE_S = 10.0
"""An entry that nobody renews is gone after this."""
MAX_BUILDS = 1024
_BUILDS = "rt:queues"

_TELL = """
local now = redis.call('TIME')
local ms = now[1] * 1000 + math.floor(now[2] / 1000)
for _, member in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', ms)) do
  redis.call('ZREM', KEYS[1], member)
  redis.call('ZREM', KEYS[2], member)
end
local waiting, gone = tonumber(ARGV[2]), tonumber(ARGV[3])
local at = 4
for _ = 1, waiting do
  redis.call('ZADD', KEYS[1], 'NX', ms - ARGV[at + 1], ARGV[at])
  redis.call('ZADD', KEYS[2], ms + ARGV[1], ARGV[at])
  at = at + 2
end
for _ = 1, gone do
  redis.call('ZREM', KEYS[1], ARGV[at])
  redis.call('ZREM', KEYS[2], ARGV[at])
  at = at + 1
end
redis.call('PEXPIRE', KEYS[1], 2 * ARGV[1])
redis.call('PEXPIRE', KEYS[2], 2 * ARGV[1])
local total = redis.call('ZCARD', KEYS[1])
local first = total
for i = 1, waiting do
  first = math.min(first, redis.call('ZRANK', KEYS[1], ARGV[2 + 2 * i]))
end
return {total, first}
"""
_OPEN = """
local now = redis.call('TIME')
local ms = now[1] * 1000 + math.floor(now[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', ms)
for i = 2, #ARGV do redis.call('ZADD', KEYS[1], ms + ARGV[1], ARGV[i]) end
return redis.call('ZRANGE', KEYS[1], 0, 1023)
"""

Waiters = Mapping[str, Sequence[tuple[str, float]]]
"""Who waits here: for each build, the id and the age in seconds of each waiter."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where the waiters of this replica stand among all."""

    others: int
    """Waiters of other replicas."""
    ahead: int
    """How many of those have waited longer than anybody here."""


class SharedQueue:
    """This replica's view of who waits elsewhere, and the others' view of who waits here.

    Args:
        store: Valkey.
        session: `replica/process`, unique to this process.
        waiters: Returns who waits here.
        retry: Looks a build's line through again.
        clock: Time.
    """

    def __init__(
        self,
        store: Redis,
        session: str,
        waiters: Callable[[], Waiters],
        retry: Callable[[str], None],
        clock: Clock,
    ) -> None:
        self._session = session
        self._waiters = waiters
        self._retry = retry
        self._clock = clock
        self._tell = store.register_script(_TELL)
        self._open = store.register_script(_OPEN)
        self._told: dict[str, set[str]] = {}
        self._places: dict[str, Place] = {}
        self._seen_at = float("-inf")
        self._looked_at = float("-inf")

    def place(self, build: str) -> Place | None:
        """Return where this replica stands; None where nobody waits elsewhere, as far as known."""
        found = self._places.get(build)
        if found is None or self._clock.monotonic() - self._seen_at > FRESH_S:
            return None
        return found

    def elsewhere(self, build: str) -> int:
        """Return how many wait for a build at other replicas."""
        found = self.place(build)
        return found.others if found is not None else 0

    def hold_s(self, build: str) -> float:
        """Return how long to leave a place that has come free to others."""
        found = self.place(build)
        return HOLD_S if found is not None and found.ahead else 0.0

    async def look(self) -> None:
        """Tell who waits here and learn who waits elsewhere; without the store nothing changes.

        What is known grows old then, and counts no more.
        """
        mine = {build: dict(waiting) for build, waiting in self._waiters().items() if waiting}
        try:
            found = await self._exchange(mine)
        except (RedisError, OSError):
            return
        self._places, self._seen_at = found, self._clock.monotonic()

    async def run(self) -> None:
        """Look for ever: four times a second while somebody waits here, else each second."""
        while True:
            await self._clock.sleep(TELL_S)
            now = self._clock.monotonic()
            waiting = any(self._waiters().values()) or bool(self._told)
            poll = now - self._looked_at >= POLL_S
            if not (waiting or poll):
                continue
            await self.look()
            if poll:
                self._looked_at = now
                # Whoever missed the word that a place is free tries again.
                for build in list(self._waiters()):
                    self._retry(build)

    async def _exchange(self, mine: Mapping[str, Mapping[str, float]]) -> dict[str, Place]:
        life_ms = int(LIFE_S * 1000)
        listed = await self._open(keys=[_BUILDS], args=[life_ms, *list(mine)[:MAX_BUILDS]])
        builds = {item.decode() if isinstance(item, bytes) else item for item in listed}
        found: dict[str, Place] = {}
        for build in builds | self._told.keys():
            waiting = mine.get(build, {})
            gone = self._told.get(build, set()) - waiting.keys()
            ages = [
                part
                for name, age_s in waiting.items()
                for part in (self._member(name), int(age_s * 1000))
            ]
            total, first = await self._tell(
                keys=[f"rt:q:{{{build}}}", f"rt:q:{{{build}}}:live"],
                args=[life_ms, len(waiting), len(gone), *ages, *map(self._member, gone)],
            )
            if waiting:
                self._told[build] = set(waiting)
            else:
                self._told.pop(build, None)
            if total > len(waiting):
                found[build] = Place(others=total - len(waiting), ahead=first)
        return found

    def _member(self, name: str) -> str:
        return f"{self._session}|{name}"
