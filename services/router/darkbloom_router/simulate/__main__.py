"""`python -m darkbloom_router.simulate`: simulate a fleet, print a table and, last, one JSON."""

import argparse
import json
import logging
import sys
from dataclasses import replace
from time import perf_counter, process_time
from typing import Any

import structlog

from darkbloom_router.model import Selection
from darkbloom_router.simulate.ledger import Ledger
from darkbloom_router.simulate.report import figures, table
from darkbloom_router.simulate.run import run
from darkbloom_router.simulate.scenario import Scenario

_REPORT_S = 5.0
OTHERS: dict[str, dict[str, Any]] = {
    "scan": {"full_scan": True},
    "selection": {"selection": Selection.FIRST_CONTENT},
    "warm-pool": {"warm_pool": False},
}
"""What the second run of a comparison changes."""
RATIOS = ("served_ratio", "uptime", "ttft_p50_ms", "ttft_p95_ms", "ttft_p99_ms", "earnings_gini")


class Progress:
    """Tells a person now and then how far a run is."""

    def __init__(self, minutes: float) -> None:
        self.started = self._told = perf_counter()
        self._minutes = minutes

    def __call__(self, moment: float, ledger: Ledger) -> None:
        """Take how far it is."""
        now = perf_counter()
        if now - self._told < _REPORT_S:
            return
        self._told = now
        sys.stderr.write(
            f"{moment / 60:6.1f} of {self._minutes:g} min, {ledger.received} requests, "
            f"{ledger.complete} complete, {now - self.started:.0f} s\n"
        )


def main(arguments: list[str] | None = None) -> int:
    """Run one scenario; returns the exit code."""
    known = Scenario()
    parser = argparse.ArgumentParser(prog="make simulate", description=__doc__)
    add = parser.add_argument
    add("--providers", type=int, default=known.providers, help="machines, 100 to 100000")
    add("--minutes", type=float, default=known.minutes, help="virtual minutes of traffic")
    add("--churn", type=float, default=known.churn, help="share that leaves per ten minutes")
    add("--load", type=float, default=known.load, help="offered tokens ÷ decode capacity")
    add("--seed", type=int, default=known.seed)
    add("--builds", type=int, default=known.builds, help="builds, asked for by Zipf 1.0")
    add("--selection", choices=[one.value for one in Selection], default=known.selection.value)
    add("--scan", choices=["sample", "full"], default="sample", help="whom a decision prices")
    add("--no-warm-pool", action="store_true", help="nobody loads builds ahead of demand")
    add("--shift", type=float, default=known.shift_minutes, help="minutes until demand moves on")
    add(
        "--cold", type=float, default=known.cold, help="share that holds nothing in memory at first"
    )
    add("--compare", choices=sorted(OTHERS), help="run twice, and say how the two differ")
    add("--json", action="store_true", help="only the JSON, without the table")
    given = parser.parse_args(arguments)
    if given.providers < 1 or given.builds < 1 or given.minutes <= 0 or given.load <= 0:
        parser.error("providers, builds, minutes and load must be above 0")

    scenario = Scenario(
        providers=given.providers,
        minutes=given.minutes,
        churn=given.churn,
        load=given.load,
        seed=given.seed,
        builds=given.builds,
        selection=Selection(given.selection),
        full_scan=given.scan == "full",
        warm_pool=not given.no_warm_pool,
        shift_minutes=given.shift,
        cold=given.cold,
    )
    found = simulated(scenario)
    if not given.json:
        sys.stdout.write(table(found) + "\n")
    if given.compare:
        other = simulated(replace(scenario, **OTHERS[given.compare]))
        if not given.json:
            sys.stdout.write("\n" + table(other) + "\n")
        found = {"compared": given.compare, "ratios": ratios(found, other)} | {
            "first": found,
            "second": other,
        }
    sys.stdout.write(json.dumps(found) + "\n")
    return 0


def simulated(scenario: Scenario) -> dict[str, Any]:
    """Run one scenario and return its figures."""
    progress, started = Progress(scenario.minutes), process_time()
    outcome = run(scenario, progress)
    return figures(outcome, perf_counter() - progress.started, process_time() - started)


def ratios(first: dict[str, Any], second: dict[str, Any]) -> dict[str, float]:
    """Return the first run's figures as multiples of the second's, where both have any."""
    return {name: round(first[name] / second[name], 4) for name in RATIOS if second[name]}


if __name__ == "__main__":
    # What parts of the router log is for those who run one; the last line here is JSON.
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    sys.exit(main())
