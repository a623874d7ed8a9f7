"""The rooms of a mesh with two of each, and when each of them is well."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import grpc
import httpx
from darkbloom.common.v1.page_pb2 import PageRequest
from darkbloom.router.v1 import fleet_service_pb2
from darkbloom.router.v1.fleet_service_pb2_grpc import FleetServiceStub
from darkbloom_local.mesh import Mesh
from darkbloom_mesh.errors import MeshError
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.mesh.harness import CALL_S, until

BEHIND = ("registry", "attestation", "billing")
"""Rooms that others call, and consumers do not."""
ORDER = (*BEHIND, "router", "gateway")
"""In which a deploy replaces them."""
PAGE = 1000


def both(room: str) -> tuple[str, str]:
    """Return the names of a room's two replicas."""
    return room, f"{room}-2"


def gateways(mesh: Mesh) -> list[str]:
    """Return the base URLs of both gateways, as a balancer has them."""
    return [f"http://{mesh.wiring.address(f'{name}.http')}" for name in both("gateway")]


async def seen(mesh: Mesh, router: str) -> set[bytes]:
    """Return the identities that a router would offer a request; none while it is away."""
    stub = FleetServiceStub(mesh.channel(f"{router}.internal"))
    try:
        answer = await stub.ListProviders(
            fleet_service_pb2.ListProvidersRequest(page=PageRequest(page_size=PAGE)),
            timeout=CALL_S,
            wait_for_ready=True,
        )
    except (grpc.aio.AioRpcError, MeshError):
        return set()
    return {
        row.identity_key
        for row in answer.providers
        if row.status == "online" and row.HasField("verdict")
    }


async def well(mesh: Mesh, providers: int, routers: Sequence[str] = both("router")) -> None:
    """Return once every room is ready and each router knows the whole fleet."""
    waits: list[Awaitable[None]] = [
        until(_knows(mesh, name, providers), f"{name} knows {providers} providers")
        for name in routers
    ]
    waits += [until(_serves(url), f"{url} is ready") for url in gateways(mesh)]
    for room in BEHIND:
        waits += [ready(mesh, name) for name in both(room)]
    await asyncio.gather(*waits)


async def ready(mesh: Mesh, name: str) -> None:
    """Return once a room behind the gateway says that it is ready."""

    async def said() -> bool:
        stub = health_pb2_grpc.HealthStub(mesh.channel(f"{name}.grpc"))
        try:
            answer = await stub.Check(
                health_pb2.HealthCheckRequest(service="readiness"), timeout=CALL_S
            )
        except grpc.aio.AioRpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    await until(said, f"{name} is ready")


def _knows(mesh: Mesh, router: str, count: int) -> Callable[[], Awaitable[bool]]:
    async def enough() -> bool:
        return len(await seen(mesh, router)) == count

    return enough


def _serves(url: str) -> Callable[[], Awaitable[bool]]:
    async def says() -> bool:
        async with httpx.AsyncClient(timeout=CALL_S) as http:
            try:
                return (await http.get(f"{url}/readyz")).status_code == httpx.codes.OK
            except httpx.TransportError:
                return False

    return says
