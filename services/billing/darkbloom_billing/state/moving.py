"""Out of one database, and into another: a faithful copy, proven on both sides.

Ids, keys of commands, postings and sealed blocks stay what they are. So a request that is repeated
after the move is still a repetition, and the copies of the sealed history outside still fit.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Any, cast

import asyncpg
from darkbloom_mesh.config import Secret
from darkbloom_mesh.errors import StoreUnavailableError
from pyrage.x25519 import Identity, Recipient

from darkbloom_billing.audit.auditor import audit_here
from darkbloom_billing.state.age import Decrypting, Encrypting
from darkbloom_billing.state.catalog import CODE, Table, revision, sums, tables
from darkbloom_billing.state.errors import (
    BrokenStateError,
    DifferentError,
    NotEmptyError,
    OtherRevisionError,
)
from darkbloom_billing.state.file import Entry, Manifest, Reader, Writer

_CONNECT_S = 10
_EMPTY = "SELECT NOT EXISTS (SELECT FROM ledger.event) AND NOT EXISTS (SELECT FROM billing.account)"
_SEQUENCES = """
    SELECT a.attname AS column, pg_get_serial_sequence($1, a.attname) AS sequence
    FROM pg_attribute a WHERE a.attrelid = $1::regclass AND a.attidentity <> ''
