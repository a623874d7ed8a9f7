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

from darkbloom_mesh.telemetry import Metrics, SpanName

TRACEPARENT_KEY = "traceparent"
_PROPAGATOR = TraceContextTextMapPropagator()


class Tracing:
    """The tracer of one process; without an endpoint it only passes contexts on.

    Args:
        room: Who sends.
        version: Of the build.
        endpoint: Collector; None where there is none.
        share: Of the traces that begin here.
        metrics: Where the sink of spans is counted.
    """

    def __init__(
        self, room: str, version: str, endpoint: str | None, *, share: float, metrics: Metrics
    ) -> None:
        self._provider = None
        if endpoint:
            # The SDK costs start-up time and memory, and most processes of tests do without.
            from darkbloom_mesh.span_sink import exporting

            self._provider = exporting(room, version, endpoint, share, metrics)
            trace.set_tracer_provider(self._provider)

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


def exemplar() -> dict[str, str] | None:
    """Return what a histogram shows beside a number: the trace it is part of, if that is kept."""
    current = trace.get_current_span().get_span_context()
    if not (current.is_valid and current.trace_flags.sampled):
        return None
    return {"trace_id": trace.format_trace_id(current.trace_id)}


def note(**attributes: str | int | bool) -> None:
    """Add to the current span, where there is one."""
    trace.get_current_span().set_attributes(attributes)


def fail(error_type: str) -> None:
    """Mark the current span as failed, by a closed word."""
    current = trace.get_current_span()
    current.set_attribute("error.type", error_type)
    current.set_status(Status(StatusCode.ERROR))


def ids() -> tuple[str, str] | None:
    """Return trace id and span id in hex, or None outside of a trace."""
    current = trace.get_current_span().get_span_context()
    if not current.is_valid:
        return None
    return trace.format_trace_id(current.trace_id), trace.format_span_id(current.span_id)
