"""What the `verify-…` commands share: a file in, one JSON object and an exit code out.

No configuration, network, or database: whoever has the file can run them.
"""

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import msgspec
import typer
from darkbloom_edge.apple import AppleRejected
from darkbloom_edge.errors import EdgeError, MalformedError
from darkbloom_edge.strict_json import parse_json_object

MAX_FILE_BYTES = 1024 * 1024
"""Largest file that is read."""

T = TypeVar("T")


class FileFault(StrEnum):
    """What can be wrong with a file, before or beside the evidence in it."""

    UNREADABLE_FILE = "unreadable_file"
    """It cannot be opened or read."""
    MALFORMED_FILE = "malformed_file"
    """Not JSON of its schema."""
    DECLARED_MISMATCH = "declared_mismatch"
    """It says something else beside the evidence than the evidence says."""


class FileRejected(EdgeError):  # noqa: N818 - the name says what happened to the file
    """A file was refused.

    Args:
        reason: why.
        detail: which member, or what is wrong with it.
    """

    def __init__(self, reason: FileFault, detail: str) -> None:
        super().__init__(f"file rejected, {reason.value}: {detail}")
        self.reason = reason
        self.detail = detail


def read_bytes(path: Path) -> bytes:
    """Read a file, one byte past the largest size at most: its reader refuses that.

    Raises:
        FileRejected: `unreadable_file`.
    """
    try:
        with path.open("rb") as file:
            return file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise FileRejected(FileFault.UNREADABLE_FILE, error.strerror or "error") from None


def read_file(path: Path, schema: type[T]) -> T:
    """Read a JSON file of a schema.

    Raises:
        FileRejected: `unreadable_file` or `malformed_file`.
    """
    data = read_bytes(path)
    try:
        return msgspec.convert(parse_json_object(data, max_bytes=MAX_FILE_BYTES), schema)
    except (MalformedError, msgspec.ValidationError) as error:
        raise FileRejected(FileFault.MALFORMED_FILE, str(error)) from None


def accepted(*, result: str = "valid", **facts: Any) -> NoReturn:
    """Print that the evidence holds, and what it says; exit with 0."""
    _finish(result, None, facts, 0)


def refused(error: EdgeError, **facts: Any) -> NoReturn:
    """Print why the evidence does not hold; exit with 1. Details go to the error output."""
    typer.echo(str(error), err=True)
    if isinstance(error, AppleRejected | FileRejected):
        _finish("invalid", error.reason, facts, 1)
    _finish("invalid", FileFault.MALFORMED_FILE, facts, 1)


def judged(path: Path, judge: Callable[[bytes], dict[str, Any]]) -> NoReturn:
    """Print what a judge says about a file; exit with 0 where its result is `valid`."""
    try:
        document = judge(read_bytes(path))
    except EdgeError as error:
        refused(error)
    typer.echo(msgspec.json.encode(document).decode())
    raise typer.Exit(0 if document["result"] == "valid" else 1)


def _finish(result: str, reason: StrEnum | None, facts: dict[str, Any], code: int) -> NoReturn:
    document = {"result": result, "reason": reason, **facts}
    typer.echo(msgspec.json.encode(document).decode())
    raise typer.Exit(code)
