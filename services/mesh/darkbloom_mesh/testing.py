"""What tests of any room need: a clock that jumps, free ports, a served servicer, a leak check."""

import asyncio
import heapq
import itertools
import socket
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import grpc

from darkbloom_mesh.interceptors import CallGuard
from darkbloom_mesh.options import server_options
from darkbloom_mesh.tls import TlsFiles

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
_SETTLE_TURNS = 20
_LEAK_PATIENCE_S = 1.0


class FakeClock:
    """A clock that stands still until a test moves it, and then wakes the sleepers it passes."""

    def __init__(self, start: datetime = EPOCH) -> None:
        self._start = start
        self._elapsed_s = 0.0
        self._order = itertools.count()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []

    def now(self) -> datetime:
        """Return the start plus what the test let pass."""
        return self._start + timedelta(seconds=self._elapsed_s)

    def monotonic(self) -> float:
        """Return what the test let pass, in seconds."""
        return self._elapsed_s

    async def sleep(self, seconds: float) -> None:
        """Wait until the test has moved the clock that far."""
        waiter = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._elapsed_s + seconds, next(self._order), waiter))
        if seconds <= 0:
            self.jump(0)
        await waiter

    @property
    def sleeping(self) -> int:
        """How many tasks wait on this clock."""
        return sum(not waiter.done() for _, _, waiter in self._sleepers)

    def jump(self, seconds: float) -> None:
        """Move the clock and wake whoever is due; they run when the caller next waits."""
        self._elapsed_s += seconds
        while self._sleepers and self._sleepers[0][0] <= self._elapsed_s:
            waiter = heapq.heappop(self._sleepers)[2]
            if not waiter.done():
                waiter.set_result(None)

    async def advance(self, seconds: float) -> None:
        """Move the clock to each due sleeper in turn, letting woken tasks run in between."""
        target = self._elapsed_s + seconds
        await settle()
        while self._sleepers and self._sleepers[0][0] <= target:
            self.jump(max(0.0, self._sleepers[0][0] - self._elapsed_s))
            await settle()
        self.jump(max(0.0, target - self._elapsed_s))
        await settle()


async def settle() -> None:
    """Let every task that can run do so; does not wait for sockets."""
    for _ in range(_SETTLE_TURNS):
        await asyncio.sleep(0)  # noqa: TID251 - a turn of the loop, not a wait


def free_port() -> int:
    """Return a loopback port that was free a moment ago; prefer port 0 where possible."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@asynccontextmanager
async def serve_ephemeral(
    *registrars: Callable[[grpc.aio.Server], object],
    mesh_token: str | None = None,
    interceptors: Iterable[grpc.aio.ServerInterceptor] | None = None,
    tls: TlsFiles | None = None,
) -> AsyncIterator[str]:
    """Serve on a loopback port with the mesh's own options; yields the target to dial.

    Args:
        registrars: For example `partial(add_XServiceServicer_to_server, servicer)`.
        mesh_token: Where given, callers need it.
        interceptors: Instead of the mesh's own, for example none.
        tls: Certificate that is shown, and those that are asked for.
    """
    if interceptors is None:
        interceptors = [CallGuard(mesh_token=mesh_token)]
    server = grpc.aio.server(interceptors=list(interceptors), options=server_options())
    for register in registrars:
        register(server)
    if tls is None:
        port = server.add_insecure_port("127.0.0.1:0")
    else:
        port = server.add_secure_port("127.0.0.1:0", tls.for_server())
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


@asynccontextmanager
async def no_leaked_tasks() -> AsyncIterator[None]:
    """Fail where the body leaves a task behind that was not there before."""
    before = asyncio.all_tasks()
    yield
    await settle()
    left = asyncio.all_tasks() - before
    if left:
        # The library's own tasks of a cut call end a moment after the call.
        _, left = await asyncio.wait(left, timeout=_LEAK_PATIENCE_S)
    if left:
        raise AssertionError(f"leaked tasks: {sorted(task.get_name() for task in left)}")
