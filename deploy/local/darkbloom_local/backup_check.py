"""Is the newest backup one? Restored beside the server that made it, and held against the seals.

    python -m darkbloom_local backup-check --store DIR --heads DIR

For a schedule: one line of JSON, and the code says whether somebody has to look.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from darkbloom_local import backups
from darkbloom_local.environment import inherited
from darkbloom_local.errors import LocalError
from darkbloom_local.stores import running

_CHECK_S = 3600.0


def check(
    store: Path, heads: Path, *, now: datetime, scratch: Path | None = None
) -> Mapping[str, Any]:
    """Restore the newest backup into a scratch PostgreSQL, prove its books, and delete it.

    A success is written down beside the heads, where billing finds it and shows when it was.

    Args:
        store: As for `backups.archiving`.
        heads: Billing's SEAL_DIRECTORY.
        now: When the restore begins.
        scratch: Where the restored cluster may lie for so long; default: the temporary directory.

    Returns:
        What `python -m darkbloom_billing backup-check` prints, and its exit code as `exit`.

    Raises:
        LocalError: It cannot be restored, or the check did not end.
    """
    with tempfile.TemporaryDirectory(prefix="backup-check-", dir=scratch) as directory:
        # Whoever runs the server is not always who reads here.
        Path(directory).chmod(0o755)
        restored = backups.restore(
            store, Path(directory) / "postgres", to=None, durable=False, archive=False
        )
        with running(restored):
            return _proven(restored.url, heads, now)


def _proven(url: str, heads: Path, now: datetime) -> Mapping[str, Any]:
    command = (sys.executable, "-m", "darkbloom_billing", "backup-check")
    where = ("--heads", str(heads), "--record", str(heads))
    try:
        done = subprocess.run(  # noqa: S603 - argv is ours, no shell
            [*command, *where, "--at", now.astimezone(UTC).isoformat()],
            env={**inherited(), "DARKBLOOM_ENV": "development", "DATABASE_URL": url},
            capture_output=True,
            check=False,
            text=True,
            timeout=_CHECK_S,
        )
    except subprocess.TimeoutExpired:
        raise LocalError(f"the check did not end within {_CHECK_S:.0f} s") from None
    try:
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        raise LocalError(f"the check ended with {done.returncode} and said nothing") from None
    return {**found, "exit": done.returncode}
