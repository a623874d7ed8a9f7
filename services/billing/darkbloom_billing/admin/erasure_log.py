"""Confirmed erasures, written down outside the database: a restore must not bring anybody back.

One small file for each step of an erasure (`confirmed`, `canceled`, `erased`), never overwritten.
It holds ids, times and, at the end, the proof; nothing personal. It belongs beside the backups, or
where they are kept, and lives at least as long as the oldest of them.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from darkbloom_mesh.errors import InvalidArgumentError

from darkbloom_billing.kept import torn, write_once

_SUFFIX = ".json"


class Step(StrEnum):
    """How far an erasure got; later ones win."""

    CONFIRMED = "confirmed"
    CANCELED = "canceled"
    ERASED = "erased"


_ORDER = tuple(Step)


def file_name(erasure_id: str, step: Step) -> str:
    """Return the name of the file of a step."""
    return f"{erasure_id}.{step}{_SUFFIX}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ErasureRecord:
    """What is kept of one step."""

    erasure_id: str
    account_id: str
    step: Step
    forfeit: bool
    planned_at: datetime
    scrub_after: datetime
    proof: Mapping[str, Any] | None = None
    """Of an erasure that happened."""

    @property
    def name(self) -> str:
        """Name of its file."""
        return file_name(self.erasure_id, self.step)

    def text(self) -> str:
        """Return the contents of its file."""
        body: dict[str, Any] = {
            "erasure_id": self.erasure_id,
            "account_id": self.account_id,
            "step": self.step.value,
            "forfeit": self.forfeit,
            "planned_at": self.planned_at.astimezone(UTC).isoformat(),
            "scrub_after": self.scrub_after.astimezone(UTC).isoformat(),
        }
        if self.proof is not None:
            body["proof"] = dict(self.proof)
        return json.dumps(body, sort_keys=True) + "\n"


class ErasureLog:
    """A directory of records.

    Args:
        directory: Must be there; best one where nothing can be written twice.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._whole: set[str] = set()

    def names(self) -> frozenset[str]:
        """Return the names of the files that are there, and whole.

        Raises:
            OSError: The directory cannot be read.
        """
        there = {path.name for path in self._files()}
        self._whole &= there
        self._whole |= {name for name in there - self._whole if not torn(self._directory / name)}
        return frozenset(self._whole)

    def write(self, record: ErasureRecord) -> None:
        """Write a record unless it is there.

        Raises:
            OSError: The directory is missing or may not be written.
            ValueError: There is a file of this name with other contents.
        """
        write_once(self._directory / record.name, record.text())

    def newest(self) -> list[ErasureRecord]:
        """Return the last step of each erasure, in the order in which they were planned.

        Of a torn file its name still says which step was taken: with another record of the same
        erasure that is all that counts. One without is left out, and named by `unreadable`.

        Raises:
            OSError: The directory cannot be read.
            InvalidArgumentError: A whole file in it is no record.
        """
        found: dict[str, ErasureRecord] = {}
        broken: list[tuple[str, Step]] = []
        for path in self._files():
            if torn(path):
                broken += [taken] if (taken := _named(path.name)) else []
                continue
            record = _read(path)
            known = found.get(record.erasure_id)
            if known is None or _ORDER.index(known.step) < _ORDER.index(record.step):
                found[record.erasure_id] = record
        for erasure_id, step in broken:
            known = found.get(erasure_id)
            if known is not None and _ORDER.index(known.step) < _ORDER.index(step):
                found[erasure_id] = replace(known, step=step)
        return sorted(found.values(), key=lambda each: (each.planned_at, each.erasure_id))

    def unreadable(self) -> tuple[str, ...]:
        """Return the names of torn files of erasures of which there is no other record.

        Raises:
            OSError: The directory cannot be read.
        """
        names = {path.name: torn(path) for path in self._files()}
        read = {_of(name) for name, is_torn in names.items() if not is_torn}
        return tuple(name for name, is_torn in names.items() if is_torn and _of(name) not in read)

    def _files(self) -> list[Path]:
        if not self._directory.is_dir():
            raise FileNotFoundError(self._directory.name)
        return sorted(self._directory.glob(f"erase_*{_SUFFIX}"))


def _of(name: str) -> str:
    """Return the erasure that a file is of."""
    return name.partition(".")[0]


def _named(name: str) -> tuple[str, Step] | None:
    """Return the erasure and the step that a file's name tells of."""
    step = name.removesuffix(_SUFFIX).rpartition(".")[2]
    return (_of(name), Step(step)) if step in set(Step) else None


def _read(path: Path) -> ErasureRecord:
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
        record = ErasureRecord(
            erasure_id=str(body["erasure_id"]),
            account_id=str(body["account_id"]),
            step=Step(body["step"]),
            forfeit=bool(body["forfeit"]),
            planned_at=datetime.fromisoformat(body["planned_at"]),
            scrub_after=datetime.fromisoformat(body["scrub_after"]),
            proof=body.get("proof"),
        )
    except (ValueError, KeyError, TypeError):
        raise InvalidArgumentError("is no record of an erasure", path.name) from None
    if record.name != path.name:
        raise InvalidArgumentError("names another erasure", path.name)
    return record
