"""Spans of a request, where a collector is configured; nothing at all where there is none."""

from contextlib import AbstractContextManager, nullcontext

from darkbloom_mesh import tracing
from darkbloom_mesh.telemetry import SpanName

from darkbloom_gateway.wire import Scope, header


class Spans:
    """Opens spans; attributes are ids and closed words, never content.

    Args:
        enabled: whether anybody collects them.
    """

    def __init__(self, *, enabled: bool) -> None:
        self._enabled = enabled

    def request(self, scope: Scope) -> AbstractContextManager[object]:
        """Open the span of one HTTP request, under the caller's where it brought one."""
        if not self._enabled:
            return nullcontext()
        given = header(scope, tracing.TRACEPARENT_KEY.encode("ascii"))
        if given is not None:
            tracing.adopt({tracing.TRACEPARENT_KEY: given.decode("latin-1")})
        return tracing.span("gateway.request")

    def traceparent(self) -> str:
        """Return what others need to join the present trace; empty outside of one."""
        if not self._enabled:
            return ""
        return dict(tracing.outgoing()).get(tracing.TRACEPARENT_KEY, "")

    def step(self, name: SpanName) -> AbstractContextManager[object]:
        """Open the span of one step under the present one."""
        return tracing.span(name) if self._enabled else nullcontext()
