"""Every metric, label and span name of the mesh: a closed list, declared before code may use it.

A room takes one `Metrics` and asks it for declared metrics; each process has its own registry.
A declaration says everything that a reader needs: kind, unit, labels and what they may say
(`labels`). `docs/operations/telemetry.md` compares the list with what operators asked for.
"""

from collections.abc import Container, Sequence
from typing import Literal, TypeVar, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from darkbloom_mesh import labels as says
from darkbloom_mesh.closed import Closed, Spec, make
from darkbloom_mesh.labels import Vocabulary

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_FAST_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1, 5)
_TTFT_SECONDS = (0.1, 0.25, 0.5, 1, 2, 3, 5, 7.5, 9, 10, 15, 30, 60, 120)
_COST_MS = (10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0, 10_000.0, 30_000.0, 100_000.0)
_TOKENS_PER_SECOND = (5, 10, 15, 20, 30, 50, 80, 120, 200)
_ROWS = (1, 2, 4, 8, 16, 32, 64)
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
SPANS: tuple[str, ...] = get_args(SpanName)
SPAN_ATTRIBUTES = (
    *("attempt", "attempt_id", "hedge", "chip_family", "outcome", "final_status"),
    *("candidates", "first_content_ms", "http.response.status_code", "error.type"),
)
"""What spans may say; the collector lets nothing else through."""


def _named(labels: dict[str, Vocabulary]) -> tuple[tuple[str, Vocabulary], ...]:
    """Return labels in order; `class_` is the label `class`."""
    return tuple((name.rstrip("_"), vocabulary) for name, vocabulary in labels.items())


def _counter(name: str, doc: str, unit: str = "", **labels: Vocabulary) -> Spec:
    return Spec(f"darkbloom_{name}", doc, "counter", unit, _named(labels))


def _gauge(name: str, doc: str, unit: str = "", **labels: Vocabulary) -> Spec:
    return Spec(f"darkbloom_{name}", doc, "gauge", unit, _named(labels))


def _histogram(
    name: str,
    doc: str,
    unit: str = "seconds",
    buckets: tuple[float, ...] = _SECONDS,
    **labels: Vocabulary,
) -> Spec:
    return Spec(f"darkbloom_{name}", doc, "histogram", unit, _named(labels), buckets)


BUILD_INFO = _gauge(
    "build_info", "always 1; what runs here", version=says.VERSION, commit=says.VERSION
)
LABELS_FOLDED = _counter(
    "labels_folded_total",
    "values outside of a label's list, counted as `other`; must be 0",
    metric=says.METRIC,
)
RPC_SERVED = _counter(
    "rpc_served_total", "calls served", method=says.RPC_METHOD, status=says.RPC_STATUS
)
RPC_SECONDS = _histogram(
    "rpc_served_seconds",
    "time of calls, not streams",
    buckets=_FAST_SECONDS,
    method=says.RPC_METHOD,
)
RPC_IN_FLIGHT = _gauge("rpc_in_flight", "calls and streams being served", method=says.RPC_METHOD)
CALLERS_REFUSED = _counter(
    "callers_refused_total", "calls by the wrong room", method=says.RPC_METHOD, caller=says.ROOM
)
TLS_EXPIRY = _gauge(
    "tls_certificate_expiry_seconds", "Unix time at which our certificate ends", "seconds"
)
TLS_RELOADS = _gauge("tls_reloads", "changed certificate files", result=says.RELOAD)
LANES = _gauge("lanes", "open lanes", link=says.LINK)
LANE_ENDS = _counter("lane_ends_total", "ended lanes", link=says.LINK, reason=says.LANE_END)
LANE_FRAMES = _counter(
    "lane_frames_total", "frames of ended lanes", link=says.LINK, direction=says.DIRECTION
)
FRAMES_IGNORED = _counter(
    "frames_ignored_total", "frames that changed nothing", link=says.LINK, reason=says.IGNORED
)
SINK_DEPTH = _gauge("telemetry_sink_depth", "records that wait", sink=says.SINK)
SINK_DROPPED = _counter("telemetry_sink_dropped_total", "records that were dropped", sink=says.SINK)
SINK_WRITTEN = _counter("telemetry_sink_written_total", "records that arrived", sink=says.SINK)
LOOP_LAG = _histogram("loop_lag_seconds", "how late the event loop runs", buckets=_FAST_SECONDS)

