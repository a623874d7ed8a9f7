"""The agent's end of the control socket; bounded in every direction."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import final

import msgspec
import structlog

from darkbloom_provider.service.control import ANSWER_S, MAX_BYTES, Facts, Question, too_long

MAX_CONNECTIONS = 8
_log = structlog.get_logger()


@final
class ControlServer:
    """Answers questions until cancelled.

    Args:
        path: of the socket; a file of a dead agent is replaced, for the caller holds the lock.
        facts: what is true now.
        drain: begins to drain; whether at once.
    """

    def __init__(
        self, path: Path, *, facts: Callable[[], Facts], drain: Callable[[bool], None]
    ) -> None:
        self._path = path
        self._facts = facts
        self._drain = drain
        self._open = 0

    async def run(self) -> None:
        """Listen and answer; without a socket, where none can be made, the agent works as well."""
        if too_long(self._path):
            _log.warning("control_unavailable", reason="path_too_long")
            return
        self._path.unlink(missing_ok=True)
        try:
            server = await self._listen()
        except OSError as error:
            _log.warning("control_unavailable", reason=type(error).__name__)
            return
        try:
            await server.serve_forever()
        finally:
            server.close()
            self._path.unlink(missing_ok=True)

    async def _listen(self) -> asyncio.Server:
        # Closed to others from its first moment: the folder is, and so is the socket.
        before = os.umask(0o177)
        try:
            return await asyncio.start_unix_server(self._serve, self._path, limit=MAX_BYTES)
        finally:
            os.umask(before)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._open >= MAX_CONNECTIONS:
            writer.close()
            return
        self._open += 1
        try:
            async with asyncio.timeout(ANSWER_S):
                line = await reader.readline()
                writer.write(self._answer(line) + b"\n")
                await writer.drain()
        except (OSError, ValueError, TimeoutError, msgspec.MsgspecError):
            # Whoever asks nonsense, too much or too slowly gets no answer, and costs nothing more.
            pass
        finally:
            self._open -= 1
            writer.close()

    def _answer(self, line: bytes) -> bytes:
        question = msgspec.json.decode(line, type=Question)
        if question.op == "drain":
            _log.info("drain_asked", force=question.force)
            self._drain(question.force)
        return msgspec.json.encode(self._facts())
