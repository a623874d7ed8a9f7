"""Sealed history: every few minutes the newest events are hashed into a chain of blocks.

A block holds all events since the one before that are older than a minute, in id order; its hash
covers the hash before it. Whoever keeps a copy of the last hash can tell later whether anything
before it was changed, by a superuser or by a restored backup. Transactions live at most half as
long as that minute (`Database.open`), so no event can appear behind a seal.
"""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import structlog
from darkbloom_mesh.clock import Clock
from darkbloom_mesh.errors import MeshError

from darkbloom_billing.kept import torn, write_once
from darkbloom_billing.store.database import Connection, Database

GENESIS = bytes(32)
"""Hash before the first block."""

_AGE = timedelta(seconds=60)
# Small pages: hashing one keeps the event loop for a few milliseconds.
_PAGE = 500
_MOST = 50_000
_KEY_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('ledger.block', 0))"
_LAST = "SELECT height, last_event, hash FROM ledger.block ORDER BY height DESC LIMIT 1"
# Everything of an event that says what happened; times in whole microseconds.
_EVENTS = """
    SELECT e.id, e.idem_key, e.kind, encode(e.body_hash, 'hex') AS body_hash, e.body::text,
      e.result::text, (extract(epoch FROM e.occurred_at) * 1000000)::bigint AS occurred,
      (extract(epoch FROM e.created_at) * 1000000)::bigint AS created,
      (SELECT coalesce(jsonb_agg(jsonb_build_array(t.id, t.mode, t.code, t.unit, t.debit_id,
          t.debit_class, t.credit_id, t.credit_class, t.amount, t.pending_id) ORDER BY t.id),
        '[]')::text FROM ledger.transfer t WHERE t.event_id = e.id) AS transfers
    FROM ledger.event e
    WHERE e.id > $1 AND e.id <= $2 ORDER BY e.id LIMIT $3
"""
_HEADS = "block-*.json"
_EXPORT_S = 20.0
_WRITE = "INSERT INTO ledger.block VALUES ($1, $2, $3, $4, $5, $6, $7)"
_LARGEST_ID = 2**63 - 1

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One sealed block."""

    height: int
    first_event: int
    last_event: int
    events: int
    previous: bytes
    hash: bytes
    sealed_at: datetime

    def head(self) -> dict[str, Any]:
        """Return what a copy of the chain's head says."""
        return {
            "height": self.height,
            "hash": self.hash.hex(),
            "previous": self.previous.hex(),
            "first_event": self.first_event,
            "last_event": self.last_event,
            "events": self.events,
            "sealed_at": self.sealed_at.isoformat(),
        }


def event_bytes(row: Mapping[str, Any]) -> bytes:
    """Return the canonical bytes of an event with its transfers."""
    names = ("id", "idem_key", "kind", "body_hash", "body", "result", "occurred", "created")
    fields = [row[name] for name in (*names, "transfers")]
    return json.dumps(fields, ensure_ascii=True, separators=(",", ":")).encode()


@dataclass(slots=True)
class Chain:
    """Hashes the events of one block, one after another."""

    previous: bytes
    first: int = 0
    last: int = 0
    events: int = 0
    _digest: Any = None

    def add(self, row: Mapping[str, Any]) -> None:
        """Take the next event in."""
        if self._digest is None:
            self._digest = hashlib.sha256(self.previous)
            self.first = row["id"]
        self._digest.update(hashlib.sha256(event_bytes(row)).digest())
        self.last = row["id"]
        self.events += 1

    @property
    def hash(self) -> bytes:
        """Hash of the block before it and of every event in it."""
        return bytes(self._digest.digest()) if self._digest is not None else self.previous


async def events_between(
    connection: Connection, after: int, last: int
) -> AsyncIterator[Mapping[str, Any]]:
    """Yield the events with `after` < id <= `last` in id order."""
    while rows := await connection.fetch(_EVENTS, after, last, _PAGE):
        for row in rows:
            yield row
        after = rows[-1]["id"]


