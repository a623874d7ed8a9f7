"""Writing an export and proving it: what was written is read again and added up.

A file whose sums differ from those that the database computed in the same snapshot is removed.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from darkbloom.billing.v1.operator_service_pb2 import ExportHeader

_ROWS_AT_ONCE = 10_000


class MismatchError(Exception):
    """What was written does not add up to what the database said."""


@dataclass(frozen=True, slots=True)
class Written:
    """One proven file."""

    table: str
    file: str
    rows: int
    sums: dict[str, str]
    sha256: str


class JsonFile:
    """One JSON object per line."""

    suffix = "jsonl"

    def __init__(self, path: Path, header: ExportHeader) -> None:
        self._path = path
        self._names = [column.name for column in header.columns]
        self._file = path.open("x", encoding="utf-8")

    def write(self, rows: Sequence[Sequence[Any]]) -> None:
        """Add rows."""
        for row in rows:
            line = json.dumps(dict(zip(self._names, row, strict=True)), separators=(",", ":"))
            self._file.write(f"{line}\n")

    def close(self) -> None:
        """Finish the file."""
        self._file.close()

    def read(self) -> Iterator[Sequence[Any]]:
        """Read it again."""
        with self._path.open(encoding="utf-8") as lines:
            for line in lines:
                row = json.loads(line)
                yield [row[name] for name in self._names]


class ParquetFile:
    """Typed columns, compressed."""

    suffix = "parquet"

    def __init__(self, path: Path, header: ExportHeader) -> None:
        # Only whoever asks for Parquet waits for it to load.
        import pyarrow as pa
        import pyarrow.parquet as pq

        types = {
            "int": pa.int64(),
            "text": pa.string(),
            "time": pa.timestamp("us", tz="UTC"),
            "bool": pa.bool_(),
        }
        self._arrow, self._parquet, self._path = pa, pq, path
        self._times = [column.type == "time" for column in header.columns]
        self._schema = pa.schema(
            [pa.field(column.name, types[column.type]) for column in header.columns]
        )
        self._writer = pq.ParquetWriter(path, self._schema)

    def write(self, rows: Sequence[Sequence[Any]]) -> None:
        """Add rows."""
        columns = [
            [_moment(value) if is_time else value for value in values]
            for values, is_time in zip(zip(*rows, strict=True), self._times, strict=True)
        ]
        arrays = [
            self._arrow.array(values, field.type)
            for values, field in zip(columns, self._schema, strict=True)
        ]
        self._writer.write_table(self._arrow.Table.from_arrays(arrays, schema=self._schema))

    def close(self) -> None:
        """Finish the file."""
        self._writer.close()

    def read(self) -> Iterator[Sequence[Any]]:
        """Read it again."""
        for batch in self._parquet.ParquetFile(self._path).iter_batches(_ROWS_AT_ONCE):
            yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)


FORMATS: dict[str, type[JsonFile] | type[ParquetFile]] = {
    "json": JsonFile,
    "parquet": ParquetFile,
}


def prove(table: str, file: JsonFile | ParquetFile, path: Path, header: ExportHeader) -> Written:
    """Read a finished file again and compare it with its header.

    Raises:
        MismatchError: Rows or sums differ; the file is gone.
    """
    sums = {at: 0 for at, column in enumerate(header.columns) if column.sum}
    rows = 0
    for row in file.read():
        rows += 1
        for at in sums:
            sums[at] += row[at] or 0
    found = {header.columns[at].name: str(total) for at, total in sums.items()}
    wanted = {column.name: column.sum for column in header.columns if column.sum}
    if rows != header.rows or found != wanted:
        path.unlink()
        raise MismatchError(f"{table}: {rows} rows {found}, expected {header.rows} rows {wanted}")
    with path.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    return Written(table, path.name, rows, found, digest)


def _moment(value: str | None) -> datetime | None:
    return None if value is None else datetime.fromisoformat(value)
