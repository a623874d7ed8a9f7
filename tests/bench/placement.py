"""Which core a process tree runs on, and what it has used: CPU time and memory."""

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass

import psutil

UNDER_TEST = 0
"""The core of the system under test."""
AROUND = 1
"""The core of load generator, upstream and provider."""


def can_pin() -> bool:
    """Tell whether this machine lets us choose cores, and has two of them."""
    return hasattr(os, "sched_setaffinity") and {UNDER_TEST, AROUND} <= os.sched_getaffinity(0)


def pin_self(core: int) -> None:
    """Keep this process on one core; -1, or a system without the call, leaves it free."""
    if core >= 0 and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core})


def pin(pids: Iterable[int], core: int) -> None:
    """Keep process trees on one core: every thread of theirs, and what these start later."""
    for pid in pids:
        for process in tree(pid):
            with suppress(psutil.NoSuchProcess):
                for thread in process.threads():
                    with suppress(ProcessLookupError):
                        os.sched_setaffinity(thread.id, {core})


def tree(pid: int) -> list[psutil.Process]:
    """Return a process and all that it started."""
    root = psutil.Process(pid)
    return [root, *root.children(recursive=True)]


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process tree, those included that have ended and were reaped."""
    total = 0.0
    for process in tree(pid):
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system
            # Linux and macOS have these; what is still alive is not in them.
            total += getattr(times, "children_user", 0.0) + getattr(times, "children_system", 0.0)
    return total


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory of one process tree, in MB of 10⁶ bytes."""

    resident: float
    own: float
    """What would be free if it ended: pages that it shares with nobody."""


def memory(pid: int) -> Memory:
    """Return the memory of a process tree."""
    resident = own = 0
    for process in tree(pid):
        with suppress(psutil.NoSuchProcess):
            found = process.memory_full_info()
            resident += found.rss
            own += found.uss
    return Memory(resident / 1e6, own / 1e6)


def spent(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """Return what each process used between two samples."""
    return {name: after[name] - seconds for name, seconds in before.items() if name in after}
