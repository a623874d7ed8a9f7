"""What a run has shown: a table for people and one JSON object for tools."""

import resource
import sys
from dataclasses import asdict
from typing import Any

from darkbloom_router.simulate.ledger import gini, percentile
from darkbloom_router.simulate.run import WARM_UP_S, Outcome

MEASURED = (
    "choice_ms",
    "decision_p50_ms",
    "decision_p99_ms",
    "decision_wall_p99_ms",
    "collector_pauses",
    "collector_most_ms",
    "memory_mb",
    "cpu_s",
    "wall_s",
)
"""Fields that the machine under the simulation decides; all others follow from the seed."""


def figures(outcome: Outcome, wall_s: float, cpu_s: float) -> dict[str, Any]:
    """Return everything, in the order in which it is read.

    Args:
        outcome: Of the run.
        wall_s: How long it took.
        cpu_s: Processor time that it took.
    """
    ledger, scenario, meter = outcome.ledger, outcome.scenario, outcome.core.meter
    received, waits = max(1, ledger.received), meter.waits
    ttft = [1000 * seconds for seconds in ledger.ttft_s]
    decisions = [1000 * seconds for seconds in meter.decision_s]
    walls = [1000 * seconds for seconds in outcome.core.stopwatch.wall_s]
    earned = [float(ledger.earned[one.body.name]) for one in outcome.machines]
    per_capacity = [
        tokens / (one.body.capacity_tps * one.connected_s)
        for tokens, one in zip(earned, outcome.machines, strict=True)
        if one.connected_s > 0
    ]
    return {
        "providers": scenario.providers,
        "builds": scenario.builds,
        "minutes": scenario.minutes,
        "load": scenario.load,
        "churn": scenario.churn,
        "seed": scenario.seed,
        "selection": scenario.selection.value,
        "scan": "full" if scenario.full_scan else "sample",
        "warm_pool": scenario.warm_pool,
        "shift_minutes": scenario.shift_minutes,
        "offered_per_s": round(outcome.offered_per_s, 3),
        "received": ledger.received,
        "complete": ledger.complete,
        "uptime": round(1 - ledger.down / received, 6),
        "served_ratio": round(ledger.complete / received, 6),
        "served_by_tokens": {
            name: round(ledger.complete_sizes[name] / count, 4)
            for name, count in sorted(ledger.sizes.items())
        },
        "ttft_p50_ms": round(percentile(ttft, 0.50), 1),
        "ttft_p95_ms": round(percentile(ttft, 0.95), 1),
        "ttft_p99_ms": round(percentile(ttft, 0.99), 1),
        "open_mean_s": round(ledger.open_s / max(1, ledger.complete), 2),
        "prompt_mean_tokens": round(ledger.prompt_tokens / received, 1),
        "output_mean_tokens": round(ledger.output_tokens / max(1, ledger.complete), 1),
        "queued_ratio": round((waits.total() - waits["full"]) / received, 6),
        "waits": dict(sorted(waits.items())),
        "refusals": dict(sorted(ledger.refusals.items())),
        "hedges": ledger.hedges,
        "races": dict(sorted(meter.races.items())),
        "loads": dict(sorted(meter.loads.items())),
        "cold_loads": sum(one.cold_loads for one in outcome.machines),
        "broken": ledger.broken,
        "lost_after_commit": ledger.lost_by_router,
        "waited_past_deadline": ledger.late,
        "earnings_gini": round(gini(per_capacity), 4),
        "earnings_gini_raw": round(gini(earned), 4),
        "utilisation": round(sum(earned) / (outcome.capacity_tps * scenario.duration_s), 4),
        "audits_agreed": meter.audits["agreed"],
        "audits_disagreed": meter.audits["disagreed"],
        "messages_per_s": {
            name: round(count / max(1e-9, scenario.duration_s - WARM_UP_S), 1)
            for name, count in asdict(outcome.carried).items()
        },
        "decisions": len(decisions),
        "choice_ms": round(sum(decisions) / received, 4),
        "decision_p50_ms": round(percentile(decisions, 0.50), 4),
        "decision_p99_ms": round(percentile(decisions, 0.99), 4),
        "decision_wall_p99_ms": round(percentile(walls, 0.99), 4),
        "collector_pauses": outcome.collector.pauses,
        "collector_most_ms": round(1000 * outcome.collector.most_s, 1),
        "memory_mb": round(_memory_mb(), 1),
        "events": outcome.core.timers.events,
        "cpu_s": round(cpu_s, 1),
        "wall_s": round(wall_s, 1),
    }


def table(found: dict[str, Any]) -> str:
    """Return the figures as lines of a table."""
    width = max(map(len, found))
    lines = []
    for name, value in found.items():
        text = (
            ", ".join(f"{key} {count}" for key, count in value.items()) or "none"
            if isinstance(value, dict)
            else f"{value}"
        )
        lines.append(f"{name:<{width}}  {text}")
    return "\n".join(lines)


def _memory_mb() -> float:
    """Return the most memory that this process ever held."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (1 << 20) if sys.platform == "darwin" else most / 1024
