"""Spans of a request, where a collector is configured; nothing at all where there is none."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from darkbloom_mesh import tracing
from darkbloom_mesh.telemetry import SpanName

from darkbloom_gateway.errors import ApiError
from darkbloom_gateway.wire import Scope, header

EXEMPLAR = "darkbloom.exemplar"
"""Where the scope says which trace a request is part of, once its span is open and kept."""
_SERVER_ERROR = 500


class Spans:
    """Opens spans; attributes are ids and closed words, never content.

    Args:
        enabled: whether anybody collects them.
    """

    def __init__(self, *, enabled: bool) -> None:
        self._enabled = enabled

    def request(self, scope: Scope) -> AbstractContextManager[object]:
        """Open the span of one HTTP request, under the caller's where it brought one."""
        return self._request(scope) if self._enabled else nullcontext()

    @contextmanager
    def _request(self, scope: Scope) -> Iterator[None]:
        given = header(scope, tracing.TRACEPARENT_KEY.encode("ascii"))
        if given is not None:
            tracing.adopt({tracing.TRACEPARENT_KEY: given.decode("latin-1")})
        refused: ApiError | None = None
        with tracing.span("gateway.request"):
            scope[EXEMPLAR] = tracing.exemplar()
            try:
                yield
            except ApiError as error:
                # A mistake of the caller is no failure of ours: the collector keeps all of those.
                tracing.note(**{"http.response.status_code": error.http_status})
                if error.http_status >= _SERVER_ERROR:
                    raise
                refused = error
        if refused is not None:
            raise refused

    def began(self, seconds: float) -> None:
        """Note the first content; the collector keeps every trace in which it came late."""
        if self._enabled:
            tracing.note(first_content_ms=int(seconds * 1000))

    def broke(self) -> None:
        """Note an answer that broke after its first content."""
        if self._enabled:
            tracing.fail("mid_stream")

    def traceparent(self) -> str:
        """Return what others need to join the present trace; empty outside of one."""
        if not self._enabled:
            return ""
        return dict(tracing.outgoing()).get(tracing.TRACEPARENT_KEY, "")

    def step(self, name: SpanName) -> AbstractContextManager[object]:
        """Open the span of one step under the present one."""
        return tracing.span(name) if self._enabled else nullcontext()
