"""Which tables there are, in which order they can be filled, and what their numbers add up to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter
from typing import Any

import asyncpg

SCHEMAS = ("ledger", "billing")
CODE = frozenset({"ledger.rule", "billing.erasure_rule"})
"""Filled by migrations and acted on: compared, never taken from a file."""
VERSION = "alembic_version"
_INTEGERS = frozenset({"bigint", "integer", "smallint"})
_TABLES = """
    SELECT n.nspname || '.' || c.relname AS name, a.attname AS column,
      format_type(a.atttypid, a.atttypmod) AS type,
      coalesce(a.attnum = ANY (i.indkey::int2[]), false) AS in_key
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
      AND a.attgenerated = ''
    LEFT JOIN pg_index i ON i.indrelid = c.oid AND i.indisprimary
    WHERE n.nspname = ANY ($1) AND c.relkind = 'r' AND c.relname <> $2
    ORDER BY 1, a.attnum
"""
_REFERENCES = """
    SELECT n.nspname || '.' || c.relname AS child, m.nspname || '.' || p.relname AS parent
    FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid
    JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_class p ON p.oid = k.confrelid JOIN pg_namespace m ON m.oid = p.relnamespace
    WHERE k.contype = 'f' AND n.nspname = ANY ($1) AND p.oid <> c.oid
"""


@dataclass(frozen=True, slots=True)
class Column:
    """A column that is stored."""

    name: str
    is_number: bool
    in_key: bool


@dataclass(frozen=True, slots=True)
class Table:
    """A table, by schema and name."""

    name: str
    columns: tuple[Column, ...]

    @property
    def schema(self) -> str:
        """Its schema."""
        return self.name.partition(".")[0]

    @property
    def bare(self) -> str:
        """Its name in the schema."""
        return self.name.partition(".")[2]

    @property
    def quoted(self) -> str:
        """As it stands in a statement."""
        return f'"{self.schema}"."{self.bare}"'

    @property
    def names(self) -> list[str]:
        """Its columns."""
        return [column.name for column in self.columns]

    @property
    def numbers(self) -> list[str]:
        """Columns that add up."""
        return [column.name for column in self.columns if column.is_number]

    def rows_query(self) -> str:
        """Return what reads every row, in the order of the key."""
        columns = ", ".join(f'"{name}"' for name in self.names)
        key = [f'"{column.name}"' for column in self.columns if column.in_key]
        order = f" ORDER BY {', '.join(key)}" if key else ""
        return f"SELECT {columns} FROM {self.quoted}{order}"  # noqa: S608 - names of the catalog

    def sums_query(self) -> str:
        """Return what counts and adds up, as text: a sum may pass 64 bits."""
        sums = "".join(f', coalesce(sum("{n}"), 0)::text AS "{n}"' for n in self.numbers)
        return f"SELECT count(*) AS rows_{sums} FROM {self.quoted}"  # noqa: S608 - as above


async def tables(connection: "asyncpg.Connection[Any]") -> Sequence[Table]:
    """Return every table, parents before children."""
    found: dict[str, list[Column]] = {}
    for row in await connection.fetch(_TABLES, list(SCHEMAS), VERSION):
        column = Column(row["column"], row["type"] in _INTEGERS, row["in_key"])
        found.setdefault(row["name"], []).append(column)
    order = TopologicalSorter[str]({name: set() for name in found})
    for row in await connection.fetch(_REFERENCES, list(SCHEMAS)):
        order.add(row["child"], row["parent"])
    return [Table(name, tuple(found[name])) for name in order.static_order() if name in found]


async def sums(
    connection: "asyncpg.Connection[Any]", table: Table
) -> tuple[int, Mapping[str, str]]:
    """Return how many rows a table has, and what its numbers add up to."""
    row = await connection.fetchrow(table.sums_query(), timeout=None)
    if row is None:
        return 0, {}
    return row["rows_"], {name: row[name] for name in table.numbers}


async def revision(connection: "asyncpg.Connection[Any]") -> str:
    """Return the revision of the schema; empty: it was never migrated."""
    try:
        found = await connection.fetchval(f"SELECT version_num FROM billing.{VERSION}")  # noqa: S608 - a constant
    except asyncpg.UndefinedTableError:
        return ""
    return str(found or "")
