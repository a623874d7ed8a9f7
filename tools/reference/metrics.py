"""`docs/reference/metrics.md`: every declared metric."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from darkbloom_mesh import telemetry

from tools.reference.markdown import NOTE, cell, code, table


def page() -> str:
    """Return the page."""
    rows = [
        (code(spec.name), ", ".join(map(code, spec.labels)), cell(spec.doc)) for spec in _declared()
    ]
    return (
        "# Metrics\n\n"
        f"{NOTE}\n\n"
        "Each process serves its own at `/metrics` on `DARKBLOOM_<ROOM>_METRICS_LISTEN`, in Prometheus' text format. Code may use no other name. "
        "Names ending in `_total` are counters. Labels are closed words; `model` is an id of the catalog or `unknown`. "
        "Rules and dashboards over them: [operations](../operations/README.md).\n\n"
        + table(("Metric", "Labels", ""), rows).rstrip("\n")
        + "\n"
    )


def _declared() -> Iterable[Any]:
    return sorted(telemetry.DECLARED, key=lambda spec: spec.name)
