"""Every metric, label and span name of the mesh: a closed list, declared before code may use it.

A room takes one `Metrics` and asks it for declared metrics; each process has its own registry.
Labels are closed words: never a provider id, never text that a caller chose. `model` is an id of
the active catalog or `unknown` (`model_label`).
"""

from collections.abc import Container
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_FAST_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1, 5)
_TTFT_SECONDS = (0.1, 0.25, 0.5, 1, 2, 3, 5, 7.5, 10, 15, 30, 60, 120)
_COST_MS = (10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0, 10_000.0, 30_000.0, 100_000.0)
_TOKENS_PER_SECOND = (5, 10, 15, 20, 30, 50, 80, 120, 200)
UNKNOWN = "unknown"

SpanName = Literal[
    "gateway.request",
    "gateway.auth",
    "billing.reserve",
    "registry.resolve",
    "router.select",
    "router.queue_wait",
    "router.encrypt",
    "provider.attempt",
    "billing.settle",
]


@dataclass(frozen=True)
class Spec:
    """One declared metric."""

    name: str
    doc: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = _SECONDS


def _spec(name: str, doc: str, labels: str = "", buckets: tuple[float, ...] = _SECONDS) -> Spec:
    return Spec(f"darkbloom_{name}", doc, tuple(labels.split()), buckets)


BUILD_INFO = _spec("build_info", "always 1; what runs here", "version commit")
RPC_SERVED = _spec("rpc_served_total", "calls served", "method status")
RPC_SECONDS = _spec("rpc_served_seconds", "time to serve a call", "method", _FAST_SECONDS)
CALLERS_REFUSED = _spec("callers_refused_total", "calls by the wrong room", "method caller")
TLS_EXPIRY = _spec("tls_certificate_expiry_seconds", "Unix time at which our certificate ends")
TLS_RELOADS = _spec("tls_reloads", "changed certificate files", "result")
LANES = _spec("lanes", "open lanes", "link")
LANE_ENDS = _spec("lane_ends_total", "ended lanes", "link reason")
LANE_FRAMES = _spec("lane_frames_total", "frames of ended lanes", "link direction")
FRAMES_IGNORED = _spec("frames_ignored_total", "frames that changed nothing", "link reason")

PREFIX_BYTES = _spec("provider_prefix_bytes", "kept beginnings of prompts", "tier")
PREFIX_COUNTS = _spec("provider_prefix", "the prefix cache since the engine's start", "count")

HTTP_REQUESTS = _spec("http_requests_total", "HTTP requests", "method route status")
HTTP_SECONDS = _spec("http_request_seconds", "time to answer", "method route status")
RECEIVED = _spec("requests_received_total", "inference requests", "endpoint")
INFLIGHT = _spec("requests_inflight", "inference requests that are being answered")
OUTCOMES = _spec("request_outcomes_total", "ended inference requests", "model class")
PHASE_SECONDS = _spec("request_phase_seconds", "where time goes", "phase", _FAST_SECONDS)
TTFT_SECONDS = _spec("ttft_seconds", "time to first content", "model", _TTFT_SECONDS)
DECODE_RATE = _spec("decode_tokens_per_second", "pace", "model", _TOKENS_PER_SECOND)
TOKENS = _spec("tokens_total", "tokens opened", "model kind")
RECOUNTS = _spec("token_recounts_total", "answers whose tokens were counted again", "model outcome")
CLIENT_GONE = _spec("client_gone_total", "consumers that left", "model phase")
RATE_LIMITED = _spec("ratelimit_rejections_total", "refused for pace", "tier dimension")
RECEIPTS = _spec("receipts_total", "receipts made", "outcome")
SEALED_REQUESTS = _spec("sealed_requests_total", "requests sealed by consumers", "outcome")

DISPATCHES = _spec("dispatches_total", "attempts dispatched", "status")
ATTEMPT_OUTCOMES = _spec("attempt_outcomes_total", "ended attempts", "model class")
QUEUE_OUTCOMES = _spec("queue_outcomes_total", "ended waits", "model class")
INFERENCE_ERRORS = _spec("inference_errors_total", "failed attempts", "model reason")
PARTIAL_SUCCESS = _spec("partial_success_total", "broken after content", "model")
NO_TERMINAL = _spec("no_terminal_after_cancel_total", "cancels unanswered", "model")
CANCELS = _spec("cancel_total", "cancelled attempts", "cause outcome")
CANCEL_SECONDS = _spec("cancel_to_terminal_seconds", "time to stop", "cause")
DECISIONS = _spec("routing_decisions_total", "routing decisions", "model outcome")
SELECTION_PATHS = _spec("routing_paths_total", "how winners came to be", "path")
ROUTING_AUDITS = _spec("routing_audits_total", "decisions checked in full", "outcome")
COST_MS = _spec("routing_cost_ms", "price of winners", "model", _COST_MS)
PROVIDER_SELECTED = _spec("routing_provider_selected_total", "winners", "model trust")
HEDGES = _spec("speculative_dispatch_total", "second offers", "model")
HEDGE_WINS = _spec("speculative_win_total", "second offers that had the first content", "model")
HEDGES_SUPPRESSED = _spec("hedge_governor_suppressed_total", "second offers not made", "verdict")
SCAN_SECONDS = _spec("routing_scan_seconds", "time to choose", "model", _FAST_SECONDS)
QUEUE_DEPTH = _spec("queue_depth", "requests waiting", "model")
QUEUE_AGE = _spec("queue_oldest_age_seconds", "age of the oldest waiting", "model")
BREAKERS = _spec("breaker_transitions_total", "breakers opened and closed", "model kind")
WARM_POOL = _spec("warm_pool_machines", "machines that hold a build", "model which")
LOAD_COMMANDS = _spec("load_commands_total", "commands to load a build", "model outcome")
PROVIDERS = _spec("providers", "connected providers", "state trust")
PROVIDER_STREAMS = _spec("provider_streams", "open provider streams")
STREAM_OPENS = _spec("provider_stream_opens_total", "opened provider streams")
STREAM_CLOSES = _spec("provider_stream_closes_total", "closed provider streams", "reason")
REGISTRATIONS = _spec("provider_registrations_total", "registrations", "trust_level")
SUSPECTED = _spec("provider_suspected_total", "suspected faults", "kind")

