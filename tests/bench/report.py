"""From findings to what is shown: a table for a person, and one JSON object with the ratios."""

from collections.abc import Iterator, Mapping
from typing import Any

from tests.bench.measure import median, median_cpu_us
from tests.bench.run import Findings
from tests.bench.scenarios import (
    CHUNKS,
    ENDPOINTS,
    FIRST,
    WHOLE_1,
    WHOLE_32,
    Endpoint,
    Scenario,
    at,
)

DIRECT, PROXY, OURS = "upstream", "litellm", "darkbloom"

_ROWS = (
    (WHOLE_1, "p50_ms", "latency p50, ms"),
    (WHOLE_1, "p99_ms", "latency p99, ms"),
    (WHOLE_1, "requests_per_cpu_s", "requests per CPU-second"),
    (WHOLE_32, "requests_per_s", "requests per second"),
    (WHOLE_32, "p50_ms", "latency p50, ms"),
    (WHOLE_32, "p99_ms", "latency p99, ms"),
    (WHOLE_32, "requests_per_cpu_s", "requests per CPU-second"),
    (WHOLE_32, "requests_per_cpu_s_with_stores", "… stores counted too"),
    (FIRST, "ttft_p50_ms", "first event p50, ms"),
    (FIRST, "ttft_p99_ms", "first event p99, ms"),
    (CHUNKS, "requests_per_s", "streams ended per second"),
    (CHUNKS, "events_per_s", "chunks per second"),
    (CHUNKS, "events_each", "chunks per stream"),
    (CHUNKS, "chunks_per_cpu_s", "chunks per CPU-second"),
    (CHUNKS, "chunks_per_gateway_s", "chunks per gateway CPU-second"),
)


_EACH = (
    (WHOLE_1, "p50_ms", "latency p50 at 1, ms"),
    (FIRST, "ttft_p50_ms", "first event p50 at 1, ms"),
    (WHOLE_32, "requests_per_s", "requests per second at 32"),
    (WHOLE_32, "requests_per_cpu_s", "requests per CPU-second"),
    (WHOLE_32, "requests_per_cpu_s_with_stores", "… stores counted too"),
    (CHUNKS, "chunks_per_gateway_s", "chunks per gateway CPU-second"),
)
"""What is shown of every endpoint."""


def table(found: Mapping[str, Findings]) -> str:
    """Return everything as text."""
    names = [name for name in (DIRECT, PROXY, OURS) if name in found]
    return "\n".join(_lines(found, names)) + "\n"


def summary(found: Mapping[str, Findings], *, pinned: bool) -> dict[str, Any]:
    """Return the figures and ratios as one JSON object; null where there is nothing to compare."""
    return {
        "pinned": pinned,
        "systems": {name: _figures(findings) for name, findings in found.items()},
        "ratios": _ratios(found),
        "targets": _targets(found),
    }


def _lines(found: Mapping[str, Findings], names: list[str]) -> Iterator[str]:
    yield f"{'':58}" + "".join(f"{name:>12}" for name in names)
    shown = None
    for scenario, figure, label in _ROWS:
        if scenario is not shown:
            shown = scenario
            yield scenario.name
        cells = [_cell(found[name], scenario.name, figure) for name in names]
        yield f"  {label:56}" + "".join(f"{cell:>12}" for cell in cells)
    yield "clean streams, a chunk per 20 ms"
    cells = [str(found[name].clean_streams) if found[name].clean else "-" for name in names]
    yield f"  {'most that were clean':56}" + "".join(f"{cell:>12}" for cell in cells)
    cells = [_gateway_share(found[name]) for name in names]
    yield f"  {'… with so much of a core for the gateway':56}" + "".join(
        f"{cell:>12}" for cell in cells
    )
    for name in names:
        if _elsewhere(found[name]):
            yield from _endpoints(name, found[name])
    for name in names:
        if found[name].memory:
            yield from _processes(name, found[name])


def _elsewhere(findings: Findings) -> bool:
    """Whether more than chat was measured."""
    return all(at(WHOLE_32, endpoint).name in findings.samples for endpoint in ENDPOINTS)


def _endpoints(name: str, findings: Findings) -> Iterator[str]:
    yield f"{f'endpoints of {name}':46}" + "".join(f"{each.name:>13}" for each in ENDPOINTS)
    for scenario, figure, label in _EACH:
        cells = [_cell(findings, at(scenario, each).name, figure) for each in ENDPOINTS]
        yield f"  {label:44}" + "".join(f"{cell:>13}" for cell in cells)


def _processes(name: str, findings: Findings) -> Iterator[str]:
    yield f"processes of {name}"
    whole = median_cpu_us(findings.samples[WHOLE_32.name])
    chunks = findings.samples[CHUNKS.name]
    each = median(chunks, "events_each")
    stream = median_cpu_us(chunks)
    for process, memory in findings.memory.items():
        yield (
            f"  {process:14} {whole[process]:8.0f} µs per request  "
            f"{stream[process] / each:8.1f} µs per chunk  "
            f"{memory.resident:7.0f} MB resident  {memory.own:7.0f} MB of its own"
        )


def _cell(findings: Findings, scenario: str, figure: str) -> str:
    value = median(findings.samples[scenario], figure)
    if not value:
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"


