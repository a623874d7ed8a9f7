"""Our side: a whole mesh with the scripted engine, everything but the provider under test."""

import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from darkbloom.billing.v1 import account_service_pb2
from darkbloom.billing.v1.account_service_pb2_grpc import AccountServiceStub
from darkbloom_local import models, seeds
from darkbloom_local.mesh import Mesh

from tests.bench import placement
from tests.bench.scenarios import ENDPOINTS
from tests.bench.systems import System

_PROVIDER = "provider"
_STORES = ("postgres", "valkey")
_GRANT_MICROS = 100_000_000_000
_CALL_S = 10.0
# The limits stay in force and are counted; only their numbers are out of the way.
ENVIRONMENT = {
    "gateway": {
        "DARKBLOOM_GATEWAY_REQUEST_RATE": "1000000",
        "DARKBLOOM_GATEWAY_REQUEST_BURST": "1000000",
        "DARKBLOOM_GATEWAY_INPUT_TOKENS": "1000000000",
        "DARKBLOOM_GATEWAY_INPUT_BURST": "1000000000",
        "DARKBLOOM_GATEWAY_OUTPUT_TOKENS": "1000000000",
        "DARKBLOOM_GATEWAY_OUTPUT_BURST": "1000000000",
    },
}


@contextlib.asynccontextmanager
async def mesh(
    state: Path, progress: Callable[[str], None], *, providers: int
) -> AsyncIterator[System]:
    """Run a whole mesh for the length of the block, durable commits included.

    Args:
        state: Where its data goes.
        progress: Gets one line for each step.
        providers: How many; the router gives one provider at most 24 requests at a time.
    """
    async with Mesh(
        state, engine="scripted", environment=ENVIRONMENT, progress=progress
    ) as running:
        progress(f"providers: {providers} in all")
        others = [f"{_PROVIDER}-{number}" for number in range(2, providers + 1)]
        for name in others:
            await running.start_provider(name)
        await grant(running)
        pids = dict(running.pids)
        around = [pids.pop(name) for name in (_PROVIDER, *others)]
        if placement.can_pin():
            placement.pin(pids.values(), placement.UNDER_TEST)
            placement.pin(around, placement.AROUND)
        yield System(
            name="darkbloom",
            port=running.wiring.ports["gateway.http"],
            api_key=running.api_key,
            model=models.SCRIPTED,
            processes=pids,
            endpoints=[endpoint.name for endpoint in ENDPOINTS],
            stores=_STORES,
        )


async def grant(running: Mesh) -> None:
    """Give the consumer more money than any run spends."""
    await AccountServiceStub(running.channel("billing.grpc")).Grant(
        account_service_pb2.GrantRequest(
            request_id="grant_bench",
            account_id=seeds.CONSUMER,
            amount_micros=_GRANT_MICROS,
            note="for the benchmark",
        ),
        timeout=_CALL_S,
    )
