"""One gateway on a loopback port between fakes of all its neighbours and a real Valkey."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import httpx
from darkbloom_gateway.app import Worker, attach
from darkbloom_gateway.config import GatewayConfig
from darkbloom_gateway.listener import bind
from darkbloom_mesh.clock import SystemClock
from darkbloom_mesh.config import Secret
from darkbloom_mesh.serve import Service
from openai import AsyncOpenAI

from tests.component.gateway.conformance import Checked
from tests.component.gateway.neighbours import (
    API_KEY,
    BUILD,
    FakeAttestation,
    FakeBilling,
    FakeRegistry,
    serving,
)
from tests.fakes.router import FakeRouter, Script, Seen

BEARER = {"authorization": f"Bearer {API_KEY}"}


@dataclass
class Harness:
    """The gateway and everything around it."""

    url: str
    worker: Worker
    service: Service
    router: FakeRouter
    billing: FakeBilling
    attestation: FakeAttestation
    registry: FakeRegistry
    http: httpx.AsyncClient

    def sdk(self, key: str = API_KEY) -> AsyncOpenAI:
        """Return the stock client; it never tries again, so that errors are seen."""
        return AsyncOpenAI(api_key=key, base_url=f"{self.url}/v1", max_retries=0)

    async def chat(self, **changes: Any) -> httpx.Response:
        """Post one chat completion."""
        body = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}], **changes}
        return await self.http.post("/v1/chat/completions", json=body, headers=BEARER)

    def afresh(self) -> "Harness":
        """Let router and billing forget what they saw and were told to say."""
        self.router.seen = Seen()
        self.router.scripts = []
        self.router.default = Script()
        for record in (self.billing.holds, self.billing.releases, self.billing.receipts):
            record.clear()
        self.billing.refusal = None
        return self

    async def until(self, check: Any, seconds: float = 30.0) -> None:
        """Wait for a state of the gateway that nothing announces."""
        clock = SystemClock()
        async with asyncio.timeout(seconds):
            while not check():
                await clock.sleep(0.005)


@asynccontextmanager
async def gateway(
    valkey_url: str,
    *more: Callable[[grpc.aio.Server], object],
    registry: FakeRegistry | None = None,
    **changes: Any,
) -> AsyncIterator[Harness]:
    """Run a gateway until the block ends; `changes` go into its configuration.

    `more` registers services beside those of the fakes.
    """
    billing, attestation = FakeBilling(), FakeAttestation()
    registry = registry or FakeRegistry()
    billing.add_key(API_KEY)
    router = FakeRouter(attestation.signer, BUILD)
    async with (
        serving(billing, attestation, registry, *more) as others,
        router.serving() as to_router,
    ):
        config = GatewayConfig(
            **{
                "environment": "development",
                "listen": "127.0.0.1:0",
                "redis_url": Secret(valkey_url),
                "router_target": to_router,
                "billing_target": others,
                "attestation_target": others,
                "registry_target": others,
                "drain_grace_s": 5.0,
                **changes,
            }
        )
        public = bind(config)
        clock = SystemClock()
        async with Service(
            config, room="gateway", version="test", clock=clock, signals=False
        ) as service:
            worker = attach(service, config, public, number=0, clock=clock)
            host, port = public.getsockname()[:2]
            url = f"http://{host}:{port}"
            running = asyncio.get_running_loop().create_task(service.wait())
            async with Checked(base_url=url, timeout=20) as http:
                harness = Harness(
                    url, worker, service, router, billing, attestation, registry, http
                )
                await harness.until(lambda: worker.health_reason() is None)
                yield harness
            service.stop()
            assert await running == 0
