"""Channels to other rooms: the mesh's options, its token and its manners.

    async with channel("dns:///billing:7400", mesh_token=token, room="gateway") as billing:
        stub = LedgerServiceStub(billing)
        await stub.Hold(request, timeout=2.0)

Every call, lanes included, gets token, request id and trace context by itself. A unary call without
a timeout raises before it leaves. No client interceptors: each costs a task per unary call, and on
a bidirectional stream one puts a queue between a lane and its call.

With certificates (`tls`, `peer`) a call after a renewal leaves on a new connection; calls and lanes
that run stay on the one they began on.
"""

from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import grpc

from darkbloom_mesh import tracing
from darkbloom_mesh.config import Secret
from darkbloom_mesh.context import REQUEST_ID_KEY, TOKEN_KEY, request_id
from darkbloom_mesh.options import MAX_UNARY_BYTES, channel_options
from darkbloom_mesh.renewal import Renewing
from darkbloom_mesh.tls import Material, TlsFiles


def channel(
    target: str,
    *,
    mesh_token: Secret | None,
    room: str,
    max_message_bytes: int = MAX_UNARY_BYTES,
    credentials: grpc.ChannelCredentials | None = None,
    own_connection: bool = False,
    tls: TlsFiles | None = None,
    peer: str = "",
) -> grpc.aio.Channel:
    """Open a channel; `dns:///name:port` spreads calls over all addresses of the name.

    Args:
        target: What to dial.
        mesh_token: Token of internal calls; None towards a public listener.
        room: Who calls, for the user agent.
        max_message_bytes: Bound of what is accepted.
        credentials: TLS towards a public listener; None speaks plaintext.
        own_connection: Share no connection with other channels to the same target.
        tls: Our certificate and whom we believe; None where the mesh has no certificates.
        peer: The room that must answer, with `tls`.

    Raises:
        ValueError: `tls` without `peer`.
    """
    options = [
        *channel_options(max_message_bytes=max_message_bytes),
        ("grpc.primary_user_agent", f"darkbloom-{room}"),
        ("grpc.use_local_subchannel_pool", int(own_connection or tls is not None)),
    ]
    if tls is not None:
        if not peer:
            raise ValueError("a channel with certificates names its peer")
        checked = [*options, ("grpc.ssl_target_name_override", tls.peer_name(peer))]

        def open_line(material: Material) -> grpc.aio.Channel:
            return grpc.aio.secure_channel(target, material.for_channel(), checked)

        renewing = Renewing(tls, open_line)
        return MeshChannel(renewing.line().channel, mesh_token, renewing)
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

    def __init__(
        self,
        inner: grpc.aio.Channel,
        mesh_token: Secret | None,
        renewing: Renewing | None = None,
    ) -> None:
        self._first = inner
        self._mesh_token = mesh_token
        self._renewing = renewing

    @property
    def _inner(self) -> grpc.aio.Channel:
        return self._first if self._renewing is None else self._renewing.line().channel

    def unary_unary(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Return a callable that refuses to be called without a timeout."""
        start = self._carrying("unary_unary", method, *args, **kwargs)

        def call(request: Any, *, timeout: float | None = None, **more: Any) -> Any:
            if timeout is None:
                raise ValueError(f"call of {method} has no timeout")
            return start(request, timeout=timeout, **more)

        return call

    def unary_stream(self, *args: Any, **kwargs: Any) -> Any:
        """Return a callable of a watch stream; keep-alive notices a dead peer."""
        return self._carrying("unary_stream", *args, **kwargs)

    def stream_unary(self, *args: Any, **kwargs: Any) -> Any:
        """Return a callable of an upload."""
        return self._carrying("stream_unary", *args, **kwargs)

    def stream_stream(self, *args: Any, **kwargs: Any) -> Any:
        """Return a callable of a lane."""
        return self._carrying("stream_stream", *args, **kwargs)

    def _carrying(self, kind: str, *args: Any, **kwargs: Any) -> Callable[..., Any]:
        renewing = self._renewing
        if renewing is None:
            start = getattr(self._first, kind)(*args, **kwargs)

            def call(*given: Any, metadata: Any = None, **more: Any) -> Any:
                carried = (*call_metadata(self._mesh_token), *(metadata or ()))
                return start(*given, metadata=carried, **more)

            return call

        bound = renewing.line()
        begin = getattr(bound.channel, kind)(*args, **kwargs)

        def renewed(*given: Any, metadata: Any = None, **more: Any) -> Any:
            nonlocal bound, begin
            line = renewing.line()
            if line is not bound:
                bound, begin = line, getattr(line.channel, kind)(*args, **kwargs)
            carried = (*call_metadata(self._mesh_token), *(metadata or ()))
            return line.carry(begin(*given, metadata=carried, **more))

        return renewed

    async def close(self, grace: float | None = None) -> None:
        """Close; calls in flight get `grace` seconds."""
        if self._renewing is not None:
            await self._renewing.close(grace)
            return
        await self._first.close(grace)

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
