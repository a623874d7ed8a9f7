"""Files of an export: what is written is proven, by us or by who can read it."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from darkbloom.billing.v1.operator_service_pb2 import ExportColumn, ExportHeader
from darkbloom_billing.admin.cli.exports import MismatchError, begun, prove, verify
from darkbloom_billing.state.errors import WrongIdentityError
from pyrage.x25519 import Identity

ME, STRANGER = Identity.generate(), Identity.generate()
HEADER = ExportHeader(
    columns=[
        ExportColumn(name="id", type="int"),
        ExportColumn(name="who", type="text"),
        ExportColumn(name="micros", type="int", sum="30"),
        ExportColumn(name="at", type="time"),
    ],
    rows=2,
)
ROWS = [[1, "acct_a", 10, "2026-05-01T12:00:00Z"], [2, "acct_b", 20, None]]


def exported(directory: Path, form: str, to: tuple[Identity, ...]) -> Path:
    file = begun(form, "t", directory, HEADER, [each.to_public() for each in to])
    file.write(ROWS)
    file.close()
    manifest = {"format": form, "files": [asdict(prove("t", file))]}
    (directory / "manifest.json").write_text(json.dumps(manifest))
    return file.path


@pytest.mark.parametrize("form", ["json", "parquet"])
@pytest.mark.parametrize("to", [(), (ME,), (STRANGER, ME)], ids=["plain", "me", "both"])
def test_an_export_is_proven_again(tmp_path: Path, form: str, to: tuple[Identity, ...]) -> None:
    path = exported(tmp_path, form, to)
    (found,) = verify(tmp_path, [ME])
    assert (found.rows, found.sums) == (2, {"micros": "30"})
    assert (b"acct_a" in path.read_bytes()) is (not to)


@pytest.mark.parametrize("form", ["json", "parquet"])
def test_an_encrypted_export_is_refused_to_others_and_when_it_was_changed(
    tmp_path: Path, form: str
) -> None:
    path = exported(tmp_path, form, (ME,))
    for who in ([STRANGER], []):
        with pytest.raises(WrongIdentityError):
            verify(tmp_path, who)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(MismatchError):
        verify(tmp_path, [ME])
    path.write_bytes(whole)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    manifest["files"][0]["sums"] = {"micros": "31"}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(MismatchError):
        verify(tmp_path, [ME])


def test_what_does_not_add_up_is_removed_though_it_is_encrypted(tmp_path: Path) -> None:
    file = begun("json", "t", tmp_path, HEADER, [ME.to_public()])
    file.write(ROWS[:1])
    file.close()
    with pytest.raises(MismatchError):
        prove("t", file)
    assert not file.path.exists()