async def seal(database: Database, *, now: datetime) -> Block | None:
    """Seal what is older than a minute, at most 50,000 events; None: there is nothing to seal."""

    async def work(connection: Connection) -> Block | None:
        async with connection.transaction():
            await connection.execute(_KEY_LOCK)
            last = await connection.fetchrow(_LAST)
            height, after, previous = (0, 0, GENESIS) if last is None else tuple(last)
            chain = Chain(previous)
            # The database's own time: it stamped the events.
            before = await connection.fetchval("SELECT now()") - _AGE
            # Ids are taken before commits: a younger event with a lower id ends the block, too.
            async for row in events_between(connection, after, _LARGEST_ID):
                if row["created"] > before.timestamp() * 1e6 or chain.events == _MOST:
                    break
                chain.add(row)
            if not chain.events:
                return None
            block = Block(
                height=height + 1,
                first_event=chain.first,
                last_event=chain.last,
                events=chain.events,
                previous=previous,
                hash=chain.hash,
                sealed_at=now,
            )
            await connection.execute(
                _WRITE,
                block.height,
                block.first_event,
                block.last_event,
                block.events,
                block.previous,
                block.hash,
                block.sealed_at,
            )
            return block

    return await database.run(work)


async def head(database: Database) -> Block | None:
    """Return the newest block; None: nothing is sealed yet."""

    async def work(connection: Connection) -> Block | None:
        row = await connection.fetchrow("SELECT * FROM ledger.block ORDER BY height DESC LIMIT 1")
        return None if row is None else Block(**dict(row))

    return await database.run(work)


def export(block: Block, directory: Path) -> Path:
    """Write a block's head to a file of its own that is never overwritten; return its path.

    Raises:
        OSError: The directory is missing or may not be written.
        ValueError: There is a file of this height with other contents.
    """
    path = head_path(directory, block.height)
    text = json.dumps(block.head(), sort_keys=True) + "\n"
    write_once(path, text)
    return path


def head_path(directory: Path, height: int) -> Path:
    """Return where the copy of a head is, or would be."""
    return directory / f"block-{height:010d}.json"


def exported(directory: Path) -> dict[int, str]:
    """Return the hashes (hex) of exported heads by height, without torn files (`torn_heads`).

    A file that lacks its end and says something all the same is compared: else whoever changes a
    copy would only have to leave out its last byte.

    Raises:
        OSError: A file cannot be read.
        ValueError: A whole file is not a head.
    """
    found: dict[int, str] = {}
    for path in sorted(directory.glob(_HEADS)):
        try:
            told = json.loads(path.read_text(encoding="utf-8"))
            found[int(told["height"])] = str(told["hash"])
        except (ValueError, KeyError, TypeError):
            if torn(path):
                continue
            raise ValueError(f"{path.name} is no head") from None
    return found


def torn_heads(directory: Path) -> tuple[str, ...]:
    """Return the names of copies that were never written to their end.

    Raises:
        OSError: A file cannot be read.
    """
    return tuple(path.name for path in sorted(directory.glob(_HEADS)) if torn(path))


class Sealer:
    """Seals now and then, and copies each new head out of the database.

    Args:
        database: Where the ledger is.
        clock: Time of seals.
        directory: Where heads are copied to, for example write-once storage; None: nowhere.
        observe: Told the height of the chain.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        directory: Path | None,
        observe: Callable[[int], object] = lambda _height: None,
    ) -> None:
        self._database = database
        self._clock = clock
        self._directory = directory
        self._observe = observe

    async def run(self, period_s: float) -> None:
        """Seal for ever; what failed is sealed next time."""
        while True:
            try:
                await self.round()
            except MeshError as error:
                _log.warning("seal_failed", reason=error.reason_name)
            except (OSError, ValueError) as error:
                _log.error("seal_not_exported", error=type(error).__name__)
            await self._clock.sleep(period_s)

    async def round(self) -> Block | None:
        """Seal everything that is old enough and copy each head."""
        block = await head(self._database)
        while made := await seal(self._database, now=self._clock.now()):
            block = made
            await self._export(block)
        if block is None:
            return None
        self._observe(block.height)
        await self._export(block)
        return block

    async def _export(self, block: Block) -> None:
        """Copy a head out, beside the event loop: the volume may be slow, or away."""
        if self._directory is not None:
            async with asyncio.timeout(_EXPORT_S):
                await asyncio.to_thread(export, block, self._directory)
