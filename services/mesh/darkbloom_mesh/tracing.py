"""Traces over OpenTelemetry: nothing unless a collector is configured, and never any content.

The W3C `traceparent` comes and goes with the metadata of calls inside the mesh; providers get none.
A failed span records the type of the error, never its text.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.trace import Span, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from darkbloom_mesh.telemetry import SpanName

TRACEPARENT_KEY = "traceparent"
_PROPAGATOR = TraceContextTextMapPropagator()
_SAMPLED_SHARE = 0.05


class Tracing:
    """The tracer of one process; without an endpoint it only passes contexts on."""

    def __init__(self, room: str, version: str, endpoint: str | None) -> None:
        self._provider = _exporting(room, version, endpoint) if endpoint else None

    def close(self) -> None:
        """Send what is buffered; blocks up to the exporter's own bound."""
        if self._provider is not None:
            self._provider.shutdown()


@contextmanager
def span(name: SpanName, **attributes: str | float | bool) -> Iterator[Span]:
    """Open a span under the current one; attributes are ids, counts and closed words only."""
    tracer = trace.get_tracer("darkbloom")
    with tracer.start_as_current_span(
        name, attributes=attributes, record_exception=False, set_status_on_exception=False
    ) as opened:
        try:
            yield opened
        except BaseException as error:
            opened.set_attribute("error.type", type(error).__name__)
            opened.set_status(Status(StatusCode.ERROR))
            raise


@contextmanager
def joint(name: SpanName, traceparents: Iterable[str]) -> Iterator[None]:
    """Open one span in the trace of each request for which work is done at once; empty: none."""
    tracer = trace.get_tracer("darkbloom")
    opened = [
        tracer.start_span(name, context=_PROPAGATOR.extract({TRACEPARENT_KEY: given}))
        for given in traceparents
        if given
    ]
    try:
        yield
    except BaseException as error:
        for one in opened:
            one.set_attribute("error.type", type(error).__name__)
            one.set_status(Status(StatusCode.ERROR))
        raise
    finally:
        for one in opened:
            one.end()


def adopt(metadata: Mapping[str, Any]) -> None:
    """Continue the caller's trace in this call; a malformed header starts none."""
    given = metadata.get(TRACEPARENT_KEY)
    if isinstance(given, str):
        otel_context.attach(_PROPAGATOR.extract({TRACEPARENT_KEY: given}))


def outgoing() -> Sequence[tuple[str, str]]:
    """Return the metadata that carries the current trace, empty outside of one."""
    if not trace.get_current_span().get_span_context().is_valid:
        return ()
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier)
    return tuple(carrier.items())


def ids() -> tuple[str, str] | None:
    """Return trace id and span id in hex, or None outside of a trace."""
    current = trace.get_current_span().get_span_context()
    if not current.is_valid:
        return None
    return trace.format_trace_id(current.trace_id), trace.format_span_id(current.span_id)


def _exporting(room: str, version: str, endpoint: str) -> Any:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio

    resource = Resource.create({"service.name": f"darkbloom-{room}", "service.version": version})
    provider = TracerProvider(resource=resource, sampler=ParentBasedTraceIdRatio(_SAMPLED_SHARE))
    exporter = OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces")
    provider.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    return provider
