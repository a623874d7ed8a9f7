"""Bring the result of a call on the engine thread back to the event loop that waits for it."""

import asyncio
import contextlib
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from darkbloom_provider.engine.errors import EngineError, load_failed

_T = TypeVar("_T")


def answer(
    loop: asyncio.AbstractEventLoop, future: asyncio.Future[_T], call: Callable[[], _T]
) -> None:
    """Run a call on the engine thread and bring its result to the loop that waits."""
    try:
        result = call()
    except EngineError as error:
        _settle(loop, partial(_fail, future, error))
    except Exception as error:  # noqa: BLE001 - files from outside may break a loader in any way
        _settle(loop, partial(_fail, future, load_failed(f"load broke, {type(error).__name__}")))
    else:
        _settle(loop, partial(_succeed, future, result))


def _settle(loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(callback)


def _succeed(future: asyncio.Future[_T], result: _T) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: asyncio.Future[_T], error: EngineError) -> None:
    if not future.done():
        future.set_exception(error)
