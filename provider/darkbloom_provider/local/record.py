"""Where the local endpoint listens, for the owner's programs to find it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import psutil

from darkbloom_provider.service.files import write_private

_MAX_BYTES = 16_384


class LocalRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The discovery record; it holds the key, so its file is 0600 and its repr redacted."""

    base_url: str
    """With `/v1`, as SDKs want it."""
    api_key: str
    """Empty where no key is asked for."""
    host: str
    port: int
    pid: int
    version: str
    updated_at: str

    def __repr__(self) -> str:
        return f"LocalRecord(base_url={self.base_url!r}, <redacted>)"


def write_record(path: Path, record: LocalRecord) -> None:
    """Publish where the endpoint listens; only once it does."""
    write_private(path, msgspec.json.format(msgspec.json.encode(record), indent=2))


def read_record(path: Path, alive: Callable[[int], bool] = psutil.pid_exists) -> LocalRecord | None:
    """Return the record of an endpoint whose process lives, else None."""
    try:
        with path.open("rb") as file:
            record = msgspec.json.decode(file.read(_MAX_BYTES), type=LocalRecord)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return record if alive(record.pid) else None


def remove_record(path: Path, pid: int) -> None:
    """Take the record back, unless another process has written its own meanwhile."""
    found = read_record(path, alive=lambda _: True)
    if found is None or found.pid == pid:
        path.unlink(missing_ok=True)