PREFIX_BYTES = _gauge(
    "provider_prefix_bytes", "kept beginnings of prompts", "bytes", tier=says.PREFIX_TIER
)
PREFIX_COUNTS = _gauge(
    "provider_prefix", "the prefix cache since the engine's start", count=says.PREFIX_COUNT
)

HTTP_REQUESTS = _counter(
    "http_requests_total",
    "HTTP requests",
    method=says.HTTP_METHOD,
    route=says.ROUTE,
    status=says.HTTP_STATUS,
)
HTTP_SECONDS = _histogram(
    "http_request_seconds",
    "time to answer",
    method=says.HTTP_METHOD,
    route=says.ROUTE,
    status=says.HTTP_STATUS,
)
RECEIVED = _counter("requests_received_total", "inference requests", endpoint=says.ENDPOINT)
INFLIGHT = _gauge("requests_inflight", "inference requests that are being answered")
OUTCOMES = _counter(
    "request_outcomes_total",
    "ended inference requests",
    model=says.MODEL,
    class_=says.REQUEST_CLASS,
)
PHASE_SECONDS = _histogram(
    "request_phase_seconds", "where time goes", buckets=_FAST_SECONDS, phase=says.PHASE
)
TTFT_SECONDS = _histogram(
    "ttft_seconds", "time to first content", buckets=_TTFT_SECONDS, model=says.MODEL
)
DECODE_RATE = _histogram(
    "decode_tokens_per_second",
    "pace of an answer",
    "tokens/second",
    buckets=_TOKENS_PER_SECOND,
    model=says.MODEL,
)
TOKENS = _counter("tokens_total", "tokens opened", "tokens", model=says.MODEL, kind=says.TOKEN_KIND)
RECOUNTS = _counter(
    "token_recounts_total",
    "answers whose tokens were counted again",
    model=says.MODEL,
    outcome=says.RECOUNT,
)
CLIENT_GONE = _counter(
    "client_gone_total", "consumers that left", model=says.MODEL, phase=says.GONE_PHASE
)
SYNTHETIC = _counter("synthetic_requests_total", "questions of the prober", outcome=says.PROBE)
SYNTHETIC_SUCCESS = _gauge("synthetic_success_seconds", "Unix time of the last answer", "seconds")
RATE_LIMITED = _counter(
    "ratelimit_rejections_total", "refused for pace", tier=says.TIER, dimension=says.DIMENSION
)
RECEIPTS = _counter("receipts_total", "receipts made", outcome=says.RECEIPT)
SEALED_REQUESTS = _counter(
    "sealed_requests_total", "requests sealed by consumers", outcome=says.SEALED
)