def _gateway_share(findings: Findings) -> str:
    cores = findings.clean_cores.get(findings.clean_streams, {})
    return f"{cores['gateway']:.2f}" if "gateway" in cores else "-"


def _figures(findings: Findings) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    for scenario, figure, _label in _ROWS:
        key = f"{_KEYS[scenario.name]}_{figure}"
        figures[key] = round(median(findings.samples[scenario.name], figure), 3)
    failures = sum(
        sum(sample.seen["failures"].values())
        for samples in findings.samples.values()
        for sample in samples
    )
    figures |= {"failures": failures}
    if _elsewhere(findings):
        figures["endpoints"] = {
            endpoint.name: {
                f"{_KEYS[scenario.name]}_{figure}": round(
                    median(findings.samples[at(scenario, endpoint).name], figure), 3
                )
                for scenario, figure, _label in _EACH
            }
            for endpoint in ENDPOINTS
        }
    if findings.clean:
        figures |= {
            "clean_streams": findings.clean_streams,
            "clean_share": findings.clean,
            "clean_cores": findings.clean_cores,
        }
    if findings.memory:
        whole = median_cpu_us(findings.samples[WHOLE_32.name])
        figures["processes"] = {
            name: {
                "cpu_us_per_request": round(whole[name]),
                "resident_mb": round(memory.resident, 1),
                "own_mb": round(memory.own, 1),
            }
            for name, memory in findings.memory.items()
        }
    return figures


_KEYS = {
    WHOLE_1.name: "c1",
    WHOLE_32.name: "c32",
    FIRST.name: "stream_c1",
    CHUNKS.name: "stream_c32",
}


def _ratios(found: Mapping[str, Findings]) -> dict[str, float] | None:
    if PROXY not in found or OURS not in found:
        return None

    def of(name: str, scenario: str, figure: str) -> float:
        return median(found[name].samples[scenario], figure)

    theirs = of(PROXY, WHOLE_32.name, "requests_per_cpu_s")
    added_theirs = of(PROXY, WHOLE_1.name, "p50_ms") - of(DIRECT, WHOLE_1.name, "p50_ms")
    clean_theirs = found[PROXY].clean_streams
    ratios = {
        "requests_per_cpu_s": of(OURS, WHOLE_32.name, "requests_per_cpu_s") / theirs,
        "requests_per_cpu_s_with_stores": of(OURS, WHOLE_32.name, "requests_per_cpu_s_with_stores")
        / theirs,
        "requests_per_s": of(OURS, WHOLE_32.name, "requests_per_s")
        / of(PROXY, WHOLE_32.name, "requests_per_s"),
        "added_p50_c1": of(OURS, WHOLE_1.name, "p50_ms") / added_theirs,
        "ttft_p50": of(OURS, FIRST.name, "ttft_p50_ms") / of(PROXY, FIRST.name, "ttft_p50_ms"),
        "chunks_per_s": of(OURS, CHUNKS.name, "events_per_s")
        / of(PROXY, CHUNKS.name, "events_per_s"),
    }
    if clean_theirs:
        ratios["clean_streams"] = found[OURS].clean_streams / clean_theirs
    return {name: round(value, 3) for name, value in ratios.items()}


def _targets(found: Mapping[str, Findings]) -> dict[str, bool | None]:
    """Say which bars are met; null where there is nothing to compare with."""
    if OURS not in found:
        return {}
    ratios = _ratios(found)
    ours = found[OURS]

    bars = {
        "clean_streams >= 256": ours.clean_streams >= 256,
        "gateway_resident_mb <= 120": ours.memory["gateway"].resident <= 120,
    }
    for endpoint in ENDPOINTS if _elsewhere(ours) else ENDPOINTS[:1]:
        bars |= {
            f"{endpoint.name}: {bar}": met for bar, met in _bars(found, ratios, endpoint).items()
        }
    return bars


def _bars(
    found: Mapping[str, Findings], ratios: Mapping[str, float] | None, endpoint: Endpoint
) -> dict[str, bool | None]:
    """Say which bars one endpoint meets; all are held against the proxy's chat, its cheapest."""
    ours = found[OURS].samples

    def of(scenario: Scenario, figure: str) -> float:
        return median(ours[at(scenario, endpoint).name], figure)

    def theirs(scenario: Scenario, figure: str) -> float:
        return median(found[PROXY].samples[scenario.name], figure)

    bars: dict[str, bool | None] = {
        "ttft_p50 <= 5 ms": of(FIRST, "ttft_p50_ms") <= 5,
        "chunks_per_gateway_s >= 20000": of(CHUNKS, "chunks_per_gateway_s") >= 20_000,
    }
    if ratios is None:
        return bars
    added = theirs(WHOLE_1, "p50_ms") - median(found[DIRECT].samples[WHOLE_1.name], "p50_ms")
    return {
        "requests_per_cpu_s >= 10x": of(WHOLE_32, "requests_per_cpu_s")
        >= 10 * theirs(WHOLE_32, "requests_per_cpu_s"),
        "requests_per_cpu_s_with_stores >= 5x": of(WHOLE_32, "requests_per_cpu_s_with_stores")
        >= 5 * theirs(WHOLE_32, "requests_per_cpu_s_with_stores"),
        "added_p50_c1 <= 1/3": of(WHOLE_1, "p50_ms") <= added / 3,
        **bars,
    }
