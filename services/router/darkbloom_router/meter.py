"""What the router counts, with labels bound once so that counting costs next to nothing."""

from collections.abc import Container, Mapping
from typing import Generic, Protocol, TypeVar

from darkbloom_mesh import telemetry
from darkbloom_mesh.telemetry import Metrics, model_label

from darkbloom_router.figures import BuildFigures, FleetFigures

ChildT_co = TypeVar("ChildT_co", covariant=True)


class Family(Protocol[ChildT_co]):
    """A metric with labels."""

    def labels(self, *values: str) -> ChildT_co:
        """Return its child of some label values."""
        ...


class Children(Generic[ChildT_co]):
    """The children of a metric by label values, each looked up once.

    A look-up costs as much as counting. Only for what every request counts; label values are
    closed lists, so there are few. Not for a metric that is cleared: its children would count for
    nobody.
    """

    def __init__(self, family: Family[ChildT_co]) -> None:
        self._family = family
        self._known: dict[tuple[str, ...], ChildT_co] = {}

    def labels(self, *values: str) -> ChildT_co:
        """Return the child of some label values."""
        child = self._known.get(values)
        if child is None:
            child = self._known[values] = self._family.labels(*values)
        return child


class Meter:
    """The router's metrics; `model` labels are catalog builds or `unknown`."""

    def __init__(self, metrics: Metrics) -> None:
        self.catalog: Container[str] = ()
        self._decisions = Children(metrics.counter(telemetry.DECISIONS))
        self._dispatches = Children(metrics.counter(telemetry.DISPATCHES))
        self._outcomes = Children(metrics.counter(telemetry.ATTEMPT_OUTCOMES))
        self._errors = metrics.counter(telemetry.INFERENCE_ERRORS)
        self._partial = metrics.counter(telemetry.PARTIAL_SUCCESS)
        self._queue = metrics.counter(telemetry.QUEUE_OUTCOMES)
        self._cancels = metrics.counter(telemetry.CANCELS)
        self._cancel_seconds = metrics.histogram(telemetry.CANCEL_SECONDS)
        self._no_terminal = metrics.counter(telemetry.NO_TERMINAL)
        self._ignored = metrics.counter(telemetry.FRAMES_IGNORED)
        self._settlements = Children(metrics.counter(telemetry.SETTLEMENTS))
        self._challenges = metrics.counter(telemetry.CHALLENGES)
        self._evidence = metrics.counter(telemetry.ATTESTATION_FAILURES)
        self._refused = metrics.counter(telemetry.STREAMS_REFUSED)
        self._registrations = metrics.counter(telemetry.REGISTRATIONS)
        self._opens = metrics.counter(telemetry.STREAM_OPENS)
        self._closes = metrics.counter(telemetry.STREAM_CLOSES)
        self._streams = metrics.gauge(telemetry.PROVIDER_STREAMS)
        self._providers = metrics.gauge(telemetry.PROVIDERS)
        self._valkey = metrics.gauge(telemetry.VALKEY_UP)
        self._paths = Children(metrics.counter(telemetry.SELECTION_PATHS))
        self._audits = metrics.counter(telemetry.ROUTING_AUDITS)
        self._sink_dropped = metrics.counter(telemetry.SINK_DROPPED)
        self._hedges, self._hedge_wins = map(
            metrics.counter, (telemetry.HEDGES, telemetry.HEDGE_WINS)
        )
        self._hedges_refused = metrics.counter(telemetry.HEDGES_SUPPRESSED)
        self._cost = Children(metrics.histogram(telemetry.COST_MS))
        self._selected = Children(metrics.counter(telemetry.PROVIDER_SELECTED))
        self._breakers = metrics.counter(telemetry.BREAKERS)
        self._scan = Children(metrics.histogram(telemetry.SCAN_SECONDS))
        self._depth = metrics.gauge(telemetry.QUEUE_DEPTH)
        self._age = metrics.gauge(telemetry.QUEUE_AGE)
        self._pool = metrics.gauge(telemetry.WARM_POOL)
        self._generation = metrics.gauge(telemetry.CATALOG_GENERATION)
        self._loads = metrics.counter(telemetry.LOAD_COMMANDS)
        self._hints = metrics.counter(telemetry.PREFIX_HINTS)
        self._suspicions = metrics.counter(telemetry.SUSPECTED)
        self._too_old = metrics.counter(telemetry.VERSION_FLOOR)
        self._sink_depth = metrics.gauge(telemetry.SINK_DEPTH).labels("routing")
        self._sink_written = metrics.counter(telemetry.SINK_WRITTEN).labels("routing")
        self._tps = metrics.gauge(telemetry.CAPACITY_TPS)
        self._serving = metrics.gauge(telemetry.SERVING_CAPACITY)
        self._demand = metrics.gauge(telemetry.DEMAND)
        self._utilization = metrics.gauge(telemetry.UTILIZATION)
        self._releases = metrics.gauge(telemetry.PROVIDER_RELEASES)
        self._memory = metrics.gauge(telemetry.PROVIDER_MEMORY)
        self._challenge_age = metrics.gauge(telemetry.CHALLENGE_AGE)
        self._lanes = metrics.gauge(telemetry.LANES)
        self._lane_ends = metrics.counter(telemetry.LANE_ENDS)
        self._lane_frames = metrics.counter(telemetry.LANE_FRAMES)

    def decided(self, build: str, outcome: str, seconds: float) -> None:
        """Count one routing decision and its time."""
        model = model_label(build, self.catalog)
        self._decisions.labels(model, outcome).inc()
        self._scan.labels(model).observe(seconds)

    def path(self, path: str) -> None:
        """Count how a winner came to be."""
        self._paths.labels(path).inc()

    def audited(self, outcome: str) -> None:
        """Count a decision that was compared with the whole chain over everybody."""
        self._audits.labels(outcome).inc()

    def unrecorded(self, rows: int) -> None:
        """Count decision records that were given up."""
        self._sink_dropped.labels("routing").inc(rows)

    def hedged(self, build: str) -> None:
        """Count a second offer."""
        self._hedges.labels(model_label(build, self.catalog)).inc()

    def hedge_won(self, build: str) -> None:
        """Count a second offer that had the first content."""
        self._hedge_wins.labels(model_label(build, self.catalog)).inc()

    def hedge_suppressed(self, verdict: str) -> None:
        """Count a second offer that was not made, and why."""
        self._hedges_refused.labels(verdict).inc()

    def selected(self, build: str, trust: str, price_ms: float) -> None:
        """Count a winner, and what the ranking thought it would cost."""
        model = model_label(build, self.catalog)
        self._selected.labels(model, trust).inc()
        self._cost.labels(model).observe(price_ms)

    def tripped(self, build: str, kind: str) -> None:
        """Count a breaker, cooldown or ejection that opened."""
        self._breakers.labels(model_label(build, self.catalog), kind).inc()

    def dispatched(self, status: str) -> None:
        """Count an attempt by what became of its dispatch."""
        self._dispatches.labels(status).inc()

    def attempt_ended(self, build: str, outcome: str) -> None:
        """Count an ended attempt."""
        self._outcomes.labels(model_label(build, self.catalog), outcome).inc()

    def failed(self, build: str, word: str) -> None:
        """Count a failed attempt by its closed word."""
        self._errors.labels(model_label(build, self.catalog), word).inc()

    def broke(self, build: str) -> None:
        """Count an answer that broke after content."""
        self._partial.labels(model_label(build, self.catalog)).inc()

    def waited(self, build: str, outcome: str) -> None:
        """Count the end of a wait in line."""
        self._queue.labels(model_label(build, self.catalog), outcome).inc()

    def cancelled(self, cause: str, outcome: str) -> None:
        """Count a cancelled attempt."""
        self._cancels.labels(cause, outcome).inc()

    def stopped(self, cause: str, seconds: float) -> None:
        """Note how long a cancelled stream took to stop."""
        self._cancel_seconds.labels(cause).observe(seconds)

    def no_terminal(self, build: str) -> None:
        """Count a stop that no terminal answered in time."""
        self._no_terminal.labels(model_label(build, self.catalog)).inc()

    def ignored(self, link: str, reason: str) -> None:
        """Count a frame that changed nothing."""
        self._ignored.labels(link, reason).inc()

    def settled(self, result: str) -> None:
        """Count the end of a hold as billing told it."""
        self._settlements.labels(result).inc()

    def challenged(self, outcome: str) -> None:
        """Count a challenge."""
        self._challenges.labels(outcome).inc()

    def distrusted(self, reason: str) -> None:
        """Count evidence or behaviour that cost a provider its trust."""
        self._evidence.labels(reason).inc()

    def registered(self, trust_level: str) -> None:
        """Count a registration."""
        self._registrations.labels(trust_level).inc()

    def stream_opened(self) -> None:
        """Count a provider stream."""
        self._opens.inc()
        self._streams.inc()

    def stream_refused(self, reason: str) -> None:
        """Count a provider stream that was not let in."""
        self._refused.labels(reason).inc()

    def stream_closed(self, reason: str) -> None:
        """Count the end of a provider stream."""
        self._streams.dec()
        self._closes.labels(reason).inc()

    def store(self, *, reachable: bool) -> None:
        """Say whether Valkey answers."""
        self._valkey.set(reachable)

    def lane_opened(self, link: str) -> None:
        """Count an open lane."""
        self._lanes.labels(link).inc()

    def lane_closed(self, link: str, reason: str, frames_in: int, frames_out: int) -> None:
        """Count an ended lane and what it carried."""
        self._lanes.labels(link).dec()
        self._lane_ends.labels(link, reason).inc()
        self._lane_frames.labels(link, "in").inc(frames_in)
        self._lane_frames.labels(link, "out").inc(frames_out)

    def generation(self, number: int) -> None:
        """Set by which catalog we route."""
        self._generation.set(number)

    def lines(self, depths: dict[str, tuple[int, float]]) -> None:
        """Set depth and age of every line."""
        self._depth.clear()
        self._age.clear()
        for build, (depth, age_s) in depths.items():
            model = model_label(build, self.catalog)
            self._depth.labels(model).set(depth)
            self._age.labels(model).set(age_s)

    def pooled(self, build: str, warm: int, target: int) -> None:
        """Set how many machines hold a build, and how many should."""
        model = model_label(build, self.catalog)
        self._pool.labels(model, "warm").set(warm)
        self._pool.labels(model, "target").set(target)

    def loaded(self, build: str, outcome: str) -> None:
        """Count a load command: sent, only planned, or how it ended."""
        self._loads.labels(model_label(build, self.catalog), outcome).inc()

    def hinted(self, build: str, *, held: bool) -> None:
        """Count an answer of a machine that was chosen for what it had read before."""
        word = "held" if held else "missed"
        self._hints.labels(model_label(build, self.catalog), word).inc()

    def suspected(self, build: str, kind: str) -> None:
        """Count a machine that behaves as if it had run out of memory, or stuck."""
        self._suspicions.labels(model_label(build, self.catalog), kind).inc()

    def too_old(self) -> None:
        """Count an agent that registers below the version floor."""
        self._too_old.labels("registration").inc()

    def recorded(self, rows: int, waiting: int) -> None:
        """Count decision records that were written, and show how many wait."""
        self._sink_written.inc(rows)
        self._sink_depth.set(waiting)

    def capacity(self, figures: Mapping[str, BuildFigures]) -> None:
        """Set what every build could do and what is asked of it."""
        for gauge in (self._tps, self._serving, self._demand, self._utilization):
            gauge.clear()
        for build, found in figures.items():
            model = model_label(build, self.catalog)
            self._tps.labels(model).set(found.decode_tps)
            self._serving.labels(model).set(found.serving)
            self._demand.labels(model).set(found.demand)
            if found.utilization is not None:
                self._utilization.labels(model).set(found.utilization)

    def fleet(self, figures: FleetFigures) -> None:
        """Set who is connected, by state and trust, release, and memory."""
        for gauge in (self._providers, self._releases, self._memory):
            gauge.clear()
        for (state, trust), count in figures.standing.items():
            self._providers.labels(state, trust).set(count)
        for release, count in figures.releases.items():
            self._releases.labels(release).set(count)
        for (kind, chip), size in figures.memory.items():
            self._memory.labels(kind, chip).set(size)
        self._challenge_age.set(figures.challenge_age_s)
