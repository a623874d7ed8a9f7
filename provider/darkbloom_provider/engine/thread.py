"""A worker's thread and the way back to the event loop that waits for it."""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import structlog

from darkbloom_provider.engine.answers import answer
from darkbloom_provider.engine.errors import draining
from darkbloom_provider.engine.worker import Worker

_T = TypeVar("_T")
_log = structlog.get_logger()


class WorkerThread:
    """Runs a worker; the event loop's side of it.

    A daemon thread: one that hangs in a model must not keep the process from ending.

    Args:
        worker: Not running yet.
        name: Of the thread.
    """

    def __init__(self, worker: Worker, name: str) -> None:
        self.worker = worker
        self.ended = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._asked: set[asyncio.Future[object]] = set()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    async def call(self, call: Callable[[], _T], timeout_s: float) -> _T:
        """Run something on the thread.

        Raises:
            EngineError: It failed, or the thread ended before.
            TimeoutError: It takes too long; it goes on nevertheless.
        """
        future: asyncio.Future[_T] = self._loop.create_future()
        if self.ended.is_set():
            raise draining()
        asked: asyncio.Future[object] = future  # type: ignore[assignment]
        self._asked.add(asked)
        self.worker.post(partial(answer, self._loop, future, call))
        try:
            async with asyncio.timeout(timeout_s):
                return await future
        finally:
            self._asked.discard(asked)

    async def stop(self, timeout_s: float) -> bool:
        """End the thread; False when it does not in time, and is abandoned."""
        self.worker.stop()
        try:
            async with asyncio.timeout(timeout_s):
                await self.ended.wait()
        except TimeoutError:
            self.worker.abandon()
            return False
        return True

    def _run(self) -> None:
        try:
            self.worker.run()
        except BaseException as error:  # noqa: BLE001 - nobody above could do anything about it
            # The text of an unknown error may quote content; its type cannot.
            _log.error("engine_thread_died", error_type=type(error).__name__)
        # Where the loop is closed nobody waits any more.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._end)

    def _end(self) -> None:
        self.ended.set()
        for future in self._asked:
            if not future.done():
                future.set_exception(draining())
