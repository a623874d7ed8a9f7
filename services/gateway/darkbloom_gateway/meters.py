"""The gateway's metrics: declared names, closed labels."""

from collections.abc import Callable

from darkbloom_mesh import telemetry, tracing
from darkbloom_mesh.telemetry import Metrics

_LINK = "router"
_STATUS_CLASSES = {
    402: "client_error",
    408: "client_error",
    429: "rate_limited",
    499: "client_gone",
    504: "timeout",
}
_CLIENT_ERROR, _SERVER_ERROR = 400, 500


class Meters:
    """Counts and times; every method is cheap and never raises."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._received = metrics.counter(telemetry.RECEIVED)
        self._phases = {
            phase: metrics.histogram(telemetry.PHASE_SECONDS).labels(phase)
            for phase in ("parse", "reserve", "route", "encrypt", "queue_wait", "dispatch", "total")
        }
        self._receipts = metrics.counter(telemetry.RECEIPTS)
        self._sealed = metrics.counter(telemetry.SEALED_REQUESTS)
        self._lanes = metrics.gauge(telemetry.LANES).labels(_LINK)

    def http(
        self,
        method: str,
        route: str,
        status: int,
        seconds: float,
        exemplar: dict[str, str] | None = None,
    ) -> None:
        """Count one HTTP request, and show its trace beside its time."""
        labels = (method, route, str(status))
        self._metrics.counter(telemetry.HTTP_REQUESTS).labels(*labels).inc()
        self._metrics.histogram(telemetry.HTTP_SECONDS).labels(*labels).observe(seconds, exemplar)

    def follow(self, inflight: Callable[[], int]) -> None:
        """Ask how many requests are being answered, whenever somebody looks."""
        self._metrics.gauge(telemetry.INFLIGHT).set_function(lambda: float(inflight()))

    def received(self, endpoint: str) -> None:
        """Count an inference request by the word of its endpoint."""
        self._received.labels(endpoint).inc()

    def outcome(self, model: str, status: int, *, broken: bool = False) -> None:
        """Count the end of one: `status` is the HTTP status, `broken` an error after commit."""
        name = _STATUS_CLASSES.get(status, "success")
        if broken:
            name = "mid_stream"
        elif status not in _STATUS_CLASSES and status >= _SERVER_ERROR:
            name = "provider_5xx"
        elif status not in _STATUS_CLASSES and status >= _CLIENT_ERROR:
            name = "client_error"
        self._metrics.counter(telemetry.OUTCOMES).labels(model, name).inc()

    def phase(self, phase: str, seconds: float) -> None:
        """Time a phase."""
        self._phases[phase].observe(seconds)

    def first_content(self, model: str, seconds: float) -> None:
        """Time from the whole body to the first content, with its trace."""
        pace = self._metrics.histogram(telemetry.TTFT_SECONDS).labels(model)
        pace.observe(seconds, tracing.exemplar())

    def tokens(
        self, model: str, *, prompt: int, cached: int, completion: int, reasoning: int
    ) -> None:
        """Count what was opened."""
        counter = self._metrics.counter(telemetry.TOKENS)
        counts = {
            "prompt": prompt,
            "cached": cached,
            "completion": completion,
            "reasoning": reasoning,
        }
        for kind, count in counts.items():
            if count:
                counter.labels(model, kind).inc(count)

    def decode_rate(self, model: str, tokens_per_second: float) -> None:
        """Record the pace of one answer."""
        self._metrics.histogram(telemetry.DECODE_RATE).labels(model).observe(tokens_per_second)

    def client_gone(self, model: str, *, committed: bool) -> None:
        """Count a consumer that left."""
        phase = "after_commit" if committed else "before_first_token"
        self._metrics.counter(telemetry.CLIENT_GONE).labels(model, phase).inc()

    def rate_limited(self, role: str, dimension: str) -> None:
        """Count a refusal for pace."""
        self._metrics.counter(telemetry.RATE_LIMITED).labels(role or "account", dimension).inc()

    def receipt(self, outcome: str) -> None:
        """Count a receipt: `made`, `recorded` or `dropped`."""
        self._receipts.labels(outcome).inc()

    def sealed(self, outcome: str) -> None:
        """Count a sealed request: `opened`, or why it was not."""
        self._sealed.labels(outcome).inc()

    def recounted(self, model: str, *, drifts: bool) -> None:
        """Count an answer whose tokens were counted again."""
        outcome = "drift" if drifts else "agrees"
        self._metrics.counter(telemetry.RECOUNTS).labels(model, outcome).inc()

    def attempt_failed(self, model: str, reason: str) -> None:
        """Count a failed attempt by closed reason."""
        self._metrics.counter(telemetry.INFERENCE_ERRORS).labels(model, reason).inc()

    def dropped(self, sink: str) -> None:
        """Count a record that found no room."""
        self._metrics.counter(telemetry.SINK_DROPPED).labels(sink).inc()

    def lane_up(self) -> None:
        """See `link.LinkMetrics`."""
        self._lanes.set(1)

    def lane_ended(self, reason: str) -> None:
        """See `link.LinkMetrics`."""
        self._lanes.set(0)
        self._metrics.counter(telemetry.LANE_ENDS).labels(_LINK, reason).inc()

    def frame_ignored(self, reason: str) -> None:
        """See `link.LinkMetrics`."""
        self._metrics.counter(telemetry.FRAMES_IGNORED).labels(_LINK, reason).inc()
