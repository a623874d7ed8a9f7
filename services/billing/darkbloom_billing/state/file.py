"""The file: a tar inside age. Any `age -d FILE | tar x` opens it; nothing of ours is needed.

`<schema>.<table>/<n>.copy` are pieces of PostgreSQL's text format, in order; `manifest.json` is the
last member and says what all of it must add up to.
"""

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import IO, Any

from darkbloom_billing.state.errors import BrokenStateError

FORMAT = 1
PIECE = 1 << 20
MANIFEST = "manifest.json"
_MAX_MANIFEST = 4 << 20


@dataclass(slots=True)
class Entry:
    """What a table must add up to."""

    name: str
    columns: list[str]
    rows: int
    sums: dict[str, str]
    sha256: str


@dataclass(slots=True)
class Manifest:
    """What is in the file."""

    revision: str
    taken_at: str
    tables: list[Entry] = field(default_factory=list)
    format: int = FORMAT

    def text(self) -> bytes:
        """Return it as JSON."""
        return json.dumps(asdict(self), indent=2).encode() + b"\n"


def read_manifest(text: bytes) -> Manifest:
    """Read a manifest.

    Raises:
        BrokenStateError: It is none, or of a format that came later.
    """
    try:
        body = json.loads(text)
        if body["format"] != FORMAT:
            raise BrokenStateError("the file has a format of another version")
        entries = [Entry(**entry) for entry in body["tables"]]
        return Manifest(revision=body["revision"], taken_at=body["taken_at"], tables=entries)
    except (ValueError, KeyError, TypeError):
        raise BrokenStateError("the manifest cannot be read") from None


class Writer:
    """Writes pieces of bounded size, so that nothing is ever whole in memory or on a disk."""

    def __init__(self, sink: IO[bytes]) -> None:
        self._tar = tarfile.open(fileobj=sink, mode="w|", format=tarfile.PAX_FORMAT)  # noqa: SIM115 - closed in close
        self._buffer = bytearray()
        self._digest = hashlib.sha256()
        self._table, self._number = "", 0

    def begin(self, table: str) -> None:
        """Begin a table."""
        self._table, self._number, self._digest = table, 0, hashlib.sha256()

    def add(self, data: bytes) -> None:
        """Add bytes of the table."""
        self._digest.update(data)
        self._buffer += data
        while len(self._buffer) >= PIECE:
            self._piece(PIECE)

    def end(self) -> str:
        """End the table; returns the digest of its bytes."""
        if self._buffer:
            self._piece(len(self._buffer))
        return self._digest.hexdigest()

    def close(self, manifest: Manifest) -> None:
        """Write the manifest and end the file."""
        self._member(MANIFEST, manifest.text())
        self._tar.close()

    def _piece(self, size: int) -> None:
        self._member(f"{self._table}/{self._number:06d}.copy", bytes(self._buffer[:size]))
        del self._buffer[:size]
        self._number += 1

    def _member(self, name: str, content: bytes) -> None:
        info = tarfile.TarInfo(name)
        info.size, info.mode = len(content), 0o600
        self._tar.addfile(info, io.BytesIO(content))


@dataclass(slots=True)
class _Tally:
    """Adds up a table as it goes by."""

    digest: Any = field(default_factory=hashlib.sha256)
    rest: bytes = b""
    rows: int = 0
    totals: list[int] = field(default_factory=list)

    def add(self, piece: bytes) -> None:
        self.digest.update(piece)
        *lines, self.rest = (self.rest + piece).split(b"\n")
        for line in lines:
            self.rows += 1
            cells = line.split(b"\t")
            if not self.totals:
                self.totals = [0] * len(cells)
            for at, cell in enumerate(cells):
                # Whether a column is a number, the manifest knows; others add up to nothing.
                if cell.isdigit() or (cell[:1] == b"-" and cell[1:].isdigit()):
                    self.totals[at] += int(cell)


class Reader:
    """Goes through a file once, piece by piece, and proves it against its manifest at the end."""

    def __init__(self, plain: IO[bytes]) -> None:
        self._plain = plain
        self._tallies: dict[str, _Tally] = {}
        self.manifest: Manifest | None = None

    def pieces(self) -> Iterator[tuple[str, bytes]]:
        """Yield table and bytes; the manifest is checked once they are all read.

        Raises:
            BrokenStateError: It is no file of ours, was cut short, or does not add up.
        """
        try:
            with tarfile.open(fileobj=self._plain, mode="r|") as tar:
                for member in tar:
                    content = tar.extractfile(member)
                    if content is None or member.size > max(PIECE, _MAX_MANIFEST):
                        raise BrokenStateError("it is no state file")
                    if member.name == MANIFEST:
                        self.manifest = read_manifest(content.read())
                        break
                    table, _, _ = member.name.partition("/")
                    piece = content.read()
                    self._tallies.setdefault(table, _Tally()).add(piece)
                    yield table, piece
        except (tarfile.TarError, EOFError):
            raise BrokenStateError("it was cut short, or is no state file") from None
        if self.manifest is None:
            raise BrokenStateError("it was cut short: there is no manifest")
        self._prove(self.manifest)
        # What stands behind the manifest is padding; reading it lets the encryption prove its end.
        while self._plain.read(PIECE):
            continue

    def _prove(self, manifest: Manifest) -> None:
        if {*self._tallies} - {entry.name for entry in manifest.tables}:
            raise BrokenStateError("it holds a table that its manifest does not name")
        for entry in manifest.tables:
            tally = self._tallies.get(entry.name, _Tally())
            places: Mapping[str, int] = {name: at for at, name in enumerate(entry.columns)}
            totals = tally.totals or [0] * len(entry.columns)
            wrong = (
                tally.digest.hexdigest() != entry.sha256
                or tally.rows != entry.rows
                or tally.rest
                or any(
                    name not in places or str(totals[places[name]]) != total
                    for name, total in entry.sums.items()
                )
            )
            if wrong:
                raise BrokenStateError(f"{entry.name} does not add up to what its manifest says")