DISPATCHES = _counter(
    "dispatches_total", "attempts by what became of their dispatch", status=says.DISPATCH
)
ATTEMPT_OUTCOMES = _counter(
    "attempt_outcomes_total",
    "ended attempts, each once",
    model=says.MODEL,
    class_=says.ATTEMPT_CLASS,
)
QUEUE_OUTCOMES = _counter(
    "queue_outcomes_total", "ended waits", model=says.MODEL, class_=says.WAIT_END
)
INFERENCE_ERRORS = _counter(
    "inference_errors_total", "failed attempts", model=says.MODEL, reason=says.ERROR
)
PARTIAL_SUCCESS = _counter(
    "partial_success_total", "answers that broke after content", model=says.MODEL
)
NO_TERMINAL = _counter("no_terminal_after_cancel_total", "cancels unanswered", model=says.MODEL)
CANCELS = _counter(
    "cancel_total", "cancelled attempts", cause=says.CANCEL_CAUSE, outcome=says.CANCEL_OUTCOME
)
CANCEL_SECONDS = _histogram("cancel_to_terminal_seconds", "time to stop", cause=says.CANCEL_CAUSE)
DECISIONS = _counter(
    "routing_decisions_total", "routing decisions", model=says.MODEL, outcome=says.DECISION
)
SELECTION_PATHS = _counter("routing_paths_total", "how winners came to be", path=says.PATH)
ROUTING_AUDITS = _counter("routing_audits_total", "decisions checked in full", outcome=says.AUDIT)
COST_MS = _histogram(
    "routing_cost_ms", "price of winners", "milliseconds", buckets=_COST_MS, model=says.MODEL
)
PROVIDER_SELECTED = _counter(
    "routing_provider_selected_total", "winners", model=says.MODEL, trust=says.TRUST
)
HEDGES = _counter("speculative_dispatch_total", "second offers", model=says.MODEL)
HEDGE_WINS = _counter(
    "speculative_win_total", "second offers that had the first content", model=says.MODEL
)
HEDGES_SUPPRESSED = _counter(
    "hedge_governor_suppressed_total", "second offers not made", verdict=says.HEDGE_VERDICT
)
SCAN_SECONDS = _histogram(
    "routing_scan_seconds", "time to choose", buckets=_FAST_SECONDS, model=says.MODEL
)
QUEUE_DEPTH = _gauge("queue_depth", "requests that wait", model=says.MODEL)
QUEUE_AGE = _gauge(
    "queue_oldest_age_seconds", "age of who waits longest", "seconds", model=says.MODEL
)
BREAKERS = _counter(
    "breaker_transitions_total",
    "breakers, cooldowns and ejections that began",
    model=says.MODEL,
    kind=says.BREAKER,
)
PREFIX_HINTS = _counter(
    "prefix_cache_hints_total",
    "attempts sent where their prompt's beginning was read before",
    model=says.MODEL,
    outcome=says.HINT,
)
WARM_POOL = _gauge(
    "warm_pool_machines", "machines that hold a build", model=says.MODEL, which=says.POOL
)
LOAD_COMMANDS = _counter(
    "load_commands_total", "commands to load a build", model=says.MODEL, outcome=says.LOAD
)

CAPACITY_TPS = _gauge(
    "capacity_tps",
    "decode pace of routable machines that hold a build, summed",
    "tokens/second",
    model=says.MODEL,
)
SERVING_CAPACITY = _gauge(
    "serving_capacity", "attempts that those machines take at once", model=says.MODEL
)
DEMAND = _gauge("demand_concurrency", "attempts that run and requests that wait", model=says.MODEL)
UTILIZATION = _gauge(
    "utilization_ratio",
    "demand in parts of the serving capacity; absent without one",
    "ratio",
    model=says.MODEL,
)
PROVIDERS = _gauge("providers", "connected providers", state=says.PROVIDER_STATE, trust=says.TRUST)
PROVIDER_RELEASES = _gauge(
    "provider_releases", "connected providers by release", release=says.RELEASE
)
PROVIDER_MEMORY = _gauge(
    "provider_memory_bytes",
    "memory of connected providers, summed",
    "bytes",
    kind=says.MEMORY,
    chip_family=says.CHIP,
)
CHALLENGE_AGE = _gauge(
    "challenge_oldest_age_seconds",
    "age of the oldest passed challenge of an online provider",
    "seconds",
)
VALKEY_UP = _gauge("valkey_up", "1 while Valkey answers this replica, else 0")
PROVIDER_STREAMS = _gauge("provider_streams", "open provider streams")
STREAM_OPENS = _counter("provider_stream_opens_total", "opened provider streams")
STREAM_CLOSES = _counter(
    "provider_stream_closes_total", "closed provider streams", reason=says.LANE_END
)
STREAMS_REFUSED = _counter(
    "provider_streams_refused_total", "provider streams not let in", reason=says.NOT_LET_IN
)
REGISTRATIONS = _counter("provider_registrations_total", "registrations", trust_level=says.TRUST)
VERSION_FLOOR = _counter(
    "version_floor_rejects_total", "agents older than any that is routed", gate=says.FLOOR_GATE
)
SUSPECTED = _counter(
    "provider_suspected_total", "suspected faults and lies", model=says.MODEL, kind=says.SUSPICION
)

