"""The prefix cache as metrics: sizes and sums, without identifiers."""

from collections.abc import Callable
from typing import Final

from darkbloom_mesh.clock import Clock
from darkbloom_mesh.telemetry import PREFIX_BYTES, PREFIX_COUNTS, Metrics

from darkbloom_provider.engine.interface import Engine

INTERVAL_S: Final = 5.0
COUNTS: Final = (
    "lookups",
    "hits",
    "hit_tokens",
    "disk_tokens",
    "evicted",
    "disk_written",
    "disk_bad",
    "disk_dropped",
)


async def publish(engine: Callable[[], Engine | None], metrics: Metrics, clock: Clock) -> None:
    """Set the gauges every few seconds, while there is an engine; for ever."""
    while True:
        present = engine()
        if present is not None:
            report(present, metrics)
        await clock.sleep(INTERVAL_S)


def report(engine: Engine, metrics: Metrics) -> None:
    """Set the gauges once."""
    facts = engine.prefix_cache()
    if facts is None:
        return
    sizes = metrics.gauge(PREFIX_BYTES)
    sizes.labels("memory").set(facts.memory_bytes)
    sizes.labels("disk").set(facts.disk_bytes)
    counts = metrics.gauge(PREFIX_COUNTS)
    for name in COUNTS:
        counts.labels(name).set(getattr(facts, name))
