"""`--check-config` of every room, as processes: they say what is wrong, and begin nothing."""

import subprocess
import sys
from pathlib import Path

ROOMS = ("gateway", "router", "billing", "attestation", "registry")
EX_CONFIG = 78


def checked(
    environment: dict[str, str], flag: str = "--check-config"
) -> dict[str, tuple[int, str]]:
    """Have all rooms check at once; returns code and all that they said."""
    running = {
        room: subprocess.Popen(
            [sys.executable, "-m", f"darkbloom_{room}", flag],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for room in ROOMS
    }
    found = {}
    for room, process in running.items():
        said, _ = process.communicate(timeout=120)
        found[room] = process.returncode, said
    return found


def test_every_room_checks_its_configuration_without_a_neighbour(tmp_path: Path) -> None:
    """Nothing listens at the addresses, so whoever opened a store would fail."""
    good = {
        "DARKBLOOM_ENV": "development",
        "DATABASE_URL": "postgresql://u:hunter2@127.0.0.1:1/d",
        "REDIS_URL": "redis://127.0.0.1:1/0",
        "DARKBLOOM_ATTESTATION_KEY_DIR": str(tmp_path / "keys"),
    }
    for room, (code, said) in checked(good).items():
        assert (room, code) == (room, 0), said
        assert said.startswith(f"{room}: configuration accepted")
        assert "hunter2" not in said
    assert not (tmp_path / "keys").exists()

    bad = good | {f"DARKBLOOM_{room.upper()}_NONSENSE": "hunter2" for room in ROOMS}
    for room, (code, said) in checked(bad).items():
        assert code == EX_CONFIG
        assert f"DARKBLOOM_{room.upper()}_NONSENSE: unknown variable" in said
        assert "hunter2" not in said


def test_half_the_flag_begins_nothing_either() -> None:
    for room, (code, said) in checked({}, "--check-conf").items():
        assert code == 2, (room, said)
        assert "--check-conf" in said
