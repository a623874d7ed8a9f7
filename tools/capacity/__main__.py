"""`python -m tools.capacity`: pods, stores and cost for fleets, at your load and your prices.

`--write` puts the tables of the stated assumptions into docs/operations/capacity.md.
"""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, TypeVar

from tools.capacity.figures import ROOMS, Decided, Measured, Prices
from tools.capacity.plan import LOAD, Plan, cost, plan
from tools.capacity.runs import Record, read

PAGE = Path(__file__).resolve().parents[2] / "docs/operations/capacity.md"
SIZES = (1_000, 10_000, 100_000)
QUIET = 0.1
"""A load at which most machines wait most of the time."""
_SIMULATED = "<!-- make simulate -->"
_BEGIN, _END = "<!-- make capacity -->", "<!-- end -->"
AssumptionsT = TypeVar("AssumptionsT", Measured, Decided, Prices)


def tables(load: float, measured: Measured, decided: Decided, prices: Prices) -> Iterator[str]:
    """Yield the lines of what fleets of the three sizes ask for, and of what that costs."""
    record = read()
    plans = [plan(size, load, fitted(record, size, load, measured), decided) for size in SIZES]
    costs = [cost(found, prices, decided) for found in plans]
    yield _row("Providers", *(f"{size:,}" for size in SIZES))
    yield _row("---", *("---:" for _ in SIZES))
    for title, texts in _needs(plans):
        yield _row(title, *texts)
    for title in costs[0]:
        yield _row(f"USD a month: {title}", *(f"{one[title]:,.0f}" for one in costs))
    totals = [sum(one.values()) for one in costs]
    yield _row("**USD a month**", *(f"**{total:,.0f}**" for total in totals))
    yield _row(
        "USD a month and provider",
        *(f"{t / size:.2f}" for t, size in zip(totals, SIZES, strict=True)),
    )


def fitted(record: Record, size: int, load: float, measured: Measured) -> Measured:
    """Return the figures with what runs say, where there are any at such a load.

    What a load means in requests is what the fleet's own machines can do. How long those are open
    and how often others are told is what the longest run says: in a short one machines still fill
    up. What a person has set stays set.
    """
    run, settled, usual = record.fleet(size), record.longest(load), Measured()
    if run is None or settled is None:
        return measured
    said = {
        "requests_a_second": run.requests_a_second * LOAD / run.load,
        "answer_s": settled.answer_s,
        "told_a_request": (settled.told_a_second - measured.told_rest) / settled.requests_a_second,
    }
    for name, value in said.items():
        if getattr(measured, name) == getattr(usual, name):
            measured = replace(measured, **{name: value})
    return measured


def simulated(record: Record) -> Iterator[str]:
    """Yield the lines of what the simulator found."""
    runs = record.runs
    yield _row("", *(f"{one.providers:,} at {one.load:g}" for one in runs))
    yield _row("---", *("---:" for _ in runs))
    for title, text in _FOUND:
        yield _row(title, *(text(one.found) for one in runs))
    yield ""
    for one in runs:
        yield f'- {one.day}: `make simulate ARGS="{one.command}"`'


_FOUND: tuple[tuple[str, Callable[[dict[str, Any]], str]], ...] = (
    ("Simulated, s", lambda one: f"{60 * one['minutes']:g}"),
    ("Requests a second, offered", lambda one: f"{one['offered_per_s']:,.0f}"),
    ("Requests", lambda one: f"{one['received']:,}"),
    ("Served", lambda one: f"{one['served_ratio']:.4f}"),
    ("Uptime", lambda one: f"{one['uptime']:.4f}"),
    ("Share that waited in line", lambda one: f"{one['queued_ratio']:.4f}"),
    ("Refused", lambda one: f"{sum(one['refusals'].values()):,}"),
    ("First content p50, s", lambda one: f"{one['ttft_p50_ms'] / 1000:.2f}"),
    ("First content p95, s", lambda one: f"{one['ttft_p95_ms'] / 1000:.1f}"),
    ("Open, mean, s", lambda one: f"{one['open_mean_s']:.1f}"),
    ("Utilisation", lambda one: f"{one['utilisation']:.2f}"),
    ("Choices of a request, processor ms", lambda one: f"{one['choice_ms']:.2f}"),
    ("One choice p50, p99, ms", lambda one: _pair(one, "decision_p50_ms", "decision_p99_ms")),
    ("Audits that disagreed", lambda one: f"{one['audits_disagreed']}"),
    ("Gateways' lanes: in, out, a second", lambda one: _lanes(one, "gateway_in", "gateway_out")),
    ("Providers' lanes: in, out, a second", lambda one: _lanes(one, "provider_in", "provider_out")),
    ("Heartbeats a second", lambda one: _lanes(one, "beats")),
    ("Told to each other router a second", lambda one: _lanes(one, "told")),
    ("Memory with all modelled machines, MB", lambda one: f"{one['memory_mb']:,.0f}"),
    ("Processor time of the run, s", lambda one: f"{one['cpu_s']:,.0f}"),
)


