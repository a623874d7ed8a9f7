"""Channels to other rooms: the mesh's options, its token and its manners.

    async with channel("dns:///billing:7400", mesh_token=token, room="gateway") as billing:
        stub = LedgerServiceStub(billing)
        await stub.Hold(request, timeout=2.0)

Unary calls and watch streams get token, request id and trace context by themselves, and a unary
call without a timeout is refused before it leaves. Lanes pass `metadata=call_metadata(token)`: an
interceptor on a bidirectional stream would put a queue between the lane and its call.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
from grpc.aio import ClientCallDetails, Metadata

from darkbloom_mesh import tracing
from darkbloom_mesh.config import Secret
from darkbloom_mesh.context import REQUEST_ID_KEY, TOKEN_KEY, request_id
from darkbloom_mesh.options import MAX_UNARY_BYTES, channel_options


def channel(
    target: str,
    *,
    mesh_token: Secret | None,
    room: str,
    max_message_bytes: int = MAX_UNARY_BYTES,
) -> grpc.aio.Channel:
    """Open a channel; `dns:///name:port` spreads calls over all addresses of the name.

    Args:
        target: What to dial.
        mesh_token: Token of internal calls; None towards a public listener.
        room: Who calls, for the user agent.
        max_message_bytes: Bound of what is accepted.
    """
    options = channel_options(max_message_bytes=max_message_bytes)
    return grpc.aio.insecure_channel(
        target,
        options=[*options, ("grpc.primary_user_agent", f"darkbloom-{room}")],
        interceptors=[_Unary(mesh_token), _Watch(mesh_token)],
    )


def call_metadata(mesh_token: Secret | None) -> tuple[tuple[str, str], ...]:
    """Return the metadata of a call made now: token, request id, trace context."""
    token = ((TOKEN_KEY, mesh_token.reveal()),) if mesh_token else ()
    current = request_id()
    return (*token, *(((REQUEST_ID_KEY, current),) if current else ()), *tracing.outgoing())


class _Unary(grpc.aio.UnaryUnaryClientInterceptor):
    def __init__(self, mesh_token: Secret | None) -> None:
        self._mesh_token = mesh_token

    async def intercept_unary_unary(
        self,
        continuation: Callable[[ClientCallDetails, Any], Awaitable[Any]],
        client_call_details: ClientCallDetails,
        request: Any,
    ) -> Any:
        """Add metadata; refuse a call that could wait for ever."""
        if client_call_details.timeout is None:
            raise ValueError(f"call of {_text(client_call_details.method)} has no timeout")
        return await continuation(_with(client_call_details, self._mesh_token), request)


class _Watch(grpc.aio.UnaryStreamClientInterceptor):
    def __init__(self, mesh_token: Secret | None) -> None:
        self._mesh_token = mesh_token

    async def intercept_unary_stream(
        self,
        continuation: Callable[[ClientCallDetails, Any], Awaitable[Any]],
        client_call_details: ClientCallDetails,
        request: Any,
    ) -> AsyncIterator[Any]:
        """Add metadata; a watch has no deadline, keep-alive notices a dead peer."""
        call: AsyncIterator[Any] = await continuation(
            _with(client_call_details, self._mesh_token), request
        )
        return call


def _with(details: ClientCallDetails, mesh_token: Secret | None) -> ClientCallDetails:
    metadata = Metadata(*(details.metadata or ()), *call_metadata(mesh_token))
    return ClientCallDetails(
        details.method, details.timeout, metadata, details.credentials, details.wait_for_ready
    )


def _text(method: str | bytes) -> str:
    return method.decode() if isinstance(method, bytes) else method
