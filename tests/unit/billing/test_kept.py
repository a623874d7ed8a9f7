"""Files that are written once."""

from pathlib import Path

import pytest
from darkbloom_billing.kept import write_once

TEXT = '{"hash": "ab"}\n'


@pytest.mark.parametrize("found", ["", '{"ha', '{"hash": "ab"}'])
def test_the_beginning_of_the_text_is_a_torn_file_and_is_replaced(
    found: str, tmp_path: Path
) -> None:
    path = tmp_path / "file.json"
    path.write_text(found)

    write_once(path, TEXT)

    assert path.read_text() == TEXT
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("found", ['{"hash": "00"}\n', '{"hash": "00"}', TEXT + "x"])
def test_another_text_stays_with_or_without_its_end(found: str, tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    path.write_text(found)

    with pytest.raises(ValueError, match="says otherwise"):
        write_once(path, TEXT)

    assert path.read_text() == found
