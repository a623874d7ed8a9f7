"""Who holds a provider's identity: a lease with a fencing epoch, in Valkey.

One script decides, so two replicas cannot both believe that they won. An epoch is above every
earlier one of its identity: the next number, and never below the store's clock in microseconds, so
that a store which lost its memory does not hand out an epoch that an agent has outgrown. In such a
store the holder of the highest epoch takes its lease back with its next renewal.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from darkbloom_mesh.errors import StoreUnavailableError
from redis.asyncio import Redis
from redis.exceptions import RedisError

LEASE_S = 15.0
RENEW_S = 5.0
_EPOCHS_S = 30 * 24 * 3600
_BATCH = 500

_CLAIM = """
local now = redis.call('TIME')
local floor = now[1] * 1000000 + now[2]
local last = tonumber(redis.call('GET', KEYS[2]) or '0')
local epoch = math.max(last + 1, floor)
local before = redis.call('GET', KEYS[1])
redis.call('SET', KEYS[2], string.format('%.0f', epoch), 'EX', ARGV[3])
redis.call('SET', KEYS[1], ARGV[1] .. '|' .. string.format('%.0f', epoch), 'PX', ARGV[2])
return {string.format('%.0f', epoch), before or ''}
"""
_RENEW = """
local lost = {}
for i, key in ipairs(KEYS) do
  local epoch = tonumber(ARGV[i + 3])
  local held = redis.call('GET', key)
  local theirs = held and tonumber(string.match(held, '|(%d+)$')) or 0
  local last = tonumber(redis.call('GET', key .. ':epoch') or '0')
  if math.max(theirs, last) > epoch then
    lost[#lost + 1] = i
  else
    redis.call('SET', key, ARGV[1] .. '|' .. ARGV[i + 3], 'PX', ARGV[2])
    redis.call('SET', key .. ':epoch', ARGV[i + 3], 'EX', ARGV[3])
  end
end
return lost
"""


@dataclass(frozen=True, slots=True)
class Claim:
    """An identity that is ours now."""

    epoch: int
    former: str
    """Session of the replica that had it; empty where nobody had, or where it was ours."""


@dataclass(frozen=True, slots=True)
class Held:
    """A lease to renew."""

    identity_key: bytes
    epoch: int


class Leases:
    """Ownership of identities.

    Every call raises StoreUnavailableError where the store does not answer; nothing is lost then,
    because nobody else can claim either.

    Args:
        store: Valkey.
        session: `replica/process`, unique to this process.
        lease_s: Life of a lease.
    """

    def __init__(self, store: Redis, session: str, *, lease_s: float = LEASE_S) -> None:
        self._store = store
        self._session = session
        self._lease_ms = int(lease_s * 1000)
        self._claim = store.register_script(_CLAIM)
        self._renew = store.register_script(_RENEW)

    async def claim(self, identity_key: bytes) -> Claim:
        """Take an identity, whoever has it; the caller has just seen it prove itself."""
        key = _key(identity_key)
        try:
            epoch, before = await self._claim(
                keys=[key, f"{key}:epoch"], args=[self._session, self._lease_ms, _EPOCHS_S]
            )
        except (RedisError, OSError) as error:
            raise StoreUnavailableError("leases cannot be claimed now") from error
        former = _text(before).rpartition("|")[0]
        return Claim(int(epoch), former if former != self._session else "")

    async def renew(self, leases: Sequence[Held]) -> list[Held]:
        """Push leases out; returns those that somebody else holds now."""
        lost: list[Held] = []
        for start in range(0, len(leases), _BATCH):
            batch = leases[start : start + _BATCH]
            try:
                found = await self._renew(
                    keys=[_key(held.identity_key) for held in batch],
                    args=[
                        self._session,
                        self._lease_ms,
                        _EPOCHS_S,
                        *(held.epoch for held in batch),
                    ],
                )
            except (RedisError, OSError) as error:
                raise StoreUnavailableError("leases cannot be renewed now") from error
            lost.extend(batch[int(index) - 1] for index in found)
        return lost


def _key(identity_key: bytes) -> str:
    # One slot for a lease and its counter, so that a clustered store runs the script too.
    return f"rt:own:{{{hashlib.sha256(identity_key).hexdigest()[:32]}}}"


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
