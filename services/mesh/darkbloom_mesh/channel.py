"""Channels to other rooms: the mesh's options, its token and its manners.

    async with channel("dns:///billing:7400", mesh_token=token, room="gateway") as billing:
        stub = LedgerServiceStub(billing)
        await stub.Hold(request, timeout=2.0)

Every call, lanes included, gets token, request id and trace context by itself. A unary call without
a timeout raises before it leaves. No client interceptors: each costs a task per unary call, and on
a bidirectional stream one puts a queue between a lane and its call.
"""

from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import grpc

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
    credentials: grpc.ChannelCredentials | None = None,
    own_connection: bool = False,
) -> grpc.aio.Channel:
    """Open a channel; `dns:///name:port` spreads calls over all addresses of the name.

    Args:
        target: What to dial.
        mesh_token: Token of internal calls; None towards a public listener.
        room: Who calls, for the user agent.
        max_message_bytes: Bound of what is accepted.
        credentials: TLS towards a public listener; None speaks plaintext.
        own_connection: Share no connection with other channels to the same target.
    """
    options = [
        *channel_options(max_message_bytes=max_message_bytes),
        ("grpc.primary_user_agent", f"darkbloom-{room}"),
        ("grpc.use_local_subchannel_pool", int(own_connection)),
    ]
    if credentials is None:
        return MeshChannel(grpc.aio.insecure_channel(target, options), mesh_token)
    return MeshChannel(grpc.aio.secure_channel(target, credentials, options), mesh_token)


def call_metadata(mesh_token: Secret | None) -> tuple[tuple[str, str], ...]:
    """Return the metadata of a call made now: token, request id, trace context."""
    token = ((TOKEN_KEY, mesh_token.reveal()),) if mesh_token else ()
    current = request_id()
    return (*token, *(((REQUEST_ID_KEY, current),) if current else ()), *tracing.outgoing())


class MeshChannel(grpc.aio.Channel):
    """A channel whose calls carry the mesh's metadata; it owns the channel inside."""

    def __init__(self, inner: grpc.aio.Channel, mesh_token: Secret | None) -> None:
        self._inner = inner
        self._mesh_token = mesh_token

    def unary_unary(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Return a callable that refuses to be called without a timeout."""
        start = self._carrying(self._inner.unary_unary(method, *args, **kwargs))

        def call(request: Any, *, timeout: float | None = None, **more: Any) -> Any:
            if timeout is None:
                raise ValueError(f"call of {method} has no timeout")
            return start(request, timeout=timeout, **more)

        return call

    def unary_stream(self, *args: Any, **kwargs: Any) -> Any:
        """Return a callable of a watch stream; keep-alive notices a dead peer."""
        return self._carrying(self._inner.unary_stream(*args, **kwargs))

    def stream_unary(self, *args: Any, **kwargs: Any) -> Any:
        """Return a callable of an upload."""
        return self._carrying(self._inner.stream_unary(*args, **kwargs))

    def stream_stream(self, *args: Any, **kwargs: Any) -> Any:
        """Return a callable of a lane."""
        return self._carrying(self._inner.stream_stream(*args, **kwargs))

    def _carrying(self, start: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, metadata: Any = None, **more: Any) -> Any:
            carried = (*call_metadata(self._mesh_token), *(metadata or ()))
            return start(*args, metadata=carried, **more)

        return call

    async def close(self, grace: float | None = None) -> None:
        """Close; calls in flight get `grace` seconds."""
        await self._inner.close(grace)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """Return the state of the connection."""
        return self._inner.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """Return once the state is another one."""
        await self._inner.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        """Return once the channel is connected."""
        await self._inner.channel_ready()

    async def __aenter__(self) -> Self:
        """Return the channel itself."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close at once."""
        await self.close()
