"""`python -m tests.json_runs`: the last line is JSON; code 1: an answer did not validate."""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path

from darkbloom_local.models import SMOLLM2

from tests.json_runs.asking import Tally, run_once
from tests.json_runs.model import client_of, mesh_of, random_model_cache

KINDS = 4


def main() -> int:
    """Run; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.json_runs", description=__doc__)
    parser.add_argument("--runs", type=int, default=50, help="on the random model")
    parser.add_argument("--smollm2-runs", type=int, default=3)
    parser.add_argument("--seed", type=int, default=7, help="of the random model's weights")
    parser.add_argument("--cache", type=Path, help="where SmolLM2 is kept")
    arguments = parser.parse_args()
    figures: dict[str, object] = {}
    wrong: list[str] = []
    with tempfile.TemporaryDirectory(prefix="darkbloom-", ignore_cleanup_errors=True) as folder:
        home = Path(folder)
        random = random_model_cache(home / "random", arguments.seed)
        smollm2 = arguments.cache or home / "smollm2"
        for name, cache, runs in (
            ("random", random, arguments.runs),
            ("smollm2", smollm2, arguments.smollm2_runs),
        ):
            if not runs:
                continue
            began = time.monotonic()
            tally = asyncio.run(_runs(home / f"{name}-mesh", cache, runs))
            wrong += [f"{name}: {line}" for line in tally.wrong]
            figures[name] = {
                "runs": runs,
                "answers": runs * KINDS,
                "valid": sum(tally.valid.values()),
                "seconds": round(time.monotonic() - began, 1),
            }
    for line in wrong:
        sys.stderr.write(f"wrong: {line}\n")
    sys.stdout.write(json.dumps({**figures, "wrong": len(wrong)}) + "\n")
    return 1 if wrong else 0


async def _runs(state: Path, cache: Path, runs: int) -> Tally:
    tally = Tally()
    async with mesh_of(state, cache) as mesh, client_of(mesh) as client:
        await mesh.routable()
        for seed in range(runs):
            await run_once(client, SMOLLM2, seed, tally)
    return tally


if __name__ == "__main__":
    raise SystemExit(main())
