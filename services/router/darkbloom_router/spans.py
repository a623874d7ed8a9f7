"""The router's spans, joined to the gateway's trace; never sent to providers, never with content.

A request has no task here, so spans are recorded when they end, with their times. A provider's own
spans stay on its machine: `attempt_id` is what both know.
"""

from darkbloom_mesh.clock import Clock
from darkbloom_mesh.telemetry import SpanName
from opentelemetry import trace
from opentelemetry.trace import Link, Span, Status, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from darkbloom_router import taxonomy
from darkbloom_router.attempts import Attempt, Phase
from darkbloom_router.figures import chip_label

_PROPAGATOR = TraceContextTextMapPropagator()


class Spans:
    """Records finished spans; does nothing where no collector is configured.

    Args:
        clock: Wall-clock time.
        enabled: Whether anybody listens.
        tracer: Where spans begin; None for that of the process.
    """

    def __init__(self, clock: Clock, *, enabled: bool, tracer: Tracer | None = None) -> None:
        self._clock = clock
        self._enabled = enabled
        self._tracer = tracer

    def now_ns(self) -> int:
        """Return the time for a span's start; 0 where nobody listens."""
        return int(self._clock.now().timestamp() * 1e9) if self._enabled else 0

    def record(
        self, name: SpanName, traceparent: str, start_ns: int, **attributes: str | int
    ) -> None:
        """Record one span that ends now."""
        if self._enabled and traceparent:
            span = self._begin(name, traceparent, start_ns, (), attributes)
            span.end(end_time=self.now_ns())

    def attempt(self, attempt: Attempt) -> None:
        """Record an attempt that has ended, linked to those of its request that ended before."""
        request = attempt.request
        if not self._enabled or not request.traceparent:
            return
        committed = attempt.reached >= Phase.COMMITTED
        found = taxonomy.ending(
            attempt.outcome, accepted=bool(attempt.accepted_at), committed=committed
        )
        attributes: dict[str, str | int] = {
            "attempt": attempt.number,
            "attempt_id": attempt.attempt_id,
            "hedge": int(attempt.ticket is not None),
            "chip_family": chip_label(attempt.provider.hardware.chip_family),
            "outcome": attempt.outcome,
            "final_status": found.final_status.value,
        }
        links = [Link(earlier) for earlier in request.tried]
        start_ns = attempt.started_unix_ns
        span = self._begin("provider.attempt", request.traceparent, start_ns, links, attributes)
        for name, at in (("accepted", attempt.accepted_at), ("first_content", attempt.content_at)):
            if at:
                span.add_event(name, timestamp=start_ns + int((at - attempt.started_at) * 1e9))
        ended_ns = self.now_ns()
        if attempt.terminal is not None:
            span.add_event("terminal", timestamp=ended_ns)
        if found.error_class and found.final_status is not taxonomy.FinalStatus.CANCELLED:
            span.set_attribute("error.type", found.error_class.value)
            span.set_status(Status(StatusCode.ERROR))
        span.end(end_time=ended_ns)
        request.tried.append(span.get_span_context())

    def _begin(
        self,
        name: SpanName,
        traceparent: str,
        start_ns: int,
        links: "list[Link] | tuple[()]",
        attributes: dict[str, str | int],
    ) -> Span:
        parent = _PROPAGATOR.extract({"traceparent": traceparent})
        tracer = self._tracer or trace.get_tracer("darkbloom")
        return tracer.start_span(
            name, context=parent, start_time=start_ns, links=links, attributes=attributes
        )
