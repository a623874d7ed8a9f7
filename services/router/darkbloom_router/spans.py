"""The router's spans, joined to the gateway's trace; never sent to providers, never with content.

A request has no task here, so spans are recorded when they end, with their times.
"""

from darkbloom_mesh.clock import Clock
from darkbloom_mesh.telemetry import SpanName
from opentelemetry import trace
from opentelemetry.trace import Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

_PROPAGATOR = TraceContextTextMapPropagator()


class Spans:
    """Records finished spans; does nothing where no collector is configured.

    Args:
        clock: Wall-clock time.
        enabled: Whether anybody listens.
    """

    def __init__(self, clock: Clock, *, enabled: bool) -> None:
        self._clock = clock
        self._enabled = enabled

    def now_ns(self) -> int:
        """Return the time for a span's start; 0 where nobody listens."""
        return int(self._clock.now().timestamp() * 1e9) if self._enabled else 0

    def record(
        self,
        name: SpanName,
        traceparent: str,
        start_ns: int,
        *,
        error: str = "",
        **attributes: str | int,
    ) -> None:
        """Record one span that ends now."""
        if not self._enabled or not traceparent:
            return
        parent = _PROPAGATOR.extract({"traceparent": traceparent})
        span = trace.get_tracer("darkbloom").start_span(
            name, context=parent, start_time=start_ns, attributes=attributes
        )
        if error:
            span.set_attribute("error.type", error)
            span.set_status(Status(StatusCode.ERROR))
        span.end(end_time=self.now_ns())