CHALLENGES = _counter("attestation_challenges_total", "challenges", outcome=says.CHALLENGE)
ATTESTATION_FAILURES = _counter(
    "attestation_failures_total", "failed evidence", reason=says.EVIDENCE_FAULT
)
RELEASE_EVIDENCE = _counter(
    "release_evidence_total", "code releases checked", outcome=says.RELEASE_KNOWN
)
HELD_RELEASES = _gauge("held_releases", "active releases that are offered to nobody")
VERDICTS = _counter(
    "attestation_verdicts_total", "verdicts issued", level=says.TRUST, admission=says.ADMISSION
)
DEVICES_ASKED = _counter(
    "device_questions_total", "sessions whose device the manager was to ask", outcome=says.MDM
)
PUSH_CERTIFICATE_EXPIRY = _gauge(
    "device_manager_push_certificate_expiry_seconds",
    "Unix time at which the device manager's push certificate ends; 0 while it is not known",
    "seconds",
)
CODE_PUSHES = _counter(
    "code_attest_total", "pushes that challenge a device's code", outcome=says.PUSH
)

HOLDS = _counter("billing_holds_total", "holds", result=says.HOLD)
SETTLEMENTS = _counter("billing_settlements_total", "settlements", result=says.SETTLEMENT)
RELEASES = _counter("billing_releases_total", "holds released or swept", result=says.RELEASED)
LEDGER_IMBALANCE = _gauge("billing_ledger_imbalance_micros", "must be 0", "micro-USD")
AUDIT_VIOLATIONS = _gauge("billing_audit_violations", "open violations of the books; must be 0")
SEALED_BLOCKS = _gauge("billing_sealed_blocks", "height of the sealed history")
BACKUP_VERIFIED = _gauge(
    "billing_backup_verified_timestamp_seconds",
    "when the restore began by which a backup was last found sound; 0: never",
    "seconds",
)
MATURED = _counter("billing_matured_micros_total", "earnings that became spendable", "micro-USD")
OUTBOX_AGE = _gauge(
    "billing_outbox_age_seconds", "age of the oldest job owed to the outside", "seconds"
)
STRIPE_EVENTS = _counter("billing_stripe_events_total", "webhooks", outcome=says.WEBHOOK)
WITHDRAWALS = _counter(
    "billing_withdrawals_total", "changes of withdrawals", status=says.WITHDRAWAL
)
LATE_WITHDRAWALS = _gauge("billing_withdrawals_overdue", "not final after 48 h")
STRIPE_DRIFT = _gauge("billing_stripe_drift_micros", "unexplained difference", "micro-USD")
OLD_HOLDS = _gauge("billing_holds_overdue", "holds past their lease")
BATCH_ROWS = _histogram(
    "billing_batch_rows", "rows in a natural batch", "", buckets=_ROWS, kind=says.BATCH
)

CATALOG_READS = _counter("registry_reads_total", "catalog reads", kind=says.CATALOG_READ)
CATALOG_GENERATION = _gauge("catalog_generation", "newest catalog here, and where it is written")
PREFETCH_PROVIDERS = _gauge(
    "model_prefetch_providers",
    "machines by how far they are with a build",
    model=says.MODEL,
    state=says.STAGE,
)
ROLLOUT_CONVERGED = _gauge(
    "rollout_converged_ratio",
    "share of machines asked that hold the build of a rollout",
    "ratio",
    model=says.MODEL,
)
ROLLOUT_OVERDUE = _gauge(
    "rollout_overdue_seconds",
    "how long a step lasts beyond its soak",
    "seconds",
    model=says.MODEL,
)

DECLARED = frozenset(value for value in list(globals().values()) if isinstance(value, Spec))


def declared() -> Sequence[Spec]:
    """Return the whole list by name, for tables and tools."""
    return sorted(DECLARED, key=lambda spec: spec.name)


_Metric = TypeVar("_Metric", Counter, Gauge, Histogram)


class Metrics:
    """The metrics of one process, in its own registry; each is made when first asked for."""

    def __init__(self, *, version: str, commit: str = UNKNOWN) -> None:
        self.registry = CollectorRegistry()
        self._made: dict[Spec, Closed] = {}
        self.gauge(BUILD_INFO).labels(version, commit).set(1)
        self._folded = self.counter(LABELS_FOLDED)

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
            made = make(spec, self.registry, lambda: self._folded.labels(spec.name).inc())
            self._made[spec] = made
        if not isinstance(made, kind):
            raise TypeError(f"metric {spec.name} is a {spec.kind}")
        return made


def model_label(model: str, catalog: Container[str]) -> str:
    """Return the label of a model: its id where the catalog has it, else `unknown`."""
    return model if model in catalog else UNKNOWN
