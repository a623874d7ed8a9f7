"""Waiting for a child to serve: it says so in its ready file, with its own pid."""

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from darkbloom_local.errors import NotReadyError
from darkbloom_local.process import Child


def read(path: Path, pid: int | None = None) -> Mapping[str, Any] | None:
    """Return what a ready file says; None while there is none of the process `pid`."""
    try:
        facts = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return None
    if not isinstance(facts, dict) or (pid is not None and facts.get("pid") != pid):
        return None
    return facts


def forget(path: Path) -> None:
    """Remove what an earlier process said; its pid may be used again."""
    path.unlink(missing_ok=True)


async def wait(child: Child, path: Path, timeout_s: float) -> Mapping[str, Any]:
    """Return the ready file of a child once it is there.

    Raises:
        ChildDiedError: The child ended first.
        NotReadyError: The time is over.
    """

    def served() -> bool:
        return read(path, child.pid) is not None

    if not await asyncio.to_thread(child.wait_until, served, timeout_s):
        end = "".join(f"  | {line}\n" for line in child.log_tail())
        raise NotReadyError(
            f"{child.name} is not ready after {timeout_s:.0f} s; end of {child.command.log}:\n{end}"
        )
    return read(path, child.pid) or {}
