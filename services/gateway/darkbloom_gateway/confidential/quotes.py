"""Platform quotes by the kernel's one interface for them, configfs-tsm (Linux 6.7 and newer).

The same five files serve AMD SEV-SNP, Intel TDX and Arm CCA guests:

    mkdir /sys/kernel/config/tsm/report/NAME
    NAME/inblob      64 bytes of ours go in
    NAME/outblob     the report comes out; reading it makes it
    NAME/auxblob     certificates, where the platform has some
    NAME/provider    `sev_guest`, `tdx_guest`, `arm_cca_guest`: how to read the report
    NAME/generation  counts writes; another number than expected: somebody else wrote in between

It was never run on such hardware: tests put a directory of the same shape in the place of the
kernel's.
"""

import contextlib
import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Protocol, final

from darkbloom_edge.gateway_evidence import MAX_QUOTE_BYTES, REPORT_DATA_BYTES, carries

REPORTS = Path("/sys/kernel/config/tsm/report")
"""Where the kernel has it."""
_PREFIX = "darkbloom-"
_NAME_BYTES = 8
_MAX_WORD = 64
_ABSENT = frozenset({errno.ENOENT, errno.ENXIO, errno.ENODEV, errno.ENOTDIR})
_DENIED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


class WhyNone(Enum):
    """Why there is no quote."""

    NO_DEVICE = "no_device"
    """This machine offers none."""
    NOT_PERMITTED = "not_permitted"
    """It may offer one, but not to this process."""
    FAILED = "device_failed"
    """It was asked and gave nothing that can be used."""
    LATE = "not_in_time"
    """It was asked and did not answer in time."""


class NoQuoteError(Exception):
    """There is no quote; `why` says the reason."""

    def __init__(self, why: WhyNone) -> None:
        self.why = why
        super().__init__(why.value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote:
    """What the platform said, unread."""

    kind: str
    """The kernel's name for the format."""
    report: bytes
    auxiliary: bytes = b""
    """Certificates that came beside it."""


class Quoter(Protocol):
    """Whatever can ask this machine for a quote."""

    def quote(self, data: bytes) -> Quote:
        """Return a quote over 64 bytes; blocks, for a minute in a bad case.

        Raises:
            NoQuoteError: there is none.
        """
        ...


@final
class TsmReports:
    """Asks the kernel.

    Args:
        folder: `REPORTS`, where an entry is made for each quote, or one entry that somebody with
            the right to do so has made and given to this process.
        entropy: for the names of entries.
    """

    def __init__(self, folder: Path, entropy: Callable[[int], bytes]) -> None:
        self._folder = folder
        self._entropy = entropy

    def quote(self, data: bytes) -> Quote:
        """Return a quote over 64 bytes; errors as in `Quoter`."""
        if len(data) != REPORT_DATA_BYTES:
            raise ValueError(f"a quote is over {REPORT_DATA_BYTES} bytes")
        try:
            with self._entry() as entry:
                return _ask(entry, data)
        except OSError as error:
            raise NoQuoteError(_why(error)) from None

    @contextmanager
    def _entry(self) -> Iterator[Path]:
        if (self._folder / "inblob").exists():
            yield self._folder
            return
        entry = self._folder / f"{_PREFIX}{self._entropy(_NAME_BYTES).hex()}"
        entry.mkdir()
        try:
            yield entry
        finally:
            with contextlib.suppress(OSError):
                entry.rmdir()


def _ask(entry: Path, data: bytes) -> Quote:
    before = _generation(entry)
    # One write: the kernel takes the blob when the file is closed.
    with (entry / "inblob").open("wb", buffering=0) as file:
        file.write(data)
    report = _read(entry / "outblob")
    try:
        auxiliary = _read(entry / "auxblob")
    except OSError:
        auxiliary = b""
    kind = _read(entry / "provider").decode("ascii", "replace").strip()
    if _generation(entry) != before + 1 or not kind.isprintable() or not 0 < len(kind) <= _MAX_WORD:
        raise NoQuoteError(WhyNone.FAILED)
    # Whatever the kernel says: a report over something else is none.
    if not carries(kind, report, data):
        raise NoQuoteError(WhyNone.FAILED)
    return Quote(kind=kind, report=report, auxiliary=auxiliary)


def _generation(entry: Path) -> int:
    try:
        return int(_read(entry / "generation"))
    except ValueError:
        raise NoQuoteError(WhyNone.FAILED) from None


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        data = file.read(MAX_QUOTE_BYTES + 1)
    if len(data) > MAX_QUOTE_BYTES:
        raise NoQuoteError(WhyNone.FAILED)
    return data


def _why(error: OSError) -> WhyNone:
    if error.errno in _ABSENT:
        return WhyNone.NO_DEVICE
    return WhyNone.NOT_PERMITTED if error.errno in _DENIED else WhyNone.FAILED
