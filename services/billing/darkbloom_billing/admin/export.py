"""The accounting history as it leaves: one snapshot, exact sums, rows in key order.

Nothing personal is in it: ids, amounts, tokens and times. The reader adds up what it has written
and compares with the sums that the database computed in the same snapshot.
"""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import asyncpg
from darkbloom_mesh.errors import NotFoundError, OverloadedError, StoreUnavailableError

from darkbloom_billing.store.database import Connection, Database

ROWS_AT_ONCE = 500
_LONGEST_S = 600


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its name, its type (`int`, `text`, `time`, `bool`), whether it is an amount."""

    name: str
    kind: str
    amount: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """Where rows come from, in which order, and what they are."""

    source: str
    order: str
    columns: tuple[Column, ...]


def _ints(*names: str, amount: bool = False) -> tuple[Column, ...]:
    return tuple(Column(name, "int", amount) for name in names)


def _texts(*names: str) -> tuple[Column, ...]:
    return tuple(Column(name, "text") for name in names)


TABLES = {
    "usage": Table(
        "billing.usage",
        "settled_at, request_id",
        (
            *_texts("request_id", "account_id", "attempt_id", "key_id", "model", "build"),
            *_ints("prompt_tokens", "cached_tokens", "completion_tokens"),
            *_ints("charge_micros", amount=True),
            *_texts("outcome"),
            Column("settled_at", "time"),
        ),
    ),
    "earning": Table(
        "billing.earning",
        "settled_at, request_id",
        (
            *_texts("request_id", "account_id", "build"),
            *_ints("amount_micros", amount=True),
            *_ints("prompt_tokens", "completion_tokens"),
            Column("settled_at", "time"),
        ),
    ),
    "account": Table(
        "ledger.account",
        "id",
        (
            *_ints("id"),
            *_texts("path", "class", "unit"),
            Column("closed", "bool"),
            *_ints("dr", "cr", "dr_pend", "cr_pend", amount=True),
            *_ints("version"),
        ),
    ),
    "event": Table(
        "ledger.event",
        "id",
        (
            *_ints("id"),
            *_texts("idem_key", "kind"),
            Column("occurred_at", "time"),
            Column("created_at", "time"),
        ),
    ),
    "transfer": Table(
        "ledger.transfer",
        "id",
        (
            *_ints("id", "event_id"),
            *_texts("mode", "code", "unit"),
            *_ints("debit_id"),
            *_texts("debit_class"),
            *_ints("credit_id"),
            *_texts("credit_class"),
            *_ints("amount", amount=True),
            *_ints("pending_id"),
            Column("created_at", "time"),
        ),
    ),
}


@dataclass(frozen=True, slots=True)
class Header:
    """What the snapshot has: rows, and exact sums by column name."""

    columns: tuple[Column, ...]
    rows: int
    sums: dict[str, int]


class Exporter:
    """Reads a table as of one moment, one at a time: each borrows a connection for long."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._busy = False

    @asynccontextmanager
    async def read(self, name: str) -> AsyncIterator[tuple[Header, AsyncIterator[list[str]]]]:
        """Open a table; yield its header and its rows, as JSON arrays, in portions.

        Raises:
            NotFoundError: No such table.
            OverloadedError: Another export runs here.
            StoreUnavailableError: The database went away; what came so far is worth nothing.
        """
        table = TABLES.get(name)
        if table is None:
            raise NotFoundError("no such table")
        if self._busy:
            raise OverloadedError("another export runs here")
        self._busy = True
        try:
            async with (
                self._database.connection() as connection,
                connection.transaction(isolation="repeatable_read", readonly=True),
            ):
                await connection.execute(f"SET LOCAL statement_timeout = {_LONGEST_S * 1000}")
                yield await _header(connection, table), _rows(connection, table)
        except (OSError, asyncpg.InterfaceError, asyncpg.PostgresConnectionError) as error:
            raise StoreUnavailableError("database does not answer") from error
        finally:
            self._busy = False


async def _header(connection: Connection, table: Table) -> Header:
    amounts = [column.name for column in table.columns if column.amount]
    # As text: a sum of bigints is numeric and may pass 64 bits.
    sums = "".join(f", coalesce(sum({name}), 0)::text AS {name}" for name in amounts)
    # Names are from the table above, never from a caller.
    query = f"SELECT count(*) AS rows{sums} FROM {table.source}"  # noqa: S608
    row = await connection.fetchrow(query, timeout=_LONGEST_S)
    if row is None:
        raise StoreUnavailableError("database does not answer")
    return Header(table.columns, row["rows"], {name: int(row[name]) for name in amounts})


async def _rows(connection: Connection, table: Table) -> AsyncIterator[list[str]]:
    names = ", ".join(column.name for column in table.columns)
    query = f"SELECT {names} FROM {table.source} ORDER BY {table.order}"  # noqa: S608
    cursor = await connection.cursor(query)
    while rows := await cursor.fetch(ROWS_AT_ONCE):
        yield [_line(row) for row in rows]


def _line(row: Sequence[Any]) -> str:
    return json.dumps([_plain(value) for value in row], separators=(",", ":"))


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    return value.decode() if isinstance(value, bytes) else value
