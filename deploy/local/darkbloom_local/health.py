"""Waiting until requests would be answered: gateway and router are asked, not guessed at."""

import asyncio
import base64
import http.client
from collections.abc import Awaitable, Callable

import grpc
from darkbloom.router.v1.fleet_pb2 import Explanation
from darkbloom.router.v1.fleet_service_pb2 import ExplainProviderRequest
from darkbloom.router.v1.fleet_service_pb2_grpc import FleetServiceStub
from darkbloom.router.v1.provider_link_pb2 import GateReason
from darkbloom_mesh.clock import Clock

from darkbloom_local.errors import NotReadyError
from darkbloom_local.ports import HOST

_CALL_S = 2.0
_POLL_S = 0.05


async def wait_for_gateway(port: int, clock: Clock, timeout_s: float) -> None:
    """Return once `GET /readyz` answers 200.

    Raises:
        NotReadyError: The time is over; the message carries the last answer.
    """

    async def ready() -> str:
        return await asyncio.to_thread(_readyz, port)

    if last := await _until_empty(ready, clock, timeout_s):
        raise NotReadyError(f"gateway is not ready after {timeout_s:.0f} s: {last}")


async def wait_for_provider(
    router: grpc.aio.Channel, identity_key: bytes, clock: Clock, timeout_s: float
) -> None:
    """Return once the router would give this provider a request.

    Raises:
        NotReadyError: The time is over; the message says which gate is shut and what opens it.
    """
    stub = FleetServiceStub(router)
    request = ExplainProviderRequest(provider=base64.b64encode(identity_key).decode())

    async def shut() -> str:
        try:
            answer = await stub.ExplainProvider(request, timeout=_CALL_S)
        except grpc.aio.AioRpcError as error:
            return f"the router says {error.code().name}"
        if any(found.eligible for found in answer.explanations):
            return ""
        return "; ".join(map(_told, answer.explanations)) or "it offers no model"

    if last := await _until_empty(shut, clock, timeout_s):
        raise NotReadyError(f"provider gets no requests after {timeout_s:.0f} s: {last}")


async def _until_empty(ask: Callable[[], Awaitable[str]], clock: Clock, timeout_s: float) -> str:
    """Ask until the answer is empty or the time is over; return the last answer."""
    end = clock.monotonic() + timeout_s
    while (answer := await ask()) and clock.monotonic() < end:
        await clock.sleep(_POLL_S)
    return answer


def _told(found: Explanation) -> str:
    reason = GateReason.Name(found.reason).removeprefix("GATE_REASON_").lower()
    return f"{found.build}: {reason}, {found.evidence}; {found.remedy}"


def _readyz(port: int) -> str:
    connection = http.client.HTTPConnection(HOST, port, timeout=_CALL_S)
    try:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        text = answer.read(1024).decode("utf-8", "replace")
    except (OSError, http.client.HTTPException) as error:
        return type(error).__name__
    finally:
        connection.close()
    return "" if answer.status == http.client.OK else f"{answer.status} {text}"
