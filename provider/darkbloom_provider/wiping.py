"""Overwriting plaintext that nobody needs any more, as far as Python lets us.

A `bytearray` is ours and can be overwritten. `str` and `bytes` cannot: they are freed with their
last reference, and their memory is used again. What that leaves is written in `docs/mac.md`.
"""

from __future__ import annotations


def wipe(buffer: bytearray) -> None:
    """Overwrite with zeros, in place; a view that is still held sees the zeros."""
    buffer[:] = bytes(len(buffer))
