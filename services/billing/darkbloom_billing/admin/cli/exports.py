"""Writing an export and proving it: what was written is read again and added up.

A file whose sums differ from those that the database computed in the same snapshot is removed. One
that is encrypted cannot be read again here: it is added up on its way, and by its recipient.
"""

import contextlib
import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Any, cast

from darkbloom.billing.v1.operator_service_pb2 import ExportHeader
from pyrage.x25519 import Identity, Recipient

from darkbloom_billing.state.age import Decrypting, Encrypting

_ROWS_AT_ONCE = 10_000
_AGE = ".age"


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
    """Of the file as it is on the disk."""


class Tally:
    """Adds up rows.

    Args:
        names: Columns, as they come.
        summed: Those that add up.
    """

    def __init__(self, names: Sequence[str], summed: Sequence[str]) -> None:
        self._sums = {at: 0 for at, name in enumerate(names) if name in summed}
        self._names = names
        self.rows = 0

    def add(self, row: Sequence[Any]) -> None:
        """Add a row."""
        self.rows += 1
        for at in self._sums:
            self._sums[at] += row[at] or 0

    def sums(self) -> dict[str, str]:
        """Return what it came to, by column."""
        return {self._names[at]: str(total) for at, total in self._sums.items()}


class _File:
    """A file of rows that is written once, in plain or to recipients."""

    def __init__(self, path: Path, header: ExportHeader, to: Sequence[Recipient] = ()) -> None:
        self.path, self.header, self.encrypted = path, header, bool(to)
        self.names = [column.name for column in header.columns]
        self.tally = tally_of(header)
        raw = Encrypting(path, to) if to else path.open("xb")
        self.sink = cast("IO[bytes]", raw)


class JsonFile(_File):
    """One JSON object per line."""

    suffix = "jsonl"

    def write(self, rows: Sequence[Sequence[Any]]) -> None:
        """Add rows."""
        for row in rows:
            self.tally.add(row)
            line = json.dumps(dict(zip(self.names, row, strict=True)), separators=(",", ":"))
            self.sink.write(f"{line}\n".encode())

    def close(self) -> None:
        """Finish the file."""
        self.sink.close()

    @staticmethod
    def rows(source: IO[bytes]) -> Iterator[tuple[Sequence[str], Sequence[Any]]]:
        """Read columns and values of each row."""
        for line in source:
            row = json.loads(line)
            yield [*row], [*row.values()]


class ParquetFile(_File):
    """Typed columns, compressed."""

    suffix = "parquet"

    def __init__(self, path: Path, header: ExportHeader, to: Sequence[Recipient] = ()) -> None:
        # Only whoever asks for Parquet waits for it to load.
        import pyarrow as pa
        import pyarrow.parquet as pq

        super().__init__(path, header, to)
        types = {
            "int": pa.int64(),
            "text": pa.string(),
            "time": pa.timestamp("us", tz="UTC"),
            "bool": pa.bool_(),
        }
        self._arrow = pa
        self._times = [column.type == "time" for column in header.columns]
        self._schema = pa.schema(
            [pa.field(column.name, types[column.type]) for column in header.columns]
        )
        self._writer = pq.ParquetWriter(self.sink, self._schema)

    def write(self, rows: Sequence[Sequence[Any]]) -> None:
        """Add rows."""
        for row in rows:
            self.tally.add(row)
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
        self.sink.close()

    @staticmethod
    def rows(source: IO[bytes]) -> Iterator[tuple[Sequence[str], Sequence[Any]]]:
        """Read columns and values of each row."""
        import pyarrow.parquet as pq

        # It is read from its end, which a stream does not have yet.
        file = source if source.seekable() else io.BytesIO(source.read())
        for batch in pq.ParquetFile(file).iter_batches(_ROWS_AT_ONCE):
            names = batch.schema.names
            for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                yield names, row


FORMATS: dict[str, type[JsonFile] | type[ParquetFile]] = {
    "json": JsonFile,
    "parquet": ParquetFile,
}


def begun(
    form: str, table: str, directory: Path, header: ExportHeader, to: Sequence[Recipient]
) -> JsonFile | ParquetFile:
    """Begin the file of a table."""
    kind = FORMATS[form]
    return kind(directory / f"{table}.{kind.suffix}{_AGE if to else ''}", header, to)


def prove(table: str, file: JsonFile | ParquetFile) -> Written:
    """Compare a finished file with its header: read again, or as it was written.

    Raises:
        MismatchError: Rows or sums differ; the file is gone.
    """
    path, header = file.path, file.header
    tally = file.tally
    if not file.encrypted:
        tally = tally_of(header)
        with path.open("rb") as source:
            for _, row in file.rows(source):
                tally.add(row)
    wanted = {column.name: column.sum for column in header.columns if column.sum}
    if tally.rows != header.rows or tally.sums() != wanted:
        path.unlink()
        raise MismatchError(
            f"{table}: {tally.rows} rows {tally.sums()}, expected {header.rows} rows {wanted}"
        )
    return Written(table, path.name, tally.rows, tally.sums(), _digest(path))


def verify(directory: Path, who: Sequence[Identity]) -> list[Written]:
    """Prove an export by what its manifest says of each file.

    Raises:
        MismatchError: A file was changed, or does not add up.
        BrokenStateError: An encrypted file was cut short or changed.
        WrongIdentityError: It is encrypted to somebody else, or no identity was given.
        OSError: A file is missing.
    """
    try:
        manifest = json.loads((directory / "manifest.json").read_text(encoding="utf-8"))
        form, files = FORMATS[manifest["format"]], [Written(**each) for each in manifest["files"]]
    except (ValueError, KeyError, TypeError):
        raise MismatchError("the manifest cannot be read") from None
    for each in files:
        path = directory / Path(each.file).name
        if _digest(path) != each.sha256:
            raise MismatchError(f"{each.table}: the file was changed")
        tally: Tally | None = None
        with contextlib.ExitStack() as closing:
            if path.suffix == _AGE:
                source: IO[bytes] = closing.enter_context(Decrypting(path, who)).plain
            else:
                source = closing.enter_context(path.open("rb"))
            for names, row in form.rows(source):
                tally = tally or Tally(names, [*each.sums])
                tally.add(row)
        found = (tally.rows, tally.sums()) if tally else (0, dict.fromkeys(each.sums, "0"))
        if found != (each.rows, each.sums):
            raise MismatchError(f"{each.table}: the file is not what its manifest says")
    return files


def tally_of(header: ExportHeader) -> Tally:
    """Return what adds up the columns of a header."""
    return Tally(
        [column.name for column in header.columns],
        [column.name for column in header.columns if column.sum],
    )


def _digest(path: Path) -> str:
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _moment(value: str | None) -> datetime | None:
    return None if value is None else datetime.fromisoformat(value)
