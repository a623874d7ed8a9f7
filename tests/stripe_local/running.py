"""The local Stripe inside a test, and the hands that play customer, bank and network."""

import asyncio
import base64
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import uvicorn
from darkbloom_mesh.clock import Clock, SystemClock

from tests.stripe_local.app import make_app
from tests.stripe_local.world import World

API_KEY = "sk_test_local"


@dataclass(frozen=True)
class Webhook:
    """One signed delivery, as it arrives."""

    url: str
    body: bytes
    signature: str


class Control:
    """`await stripe.do("pay", session=…)`: the control API over HTTP."""

    def __init__(self, url: str, http: httpx.AsyncClient) -> None:
        self.url = url
        self._http = http

    async def do(self, name: str, **given: Any) -> Any:
        """Run a command and return its answer."""
        response = await self._http.post(f"{self.url}/control/{name}", json=given)
        assert response.is_success, response.text
        return response.json()

    async def take(self) -> list[Webhook]:
        """Return what waits for delivery."""
        return [
            Webhook(each["url"], base64.b64decode(each["body"]), each["signature"])
            for each in (await self.do("take"))["deliveries"]
        ]

    async def objects(self, kind: str, account: str = "") -> list[Any]:
        """Return objects of a kind, newest first."""
        found: list[Any] = (await self.do("state", kind=kind, account=account))["objects"]
        return found

    async def calls(self, prefix: str = "") -> list[str]:
        """Return the calls so far."""
        made: list[str] = (await self.do("state"))["calls"]
        return [call for call in made if call.startswith(prefix)]


class _Server(uvicorn.Server):
    """uvicorn without signals of its own, that says when it has stopped."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._stopped = asyncio.Event()

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until `should_exit`."""
        try:
            await super().serve(sockets)
        finally:
            self._stopped.set()

    async def wait_stopped(self) -> None:
        """Return once every connection is closed."""
        await self._stopped.wait()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to pytest."""
        yield


@asynccontextmanager
async def local_stripe(
    clock: Clock | None = None, *, automatic: bool = False, world: World | None = None
) -> AsyncIterator[Control]:
    """Run a local Stripe on a loopback port; events wait unless `automatic`."""
    state = world or World(clock or SystemClock())
    state.automatic = automatic
    server = _Server(
        uvicorn.Config(
            make_app(state),
            log_config=None,
            access_log=False,
            lifespan="on",
            ws="none",
            timeout_graceful_shutdown=1,
        )
    )
    # Bound before the server runs, so that a caller may come at once.
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        async with asyncio.TaskGroup() as tasks, httpx.AsyncClient(timeout=20) as http:
            tasks.create_task(server.serve(sockets=[listener]))
            try:
                yield Control(url, http)
            finally:
                server.should_exit = True
                await server.wait_stopped()
