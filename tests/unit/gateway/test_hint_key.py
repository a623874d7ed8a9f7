"""The file with the secret of prefix hints."""

from pathlib import Path

import pytest
from darkbloom_gateway.config import GatewayConfig
from darkbloom_mesh.config import Secret

STORE = Secret("redis://127.0.0.1:1/0")
RAW = b"\n" + bytes(range(1, 31)) + b" "


@pytest.mark.parametrize(
    ("written", "read"),
    [(RAW, RAW), (b"6b" * 32 + b"\n", b"6b" * 32), (b"k" * 40, b"k" * 40)],
    ids=["bytes", "line", "text"],
)
def test_a_key_of_bytes_is_taken_whole_and_a_line_of_text_without_its_end(
    tmp_path: Path, written: bytes, read: bytes
) -> None:
    file = tmp_path / "hint-key"
    file.write_bytes(written)
    assert GatewayConfig(redis_url=STORE, hint_key_file=file).hint_secret() == read


def test_a_short_key_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "hint-key"
    file.write_bytes(b"k" * 31 + b"\n\n")
    with pytest.raises(ValueError, match="at least 32 bytes"):
        GatewayConfig(redis_url=STORE, hint_key_file=file).hint_secret()
