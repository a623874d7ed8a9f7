"""Starts and stops what is measured, each in a process of its own."""

import asyncio
import socket
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from darkbloom_mesh.clock import SystemClock

HOST = "127.0.0.1"
_START_S = 180.0
_STOP_S = 10.0
ROWS = 32
"""Rows that both sides may decode together: the default of `mlx_lm.server`."""


class BenchError(Exception):
    """A side did not start, or did not answer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Side:
    """One of the two, listening."""

    name: str
    port: int
    model: str


@asynccontextmanager
async def ours(folder: Path, log: Path) -> AsyncIterator[Side]:
    """Start our engine on a model."""
    port = _free_port()
    command = ("-m", "tests.bench.engine.serving", str(folder), str(port), str(ROWS))
    async with _process(command, log, port):
        yield Side(name="ours", port=port, model="bench/model")


@asynccontextmanager
async def theirs(folder: Path, log: Path) -> AsyncIterator[Side]:
    """Start `mlx_lm.server` on a model, with its own defaults."""
    port = _free_port()
    command = (
        *("-m", "mlx_lm.server", "--model", str(folder), "--host", HOST, "--port", str(port)),
        *("--log-level", "WARNING"),
    )
    async with _process(command, log, port):
        yield Side(name="mlx_lm.server", port=port, model=str(folder))


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        return int(listener.getsockname()[1])


@asynccontextmanager
async def _process(command: Sequence[str], log: Path, port: int) -> AsyncIterator[None]:
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable, *command, stdout=output, stderr=output
        )
        try:
            await _listening(process, port, log)
            yield
        finally:
            if process.returncode is None:
                process.terminate()
            try:
                await asyncio.wait_for(process.wait(), _STOP_S)
            except TimeoutError:
                process.kill()
                await process.wait()


async def _listening(process: asyncio.subprocess.Process, port: int, log: Path) -> None:
    until = time.monotonic() + _START_S
    while time.monotonic() < until:
        if process.returncode is not None:
            raise BenchError(f"a side ended at its start, see {log}")
        try:
            _, writer = await asyncio.open_connection(HOST, port)
        except OSError:
            await SystemClock().sleep(0.1)
        else:
            writer.close()
            return
    raise BenchError(f"a side does not listen, see {log}")