"""


async def export_state(
    url: Secret, path: Path, to: Sequence[Recipient], *, now: datetime
) -> Manifest:
    """Write everything as of one moment to a file that only its recipients can read.

    Args:
        url: The database, as its owner.
        path: Must not be there; removed again where anything fails.
        to: Recipients.
        now: Noted in the manifest.

    Raises:
        StoreUnavailableError: The database does not answer.
        OSError: The file cannot be written.
    """
    async with _connected(url) as connection:
        sink = Encrypting(path, to)
        try:
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                await _unhurried(connection)
                manifest = await _write(connection, Writer(cast("IO[bytes]", sink)), now)
            await asyncio.to_thread(sink.close)
        except BaseException:
            try:
                sink.close()
            finally:
                # A full disk refuses the close, too; half a file is of no use to anybody.
                await asyncio.to_thread(path.unlink, missing_ok=True)
            raise
        return manifest


def verify_state(path: Path, who: Sequence[Identity]) -> Manifest:
    """Go through a file without a database: every digest, every row, every sum.

    Raises:
        WrongIdentityError: It is encrypted to somebody else.
        BrokenStateError: It was cut short or changed.
    """
    with Decrypting(path, who) as file:
        reader = Reader(file.plain)
        for _ in reader.pieces():
            continue
    if reader.manifest is None:
        raise BrokenStateError("it was cut short: there is no manifest")
    return reader.manifest


async def import_state(
    url: Secret, path: Path, who: Sequence[Identity], *, now: datetime
) -> Manifest:
    """Fill an empty, migrated database from a file, all of it or nothing.

    The file is gone through twice: before anything is written, and while it is. Then the database
    counts and adds up for itself, and the auditor recomputes the books, before it is committed.

    Args:
        url: The database, as its owner.
        path: The file.
        who: Identities that may open it.
        now: Against which the audit judges leases.

    Raises:
        NotEmptyError: It holds something.
        OtherRevisionError: It is not migrated to the file's revision.
        WrongIdentityError: The file is encrypted to somebody else.
        BrokenStateError: The file was cut short or changed.
        DifferentError: Sums differ, or the books are not sound; nothing was written.
        StoreUnavailableError: The database does not answer.
    """
    manifest = await asyncio.to_thread(verify_state, path, who)
    async with _connected(url) as connection:
        found = await revision(connection)
        if found != manifest.revision:
            raise OtherRevisionError(
                f"the file is of revision {manifest.revision}, the database of {found or 'none'}"
            )
        if not await connection.fetchval(_EMPTY):
            raise NotEmptyError("the database is not empty")
        async with connection.transaction():
            await _unhurried(connection)
            await _fill(connection, manifest, path, who, now)
    return manifest


async def _write(connection: "asyncpg.Connection[Any]", out: Writer, now: datetime) -> Manifest:
    manifest = Manifest(
        revision=await revision(connection), taken_at=now.astimezone(UTC).isoformat()
    )

    async def add(data: bytes) -> None:
        out.add(data)

    for table in await tables(connection):
        rows, totals = await sums(connection, table)
        out.begin(table.name)
        await connection.copy_from_query(table.rows_query(), output=add, timeout=None)
        manifest.tables.append(
            Entry(
                name=table.name,
                columns=table.names,
                rows=rows,
                sums=dict(totals),
                sha256=out.end(),
            )
        )
    out.close(manifest)
    return manifest


async def _fill(
    connection: "asyncpg.Connection[Any]",
    manifest: Manifest,
    path: Path,
    who: Sequence[Identity],
    now: datetime,
) -> None:
    known = {table.name: table for table in await tables(connection)}
    if {entry.name: entry.columns for entry in manifest.tables} != {
        name: table.names for name, table in known.items()
    }:
        raise BrokenStateError("its tables are not those of this revision")
    for entry in manifest.tables:
        if entry.name in CODE and entry.sha256 != await _digest(connection, known[entry.name]):
            raise DifferentError(f"{entry.name} is not that of this revision")
    # What migrations have put there is in the file, as it was; triggers would do things twice.
    for table in reversed(known.values()):
        await connection.execute(f"ALTER TABLE {table.quoted} DISABLE TRIGGER USER")
        if table.name not in CODE:
            await connection.execute(f"DELETE FROM {table.quoted}")  # noqa: S608 - of the catalog
    with Decrypting(path, who) as file:
        await _copy(connection, known, Reader(file.plain).pieces())
    for entry in manifest.tables:
        found = await sums(connection, known[entry.name])
        if found != (entry.rows, entry.sums):
            raise DifferentError(f"{entry.name} does not add up in the database")
    for table in known.values():
        await connection.execute(f"ALTER TABLE {table.quoted} ENABLE TRIGGER USER")
        await _sequences(connection, table)
    report = await audit_here(connection, now=now, receipts_due=now - timedelta(days=1))
    if report.violations:
        first = report.violations[0]
        raise DifferentError(f"the books are not sound: {first.check}, {first.what}")


async def _digest(connection: "asyncpg.Connection[Any]", table: Table) -> str:
    """Return what `Writer.end` would say of a table."""
    found = hashlib.sha256()

    async def add(data: bytes) -> None:
        found.update(data)

    await connection.copy_from_query(table.rows_query(), output=add, timeout=None)
    return found.hexdigest()


async def _copy(
    connection: "asyncpg.Connection[Any]",
    known: dict[str, Table],
    pieces: Iterator[tuple[str, bytes]],
) -> None:
    """Copy table by table; a piece of the next one ends the one before."""
    ahead: list[tuple[str, bytes]] = []

    def following() -> tuple[str, bytes] | None:
        return ahead.pop() if ahead else next(pieces, None)

    while (piece := following()) is not None:
        name, first = piece

        async def rows(name: str = name, first: bytes = first) -> AsyncIterator[bytes]:
            yield first
            while (more := following()) is not None:
                if more[0] != name:
                    ahead.append(more)
                    return
                yield more[1]

        if name in CODE:
            async for _ in rows():
                continue
            continue
        table = known.get(name)
        if table is None:
            raise BrokenStateError("it holds a table that is not known")
        try:
            await connection.copy_to_table(
                table.bare,
                schema_name=table.schema,
                columns=table.names,
                source=rows(),
                timeout=None,
            )
        except (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError) as error:
            raise DifferentError(f"{name} cannot be written: {type(error).__name__}") from None


async def _sequences(connection: "asyncpg.Connection[Any]", table: Table) -> None:
    """Let new rows be numbered after those that came."""
    for row in await connection.fetch(_SEQUENCES, table.quoted):
        await connection.execute(
            f"SELECT setval('{row['sequence']}', coalesce(max(\"{row['column']}\"), 0) + 1, false)"  # noqa: S608 - of the catalog
            f" FROM {table.quoted}"
        )


async def _unhurried(connection: "asyncpg.Connection[Any]") -> None:
    await connection.execute("SET LOCAL statement_timeout = 0")
    await connection.execute("SET LOCAL transaction_timeout = 0")
    await connection.execute("SET LOCAL lock_timeout = '3s'")


@asynccontextmanager
async def _connected(url: Secret) -> AsyncIterator["asyncpg.Connection[Any]"]:
    try:
        connection = await asyncpg.connect(url.reveal(), timeout=_CONNECT_S)
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
        raise StoreUnavailableError("database does not answer") from None
    try:
        yield connection
    except (asyncpg.PostgresConnectionError, asyncpg.InterfaceError):
        raise StoreUnavailableError("database does not answer") from None
    finally:
        await connection.close(timeout=_CONNECT_S)
