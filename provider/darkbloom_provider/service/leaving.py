"""Making the running agent leave: asked to drain, waited for, and forced only where told to."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from darkbloom_provider import lock
from darkbloom_provider.home import Home
from darkbloom_provider.service.control import NoAnswerError, Question, ask
from darkbloom_provider.service.errors import StillDrainingError

DEFAULT_TIMEOUT_S: Final = 600.0
MAX_TIMEOUT_S: Final = 3600.0
FORCED_S: Final = 20.0
"""What a forced agent has to settle what it delivered, before it is killed."""
POLL_S: Final = 0.1


@dataclass(frozen=True, kw_only=True, slots=True)
class Waiting:
    """How a command lets time pass."""

    monotonic: Callable[[], float] = time.monotonic
    pause: Callable[[float], None] = time.sleep


def leave(
    home: Home, *, timeout_s: float, force: bool = False, waiting: Waiting | None = None
) -> int | None:
    """Have the agent of this home finish its work and end; returns its process id.

    None where none runs. The kernel's lock says when it has ended, nothing else.

    Raises:
        StillDrainingError: it has not ended in time; it goes on draining.
    """
    waiting = waiting or Waiting()
    pid = lock.holder(home.lock)
    if pid is None:
        return None
    _ask_to_leave(home, pid, force=force)
    if _gone(home, pid, FORCED_S if force else timeout_s, waiting):
        return pid
    if not force:
        raise StillDrainingError(
            f"the agent (process {pid}) is still finishing its work after {timeout_s:.0f} s",
            "it goes on and takes nothing new; repeat the command to wait, or use --force",
        )
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    if not _gone(home, pid, FORCED_S, waiting):
        raise StillDrainingError(f"the agent (process {pid}) cannot be ended")
    return pid


def hand_over(home: Home, timeout_s: float, *, force: bool = False) -> None:
    """Have a running agent drain and leave its place to us; does nothing where none runs.

    Only an agent that answers on its socket is asked: whoever else holds the lock is left alone,
    and taking it then says who that is.

    Raises:
        StillDrainingError: it has not ended in time.
    """
    try:
        ask(home.control, Question(op="facts"))
    except NoAnswerError:
        return
    leave(home, timeout_s=timeout_s, force=force)


def _ask_to_leave(home: Home, pid: int, *, force: bool) -> None:
    try:
        ask(home.control, Question(op="drain", force=force))
    except NoAnswerError:
        # Without its socket, or hung: a signal begins a drain as well.
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)


def _gone(home: Home, pid: int, patience_s: float, waiting: Waiting) -> bool:
    until = waiting.monotonic() + patience_s
    while lock.holder(home.lock) == pid:
        if waiting.monotonic() >= until:
            return False
        waiting.pause(POLL_S)
    return True
