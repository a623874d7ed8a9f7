"""Connections that follow their certificate: new calls take new files, running ones stay."""

import asyncio
from collections.abc import Callable
from typing import Any

import grpc

from darkbloom_mesh.tls import Material, TlsFiles


class Line:
    """One connection and the calls on it; it closes once it is replaced and the last call ended."""

    def __init__(self, channel: grpc.aio.Channel, idle: Callable[["Line"], None]) -> None:
        self.channel = channel
        self._idle = idle
        self._calls = 0
        self._replaced = False

    def carry(self, call: Any) -> Any:
        """Count a call in, and out when it ends."""
        self._calls += 1
        call.add_done_callback(self._done)
        return call

    def replace(self) -> None:
        """Take no more calls."""
        self._replaced = True
        self._settle()

    def _done(self, _call: object) -> None:
        self._calls -= 1
        self._settle()

    def _settle(self) -> None:
        if self._replaced and self._calls == 0:
            self._idle(self)


class Renewing:
    """The line to a peer, as its certificate is now; `close` awaits all that were replaced."""

    def __init__(self, tls: TlsFiles, open_line: Callable[[Material], grpc.aio.Channel]) -> None:
        self._tls = tls
        self._open = open_line
        self._material = tls.current()
        self._line = Line(open_line(self._material), self._close_later)
        self._replaced: set[Line] = set()
        self._closing: set[asyncio.Task[None]] = set()

    def line(self) -> Line:
        """Return the line for a call that begins now."""
        newest = self._tls.current()
        if newest is not self._material:
            self._material = newest
            before, self._line = self._line, Line(self._open(newest), self._close_later)
            self._replaced.add(before)
            before.replace()
        return self._line

    async def close(self, grace: float | None) -> None:
        """Close every line; calls in flight get `grace` seconds."""
        for line in (self._line, *self._replaced):
            await line.channel.close(grace)
        if self._closing:
            await asyncio.wait(self._closing)

    def _close_later(self, line: Line) -> None:
        self._replaced.discard(line)
        task = asyncio.get_running_loop().create_task(line.channel.close(None))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
