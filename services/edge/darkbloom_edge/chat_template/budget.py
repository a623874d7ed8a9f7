"""What one rendering may make in all: many texts, each small enough, fill a memory together."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final

MAX_MADE_BYTES: Final = 1 << 30
"""Texts and containers of one rendering, those included that it has let go of."""


class TemplateLimitError(Exception):
    """A template asked for more than it may have; holds no content."""


_made: ContextVar[list[int] | None] = ContextVar("made", default=None)


@contextmanager
def budgeted() -> Iterator[None]:
    """Count what is made in here."""
    token = _made.set([0])
    try:
        yield
    finally:
        _made.reset(token)


def made(value: Any) -> Any:
    """Give a text or a container back, once it is counted; anything else is small.

    Raises:
        TemplateLimitError: The rendering has made too much.
    """
    total = _made.get()
    if total is not None and isinstance(value, str | bytes | list | tuple | dict):
        total[0] += sys.getsizeof(value)
        if total[0] > MAX_MADE_BYTES:
            raise TemplateLimitError("template writes too much")
    return value


def all_made(value: Any) -> Any:
    """Give back what a method of a text has made, once it and its parts are counted."""
    if isinstance(value, list | tuple):
        for part in value:
            made(part)
    return made(value)