CHALLENGES = _spec("attestation_challenges_total", "challenges", "outcome")
ATTESTATION_FAILURES = _spec("attestation_failures_total", "failed evidence", "reason")
RELEASE_EVIDENCE = _spec("release_evidence_total", "code releases checked", "outcome")
VERDICTS = _spec("attestation_verdicts_total", "verdicts issued", "level admission")

HOLDS = _spec("billing_holds_total", "holds", "result")
SETTLEMENTS = _spec("billing_settlements_total", "settlements", "result")
RELEASES = _spec("billing_releases_total", "holds released or swept", "result")
LEDGER_IMBALANCE = _spec("billing_ledger_imbalance_micros", "must be 0")
AUDIT_VIOLATIONS = _spec("billing_audit_violations", "open violations of the books; must be 0")
SEALED_BLOCKS = _spec("billing_sealed_blocks", "height of the sealed history")
MATURED = _spec("billing_matured_micros_total", "earnings that became spendable")
OUTBOX_AGE = _spec("billing_outbox_age_seconds", "age of the oldest job owed to the outside")
STRIPE_EVENTS = _spec("billing_stripe_events_total", "webhooks", "outcome")
WITHDRAWALS = _spec("billing_withdrawals_total", "changes of withdrawals", "status")
LATE_WITHDRAWALS = _spec("billing_withdrawals_overdue", "not final after 48 h")
STRIPE_DRIFT = _spec("billing_stripe_drift_micros", "unexplained difference")
OLD_HOLDS = _spec("billing_holds_overdue", "holds past their lease")
BATCH_ROWS = _spec(
    "billing_batch_rows", "rows in a natural batch", "kind", (1, 2, 4, 8, 16, 32, 64)
)

CATALOG_READS = _spec("registry_reads_total", "catalog reads", "kind")
SINK_DEPTH = _spec("telemetry_sink_depth", "records waiting", "sink")
SINK_DROPPED = _spec("telemetry_sink_dropped_total", "records dropped", "sink")
LOOP_LAG = _spec("loop_lag_seconds", "how late the event loop runs", "", _FAST_SECONDS)

DECLARED = frozenset(value for value in list(globals().values()) if isinstance(value, Spec))

_Metric = TypeVar("_Metric", Counter, Gauge, Histogram)


class Metrics:
    """The metrics of one process, in its own registry; each is made when first asked for."""

    def __init__(self, *, version: str, commit: str = UNKNOWN) -> None:
        self.registry = CollectorRegistry()
        self._made: dict[Spec, Counter | Gauge | Histogram] = {}
        self.gauge(BUILD_INFO).labels(version, commit).set(1)

    def counter(self, spec: Spec) -> Counter:
        """Return the counter of a declared name."""
        return self._get(spec, Counter)

    def gauge(self, spec: Spec) -> Gauge:
        """Return the gauge of a declared name."""
        return self._get(spec, Gauge)

    def histogram(self, spec: Spec) -> Histogram:
        """Return the histogram of a declared name, with its buckets."""
        return self._get(spec, Histogram)

    def _get(self, spec: Spec, kind: type[_Metric]) -> _Metric:
        made = self._made.get(spec)
        if made is None:
            if spec not in DECLARED:
                raise ValueError(f"metric {spec.name} is not declared")
            options: dict[str, Any] = {"buckets": spec.buckets} if kind is Histogram else {}
            made = kind(spec.name, spec.doc, spec.labels, registry=self.registry, **options)
            self._made[spec] = made
        if not isinstance(made, kind):
            raise TypeError(f"metric {spec.name} is of another kind")
        return made


def model_label(model: str, catalog: Container[str]) -> str:
    """Return the label of a model: its id where the catalog has it, else `unknown`."""
    return model if model in catalog else UNKNOWN
