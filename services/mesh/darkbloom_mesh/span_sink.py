"""Where finished spans go: a bounded queue, a thread that sends, and a count of what was lost.

Nothing here waits on the path of a request. Loaded only where a collector is configured.
"""

from collections.abc import Sequence
from threading import Lock

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio

from darkbloom_mesh.telemetry import SINK_DEPTH, SINK_DROPPED, SINK_WRITTEN, Metrics

LIMIT = 2048
_SEND_S = 2.0
_SINK = "traces"


class _Counted(SpanExporter):
    """An exporter that says what arrived and what did not."""

    def __init__(self, inner: SpanExporter, metrics: Metrics) -> None:
        self._inner = inner
        self._lock = Lock()
        self._waiting = 0
        self._failed = self._closing = False
        self._dropped = metrics.counter(SINK_DROPPED).labels(_SINK)
        self._written = metrics.counter(SINK_WRITTEN).labels(_SINK)
        metrics.gauge(SINK_DEPTH).labels(_SINK).set_function(lambda: float(self._waiting))

    def admit(self) -> bool:
        """Count a span in; False where too many wait, and then it is lost."""
        with self._lock:
            if self._waiting >= LIMIT:
                self._dropped.inc()
                return False
            self._waiting += 1
            return True

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send a batch; one that does not arrive is lost."""
        if self._closing and self._failed:
            # Who leaves does not wait for a collector that is away.
            result = SpanExportResult.FAILURE
        else:
            result = self._inner.export(spans)
        self._failed = result is not SpanExportResult.SUCCESS
        (self._dropped if self._failed else self._written).inc(len(spans))
        with self._lock:
            self._waiting -= len(spans)
        return result

    def close_soon(self) -> None:
        """Give up at the first batch that does not arrive."""
        self._closing = True

    def shutdown(self) -> None:
        """Let go of the connection."""
        self._inner.shutdown()


class _Bounded(BatchSpanProcessor):
    """The kit's batches behind a door that counts."""

    def __init__(self, exporter: _Counted) -> None:
        super().__init__(exporter, max_queue_size=2 * LIMIT)
        self._counted = exporter

    def on_end(self, span: ReadableSpan) -> None:
        """Take a finished span, or drop it."""
        sampled = span.context is not None and span.context.trace_flags.sampled
        if sampled and self._counted.admit():
            super().on_end(span)

    def shutdown(self) -> None:
        """Send what is left, where somebody takes it."""
        self._counted.close_soon()
        super().shutdown()  # type: ignore[no-untyped-call]  # the SDK's own


def exporting(
    room: str, version: str, endpoint: str, share: float, metrics: Metrics
) -> TracerProvider:
    """Return a provider of tracers whose spans go to a collector.

    Args:
        room: Who sends.
        version: Of the build.
        endpoint: OTLP over HTTP, without its path.
        share: Of the traces that begin here; others follow their parent.
        metrics: Where the sink is counted.
    """
    resource = Resource.create({"service.name": f"darkbloom-{room}", "service.version": version})
    provider = TracerProvider(resource=resource, sampler=ParentBasedTraceIdRatio(share))
    address = f"{endpoint.rstrip('/')}/v1/traces"
    exporter = OTLPSpanExporter(endpoint=address, timeout=_SEND_S)
    provider.add_span_processor(_Bounded(_Counted(exporter, metrics)))
    return provider
