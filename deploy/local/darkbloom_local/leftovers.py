"""Processes that an earlier run could not end because it was killed itself."""

import json
import signal
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import psutil

from darkbloom_local.process import Child

_GRACE_S = 10.0


def record(path: Path, children: Iterable[Child]) -> None:
    """Note who runs, so that the next start can end them should we be killed."""
    rows = []
    for child in children:
        with suppress(psutil.Error):
            rows.append([child.pid, psutil.Process(child.pid).create_time()])
    scratch = path.with_suffix(".tmp")
    scratch.write_text(json.dumps(rows))
    scratch.rename(path)


def end(path: Path) -> int:
    """End whom the last run noted and left behind; return how many there were.

    A process id is used again in time, so the start time must match too.
    """
    try:
        rows = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return 0

    found: list[psutil.Process] = []
    for pid, created in rows:
        with suppress(psutil.Error):
            process = psutil.Process(pid)
            if process.create_time() == created and process.status() != psutil.STATUS_ZOMBIE:
                process.send_signal(signal.SIGTERM)
                found.append(process)

    _, stubborn = psutil.wait_procs(found, timeout=_GRACE_S)
    for process in stubborn:
        with suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(stubborn, timeout=_GRACE_S)
    path.unlink(missing_ok=True)
    return len(found)
