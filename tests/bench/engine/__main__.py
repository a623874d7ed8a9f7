"""`python -m tests.bench.engine [--quick]`: a table and, as last line, one JSON object."""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path

from darkbloom_local.errors import LocalError
from darkbloom_local.models import fetch_smollm2
from darkbloom_provider.models.gguf import import_gguf
from darkbloom_provider.models.store import ModelStore

from tests.bench.engine import model, servers
from tests.bench.engine.measures import Row, Words, small_row, table_rows
from tests.bench.engine.servers import BenchError, Side

ROUNDS = 5
REPEATED_BAR = 1 / 4
_HOME = Path(".bench")
_SMALL = "bench/smollm2"
_COLD, _REPEATED = "first text, cold prompt", "first text, repeated prefix"


def main() -> int:
    """Run the benchmark; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.engine", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round, without SmolLM2")
    parser.add_argument("--only", default="", help="only rows whose name holds this")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="medians are of so many")
    arguments = parser.parse_args()
    _HOME.mkdir(exist_ok=True)
    rounds = 1 if arguments.quick else arguments.rounds
    rows = [row for row in table_rows() if arguments.only in row.name]
    try:
        found = asyncio.run(_measure(rows, rounds))
        if not arguments.quick and not arguments.only:
            found |= asyncio.run(_measure_small(rounds))
    except (BenchError, LocalError) as error:
        sys.stderr.write(f"bench-engine: {error}\n")
        return 1
    sys.stdout.write(_table(found))
    sys.stdout.write(json.dumps(_summary(found, rounds)) + "\n")
    return 0


Findings = dict[Row, dict[str, float]]


async def _measure(rows: Sequence[Row], rounds: int) -> Findings:
    with tempfile.TemporaryDirectory(prefix="engine-", dir=_HOME) as directory:
        folder = await asyncio.to_thread(model.make, Path(directory) / "model")
        return await _both(rows, rounds, folder.absolute(), Path(directory))


async def _measure_small(rounds: int) -> Findings:
    try:
        gguf = await fetch_smollm2(_HOME, _HOME / "download.log")
    except LocalError as error:
        _progress(f"SmolLM2 is left out: {error}")
        return {}
    with tempfile.TemporaryDirectory(prefix="engine-", dir=_HOME) as directory:
        folder = await asyncio.to_thread(_import, gguf, Path(directory) / "store")
        return await _both([small_row()], min(rounds, 3), folder, Path(directory))


def _import(gguf: Path, root: Path) -> Path:
    root = root.absolute()
    created_at = datetime(2026, 1, 1, tzinfo=UTC)
    import_gguf(gguf, build_id=_SMALL, version="v1", root=root, created_at=created_at)
    return ModelStore(root).get(_SMALL).directory


async def _both(rows: Sequence[Row], rounds: int, folder: Path, logs: Path) -> Findings:
    async with AsyncExitStack() as stack:
        sides = [
            await stack.enter_async_context(servers.ours(folder, logs / "ours.log")),
            await stack.enter_async_context(servers.theirs(folder, logs / "theirs.log")),
        ]
        for side in sides:
            # What is compiled and allocated once is not measured.
            await rows[0].measure(side, Words("warm"))
        seen: dict[Row, dict[str, list[float]]] = {row: defaultdict(list) for row in rows}
        for turn in range(rounds):
            for row in rows:
                await _round(row, turn, sides, seen[row])
    return {
        row: {name: statistics.median(values) for name, values in by_side.items()}
        for row, by_side in seen.items()
    }


async def _round(row: Row, turn: int, sides: Sequence[Side], seen: dict[str, list[float]]) -> None:
    # Who goes first changes with each round; both are asked the same words.
    for side in sides if turn % 2 == 0 else reversed(sides):
        figure = await row.measure(side, Words(f"{row.name} {turn}"))
        seen[side.name].append(figure)
        _progress(f"round {turn + 1}, {row.name}, {side.name}: {figure:.4g} {row.unit}")


def _ratio(figures: dict[str, float]) -> float:
    return figures["ours"] / figures["mlx_lm.server"]


def _table(found: Findings) -> str:
    lines = [f"{'':44}{'ours':>12}{'mlx_lm.server':>16}{'ratio':>8}{'bar':>8}"]
    for row, figures in found.items():
        ratio = _ratio(figures)
        bar = "" if row.bar is None else f"{row.bar:.2f}"
        mark = {True: " met", False: " MISSED", None: ""}[row.met(ratio)]
        lines.append(
            f"{row.name + ', ' + row.unit:44}{figures['ours']:12.4g}"
            f"{figures['mlx_lm.server']:16.4g}{ratio:8.2f}{bar:>8}{mark}"
        )
    return "\n".join(lines) + "\n"


def _summary(found: Findings, rounds: int) -> dict[str, object]:
    ours = {row.name: figures["ours"] for row, figures in found.items()}
    summary: dict[str, object] = {
        "rounds": rounds,
        "ratios": {row.name: round(_ratio(figures), 3) for row, figures in found.items()},
        "met": {row.name: row.met(_ratio(figures)) for row, figures in found.items() if row.bar},
    }
    if _COLD in ours and _REPEATED in ours:
        repeated = ours[_REPEATED] / ours[_COLD]
        summary["repeated_to_cold"] = {
            "ratio": round(repeated, 3),
            "met": repeated <= REPEATED_BAR,
        }
    return summary


def _progress(text: str) -> None:
    sys.stderr.write(f"  {text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