def _pair(found: dict[str, Any], *names: str) -> str:
    return ", ".join(f"{found[name]:.2f}" for name in names)


def _lanes(found: dict[str, Any], *names: str) -> str:
    return " / ".join(f"{found['messages_per_s'][name]:,.0f}" for name in names)


def _needs(plans: list[Plan]) -> Iterator[tuple[str, list[str]]]:
    yield "Requests a second", [f"{one.requests:,.0f}" for one in plans]
    yield "Cells", [str(one.cells) for one in plans]
    for room in ROOMS:
        yield f"Pods: {room}", [f"{one.pods[room]:,}" for one in plans]
    yield "Each router hears, changes a second", [f"{one.told:,.0f}" for one in plans]
    yield "… of its core for mirrors", [f"{one.mirrors:.2f}" for one in plans]
    yield "… memory of mirrors, MiB", [f"{one.mirror_mib:,.0f}" for one in plans]
    yield "Rooms: cores, GiB", [f"{one.cores:,.0f}, {one.gib:,.0f}" for one in plans]
    yield (
        "PostgreSQL: servers of cores, GiB",
        [f"{one.instances} of {one.postgres_cores}, {one.postgres_gib}" for one in plans],
    )
    yield "Log written ahead, MiB a second", [f"{one.wal_mib:,.1f}" for one in plans]
    yield "History, TiB more each month", [f"{one.growth_gib / 1024:,.1f}" for one in plans]
    yield "Storage priced, TiB", [f"{one.disk_gib / 1024:,.1f}" for one in plans]
    yield "Valkey, GiB", [f"{one.valkey_gib:g}" for one in plans]
    yield "Traffic out, TiB a month", [f"{one.egress_gib / 1024:,.1f}" for one in plans]


def assumptions(*groups: Measured | Decided | Prices) -> Iterator[str]:
    """Yield the lines of a table of everything that the tables rest on."""
    yield _row("Option", "Stands at", "Is")
    yield _row("---", "---:", "---")
    for group in groups:
        words = _docstrings(type(group))
        for field in fields(group):
            value = getattr(group, field.name)
            yield _row(f"`--{_option(field.name)}`", f"{value:,.6g}", words[field.name])


def page() -> str:
    """Return docs/operations/capacity.md with fresh tables."""
    text = PAGE.read_text()
    given = Measured(), Decided(), Prices()
    parts = [
        f"At load {LOAD}, a fleet that is sold out at its peaks:\n",
        *tables(LOAD, *given),
        f"\nAt load {QUIET}, machines that mostly wait:\n",
        *tables(QUIET, *given),
        "\nWhat both rest on:\n",
        *assumptions(*given),
    ]
    text = _between(text, _BEGIN, parts)
    return _between(text, _SIMULATED, simulated(read()))


def _between(text: str, begin: str, lines: Iterable[str]) -> str:
    """Return a text with other lines between a mark and the end after it."""
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(_END)
    return f"{before}{begin}\n\n" + "\n".join(lines) + f"\n\n{_END}{after}"


def main() -> None:
    """Print the tables for what the command line changes, or write the page."""
    parser = argparse.ArgumentParser(prog="capacity", description=__doc__)
    parser.add_argument("--write", action="store_true", help="refresh docs/operations/capacity.md")
    parser.add_argument("--load", type=float, default=LOAD, help="offered over decode capacity")
    for group in (Measured, Decided, Prices):
        words = _docstrings(group)
        for field in fields(group):
            parser.add_argument(
                f"--{_option(field.name)}",
                type=type(field.default),
                default=field.default,
                help=words[field.name].replace("%", "%%"),
            )
    given = parser.parse_args()
    if given.write:
        PAGE.write_text(page())
        return
    groups = (_read(Measured, given), _read(Decided, given), _read(Prices, given))
    print("\n".join(tables(given.load, *groups)))


def _read(group: type[AssumptionsT], given: argparse.Namespace) -> AssumptionsT:
    return group(**{field.name: getattr(given, field.name) for field in fields(group)})


def _docstrings(group: type[Measured | Decided | Prices]) -> dict[str, str]:
    """Return what stands under each field."""
    source = inspect.getsource(group)
    found = {}
    for field in fields(group):
        _, _, rest = source.partition(f"    {field.name}: ")
        found[field.name] = " ".join(rest.split('"""')[1].split())
    return found


def _option(name: str) -> str:
    return name.replace("_", "-")


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
