"""Shared token buckets in Valkey, and the last good catalog on disk."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import redis.asyncio as redis
from darkbloom_mesh.config import Secret
from darkbloom_mesh.errors import StoreUnavailableError
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as LostError
from redis.exceptions import NoScriptError, RedisError, ResponseError

from darkbloom_gateway.buckets import Charge, Decision, Dimension, Meter, decide

_IDLE_MS = 30 * 60 * 1000
_WIDTH = len(Dimension)
# One call for a whole batch. The levels of a meter are one value, read and written once a batch.
# ARGV[1] is a list of charges {forced, amounts, meters}, each meter {index of its key, rates}, each
# rate {per second, burst} or nothing; the answer is a list of {refused, levels...} in their order,
# `refused` being 1 + 3 * meter + dimension, or 0.
_SCRIPT = """
local clock = redis.call('TIME')
local now = clock[1] + clock[2] / 1000000
local NO_LIMIT = 1e15
local cells, touched = {}, {}

local function cell(index, rates)
  local found = cells[index]
  if found then return found end
  found = {}
  local kept = redis.call('GET', KEYS[index])
  local past = nil
  if kept and #kept == 32 then past = {struct.unpack('<dddd', kept)} end
  for d = 1, 3 do
    local rate = rates[d]
    if not rate then found[d] = NO_LIMIT
    elseif not past then found[d] = rate[2]
    else found[d] = math.min(rate[2], past[d + 1] + math.max(0, now - past[1]) * rate[1]) end
  end
  cells[index] = found
  return found
end

local answers = {}
for n, charge in ipairs(cmsgpack.unpack(ARGV[1])) do
  local forced, amounts, meters = charge[1], charge[2], charge[3]
  local mine, refused = {}, 0
  for m, meter in ipairs(meters) do mine[m] = cell(meter[1], meter[2]) end
  if not forced then
    for d = 1, 3 do
      for m, meter in ipairs(meters) do
        if refused == 0 and meter[2][d] and amounts[d] > 0 and mine[m][d] < amounts[d] then
          refused = 3 * (m - 1) + d
        end
      end
    end
  end
  local answer = {refused}
  for m, meter in ipairs(meters) do
    for d = 1, 3 do
      local rate = meter[2][d]
      if rate and refused == 0 then mine[m][d] = math.min(rate[2], mine[m][d] - amounts[d]) end
      answer[#answer + 1] = mine[m][d]
    end
    if refused == 0 then touched[meter[1]] = mine[m] end
  end
  answers[n] = answer
end
for index, levels in pairs(touched) do
  local value = struct.pack('<dddd', now, levels[1], levels[2], levels[3])
  redis.call('SET', KEYS[index], value, 'PX', ARGV[2])
end
return cmsgpack.pack(answers)
"""


class ValkeyBuckets:
    """One atomic script call for a batch of charges.

    One batch at a time, on one connection: what the client's pool, pipeline and retries do around a
    command costs more than the command, and this is on the path of every request.

    Args:
        url: `redis://…`.
        timeout_s: longest wait for the store.
    """

    def __init__(self, url: Secret, *, timeout_s: float = 0.5) -> None:
        pool: Any = redis.ConnectionPool.from_url(
            url.reveal(),
            socket_connect_timeout=timeout_s,
            retry=Retry(NoBackoff(), 0),
            decode_responses=False,
        )
        self._connection: Any = pool.make_connection()
        self._timeout_s = timeout_s
        self._sha = b""

    async def take(self, charges: Sequence[Charge]) -> Sequence[Decision]:
        """Decide on each charge, in order.

        Raises:
            StoreUnavailableError: Valkey does not answer.
        """
        try:
            answers = _ANSWERS.decode(await self._run(charges))
        except (RedisError, OSError, TimeoutError, msgspec.MsgspecError):
            raise StoreUnavailableError("rate buckets do not answer") from None
        return [_decision(charge, answer) for charge, answer in zip(charges, answers, strict=True)]

    async def _run(self, charges: Sequence[Charge]) -> bytes:
        if not self._sha:
            self._sha = await self._load()
        try:
            return await self._ask(_command(self._sha, charges))
        except LostError:
            # The store was restarted meanwhile; it may be there again, without the script.
            pass
        except NoScriptError:
            self._sha = await self._load()
        try:
            return await self._ask(_command(self._sha, charges))
        except NoScriptError:
            self._sha = await self._load()
            return await self._ask(_command(self._sha, charges))

    async def _load(self) -> bytes:
        return await self._ask(_packed(b"SCRIPT", b"LOAD", _SCRIPT.encode()))

    async def _ask(self, command: bytes) -> bytes:
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._connection.send_packed_command(command, check_health=False)
                return bytes(await self._connection.read_response(disconnect_on_error=False))
        except ResponseError:
            # A whole answer, and the line is free again.
            raise
        except BaseException:
            # Half an exchange may be on the line.
            await self._connection.disconnect(nowait=True)
            raise

    async def close(self) -> None:
        """Close the connection."""
        await self._connection.disconnect()


_ANSWERS = msgspec.msgpack.Decoder(list[list[float]])


def _command(sha: bytes, charges: Sequence[Charge]) -> bytes:
    """Write the script's call."""
    places: dict[str, int] = {}
    asked = [
        (
            charge.forced,
            charge.amounts,
            [
                (places.setdefault(meter.name, len(places) + 1), _rates(meter))
                for meter in charge.meters
            ],
        )
        for charge in charges
    ]
    names = [b"limit:" + name.encode() for name in places]
    blob = msgspec.msgpack.encode(asked)
    return _packed(b"EVALSHA", sha, b"%d" % len(names), *names, blob, b"%d" % _IDLE_MS)


def _rates(meter: Meter) -> list[tuple[float, int] | bool]:
    """Write what the script needs of the rates; `false`, because Lua has no nil inside a list."""
    return [(rate.per_s, rate.burst) if rate is not None else False for rate in meter.rates]


def _packed(*parts: bytes) -> bytes:
    """Write a command of the Redis protocol."""
    head = b"*%d\r\n" % len(parts)
    return head + b"".join([b"$%d\r\n%b\r\n" % (len(part), part) for part in parts])


def _decision(charge: Charge, answer: Sequence[float]) -> Decision:
    code = int(answer[0])
    levels = [answer[place : place + _WIDTH] for place in range(1, len(answer), _WIDTH)]
    return decide(charge, levels, divmod(code - 1, _WIDTH) if code else None)


class SnapshotFile:
    """The last good catalog, exactly as the registry sent it."""

    def __init__(self, directory: Path, worker: int) -> None:
        self._path = directory / "catalog.binpb"
        self._staged = directory / f"catalog.{worker}.staged"

    def read(self) -> bytes | None:
        """Return what was kept; None where there is nothing."""
        try:
            return self._path.read_bytes()
        except OSError:
            return None

    def write(self, data: bytes) -> None:
        """Replace what was kept, whole or not at all.

        Raises:
            OSError: the directory cannot be written.
        """
        self._staged.parent.mkdir(parents=True, exist_ok=True)
        self._staged.write_bytes(data)
        self._staged.replace(self._path)
