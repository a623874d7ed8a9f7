"""Quotes by the kernel's files: a directory of the same shape stands in the kernel's place."""

import os
import threading
from collections.abc import Mapping
from pathlib import Path

import pytest
from darkbloom_gateway.confidential.quotes import NoQuoteError, TsmReports, WhyNone

DATA = bytes(range(64))


def entropy(count: int) -> bytes:
    return b"\x07" * count


class FakeKernel:
    """One entry whose files are pipes: each is answered when it is opened, as the kernel does.

    Args:
        entry: of the reports.
        kind: what `provider` says.
        over: what the report is over; None: what was written.
        writes: how many writes `generation` counts.
        auxiliary: certificates; None: the file is absent.
    """

    def __init__(
        self,
        entry: Path,
        *,
        kind: str = "sev_guest",
        over: bytes | None = None,
        writes: int = 1,
        auxiliary: bytes | None = b"certificates",
    ) -> None:
        entry.mkdir()
        self.written = b""
        self._entry, self._kind, self._over = entry, kind, over
        self._writes, self._auxiliary = writes, auxiliary
        names = {"generation", "inblob", "outblob", "provider"}
        for name in names | ({"auxblob"} if auxiliary is not None else set()):
            os.mkfifo(entry / name)
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        self._say("generation", b"41\n")
        self.written = (self._entry / "inblob").read_bytes()
        data = self.written if self._over is None else self._over
        self._say("outblob", b"\x02" * 0x50 + data + b"\x03" * 512)
        if self._auxiliary is not None:
            self._say("auxblob", self._auxiliary)
        self._say("provider", self._kind.encode() + b"\n")
        self._say("generation", b"%d\n" % (41 + self._writes))

    def _say(self, name: str, content: bytes) -> None:
        with (self._entry / name).open("wb") as file:
            file.write(content)


def test_a_report_over_our_bytes_is_a_quote(tmp_path: Path) -> None:
    kernel = FakeKernel(tmp_path / "given")

    quote = TsmReports(tmp_path / "given", entropy).quote(DATA)

    assert kernel.written == DATA
    assert quote.kind == "sev_guest"
    assert quote.report[0x50 : 0x50 + 64] == DATA
    assert quote.auxiliary == b"certificates"


def test_a_platform_without_certificates_is_fine(tmp_path: Path) -> None:
    FakeKernel(tmp_path / "given", kind="arm_cca_guest", auxiliary=None)

    assert TsmReports(tmp_path / "given", entropy).quote(DATA).auxiliary == b""


@pytest.mark.parametrize(
    "odd",
    [
        {"over": bytes(64)},
        {"kind": "tdx_guest"},
        {"writes": 2},
        {"kind": ""},
        {"auxiliary": b"x" * 70_000},
    ],
    ids=["over_others", "other_place", "somebody_else_wrote", "no_kind", "endless"],
)
def test_a_report_that_does_not_fit_is_none(tmp_path: Path, odd: Mapping[str, object]) -> None:
    FakeKernel(tmp_path / "given", **odd)  # type: ignore[arg-type]  # the odd ones are of many types

    with pytest.raises(NoQuoteError) as caught:
        TsmReports(tmp_path / "given", entropy).quote(DATA)

    assert caught.value.why is WhyNone.FAILED


def test_a_machine_without_the_kernels_folder_has_none(tmp_path: Path) -> None:
    with pytest.raises(NoQuoteError) as caught:
        TsmReports(tmp_path / "absent", entropy).quote(DATA)

    assert caught.value.why is WhyNone.NO_DEVICE


def test_an_entry_that_was_made_is_taken_away_again(tmp_path: Path) -> None:
    # A plain folder makes no files in a new entry, as a kernel without a platform would not.
    with pytest.raises(NoQuoteError) as caught:
        TsmReports(tmp_path, entropy).quote(DATA)

    assert caught.value.why is WhyNone.NO_DEVICE
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_is_taken_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / ("darkbloom-" + "07" * 8)).mkdir()

    with pytest.raises(NoQuoteError) as caught:
        TsmReports(tmp_path, entropy).quote(DATA)

    assert caught.value.why is WhyNone.FAILED


def test_other_than_64_bytes_are_not_asked_for(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="64 bytes"):
        TsmReports(tmp_path, entropy).quote(b"short")
