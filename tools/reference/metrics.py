"""`docs/reference/metrics.md`: every declared metric, and what each label may say."""

from __future__ import annotations

from collections.abc import Sequence

from darkbloom_mesh import telemetry
from darkbloom_mesh.closed import Spec
from darkbloom_mesh.labels import Vocabulary, Words

from tools.reference.markdown import NOTE, cell, code, table


def page() -> str:
    """Return the page."""
    specs = sorted(telemetry.DECLARED, key=lambda spec: spec.name)
    rows = [
        (
            code(spec.name),
            spec.kind,
            spec.unit,
            ", ".join(map(code, spec.labels)),
            cell(spec.doc),
        )
        for spec in specs
    ]
    return (
        "# Metrics\n\n"
        f"{NOTE}\n\n"
        "Each process serves its own at `/metrics` on `DARKBLOOM_<ROOM>_METRICS_LISTEN`, in Prometheus' text format. Code may use no other name. "
        "A label says one of its words, below; any other value is counted as `other`, and how often that happens is `darkbloom_labels_folded_total`. "
        "Rules and dashboards: [operations](../operations/README.md).\n\n"
        + table(("Metric", "Kind", "Unit", "Labels", ""), rows)
        + "## Labels\n\n"
        + table(("Label", "Of", "Says"), _labels(specs))
        + "## Buckets\n\n"
        + table(
            ("Histogram", "Upper bounds"),
            [
                (code(spec.name), ", ".join(f"{bound:g}" for bound in spec.buckets))
                for spec in specs
                if spec.buckets
            ],
        )
        + "## Spans\n\n"
        + "Names of traces' spans; a provider's own stay on its machine.\n\n"
        + "".join(f"- {code(name)}\n" for name in telemetry.SPANS)
    )


def _labels(specs: Sequence[Spec]) -> list[tuple[str, str, str]]:
    """Return each label with each of its vocabularies, and the metrics that have it."""
    found: dict[tuple[str, Vocabulary], list[str]] = {}
    for spec in specs:
        for name, vocabulary in spec.vocabulary:
            found.setdefault((name, vocabulary), []).append(spec.name)
    rows = [
        (code(name), ", ".join(map(code, metrics)), _said(vocabulary))
        for (name, vocabulary), metrics in found.items()
    ]
    return sorted(rows)


def _said(vocabulary: Vocabulary) -> str:
    if isinstance(vocabulary, Words):
        return ", ".join(map(code, sorted(vocabulary.words)))
    return cell(f"{vocabulary.kind}; {vocabulary.limit} at most")
