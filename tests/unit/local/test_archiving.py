"""The command that archives a segment: again after a kill, never over another segment."""

import subprocess
from pathlib import Path

from darkbloom_local.backups import archiving


def archived(store: Path, segment: Path) -> bool:
    command = archiving(store)["archive_command"]
    words = command.replace("%p", str(segment)).replace("%f", segment.name)
    return subprocess.run(["/bin/sh", "-c", words], check=False).returncode == 0


def test_the_same_segment_again_is_archived_and_another_is_refused(tmp_path: Path) -> None:
    (tmp_path / "wal").mkdir()
    segment = tmp_path / "000000010000000000000001"
    segment.write_bytes(b"first")
    (tmp_path / "wal" / f"{segment.name}.part").write_bytes(b"fi")
    assert archived(tmp_path, segment)
    assert archived(tmp_path, segment)
    segment.write_bytes(b"other")
    assert not archived(tmp_path, segment)
    assert [path.read_bytes() for path in (tmp_path / "wal").iterdir()] == [b"first"]
