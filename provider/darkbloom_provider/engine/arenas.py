"""Keeps the C library from hoarding what ended threads have freed.

glibc gives each thread an arena of its own and keeps it when the thread ends. An engine has a new
thread for each load, so memory that models have freed would stay with arenas of threads long gone.
"""

import ctypes
import sys
from typing import Final

ARENAS: Final = 2
_M_ARENA_MAX: Final = -8


def limit_arenas() -> bool:
    """Let all threads share a few arenas; False where the C library knows none."""
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(_M_ARENA_MAX, ARENAS))
