"""Shared token buckets in Valkey, and the last good catalog on disk."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import redis.asyncio as redis
from darkbloom_mesh.config import Secret
from darkbloom_mesh.errors import StoreUnavailableError
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as LostError
from redis.exceptions import NoScriptError, RedisError, ResponseError

from darkbloom_gateway.buckets import Charge, Decision, decide

_IDLE_MS = 30 * 60 * 1000
# The account's bucket is touched only once the key's own limit has let the request pass.
_SCRIPT = """
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local function level(name, rate, burst)
  local kept = redis.call('HMGET', name, 't', 'a')
  if not kept[1] then return burst end
  return math.min(burst, kept[1] + math.max(0, now - kept[2]) * rate / 1000000)
end
local function put(name, tokens)
  redis.call('HSET', name, 't', string.format('%.6f', tokens), 'a', string.format('%.0f', now))
  redis.call('PEXPIRE', name, ARGV[1])
end
local own = nil
if KEYS[2] then
  own = level(KEYS[2], tonumber(ARGV[4]), tonumber(ARGV[5]))
  if own < 1 then return {0, 'key', string.format('%.6f', own)} end
end
local tokens = level(KEYS[1], tonumber(ARGV[2]), tonumber(ARGV[3]))
if tokens < 1 then return {0, 'account', string.format('%.6f', tokens)} end
if own then put(KEYS[2], own - 1) end
put(KEYS[1], tokens - 1)
return {1, 'account', string.format('%.6f', tokens - 1)}
"""


class ValkeyBuckets:
    """One atomic script per request; a batch of them travels in one write.

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
        """Decide on each charge.

        Raises:
            StoreUnavailableError: Valkey does not answer.
        """
        try:
            answers = await self._run(charges)
        except (RedisError, OSError, TimeoutError):
            raise StoreUnavailableError("rate buckets do not answer") from None
        if any(isinstance(answer, RedisError) for answer in answers):
            raise StoreUnavailableError("rate buckets do not answer")
        return [_decision(charge, answer) for charge, answer in zip(charges, answers, strict=True)]

    async def _run(self, charges: Sequence[Charge]) -> list[Any]:
        if not self._sha:
            self._sha = await self._load()
        try:
            answers = await self._ask([_command(self._sha, charge) for charge in charges])
        except LostError:
            # The store was restarted meanwhile; it may be there again, without the script.
            answers = await self._ask([_command(self._sha, charge) for charge in charges])
        if any(isinstance(answer, NoScriptError) for answer in answers):
            self._sha = await self._load()
            answers = await self._ask([_command(self._sha, charge) for charge in charges])
        return answers

    async def _load(self) -> bytes:
        (sha,) = await self._ask([_packed(b"SCRIPT", b"LOAD", _SCRIPT.encode())])
        if isinstance(sha, RedisError):
            raise sha
        return bytes(sha)

    async def _ask(self, commands: Sequence[bytes]) -> list[Any]:
        """Send commands and return their answers, errors of the store among them."""
        try:
            async with asyncio.timeout(self._timeout_s):
                packed = b"".join(commands)
                await self._connection.send_packed_command(packed, check_health=False)
                return [await self._answer() for _ in commands]
        except BaseException:
            # Half an exchange may be on the line.
            await self._connection.disconnect(nowait=True)
            raise

    async def _answer(self) -> Any:
        try:
            return await self._connection.read_response(disconnect_on_error=False)
        except ResponseError as error:
            return error

    async def close(self) -> None:
        """Close the connection."""
        await self._connection.disconnect()


def _command(sha: bytes, charge: Charge) -> bytes:
    """Write the script's call; the braces keep both buckets on one node of a cluster."""
    account, key = charge.account, charge.key
    names = [f"rate:{{{account.name}}}"]
    values = [repr(account.rate), str(account.burst)]
    if key is not None:
        names.append(f"rate:{{{account.name}}}:{key.name}")
        values += [repr(key.rate), str(key.burst)]
    texts = (str(len(names)), *names, str(_IDLE_MS), *values)
    return _packed(b"EVALSHA", sha, *[text.encode() for text in texts])


def _packed(*parts: bytes) -> bytes:
    """Write a command of the Redis protocol."""
    head = b"*%d\r\n" % len(parts)
    return head + b"".join([b"$%d\r\n%b\r\n" % (len(part), part) for part in parts])


def _decision(charge: Charge, answer: Any) -> Decision:
    allowed, dimension, tokens = answer
    of_key = dimension == b"key" and charge.key is not None
    return decide(
        allowed=bool(allowed),
        dimension="key" if of_key else "account",
        bucket=charge.key if of_key and charge.key is not None else charge.account,
        tokens=float(tokens),
    )


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
