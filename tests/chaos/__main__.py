"""`python -m tests.chaos --seed 1 --seconds 30`: the last line is JSON; code 1: money is wrong."""

import argparse
import asyncio
import contextlib
import json
import sys
import tempfile
from pathlib import Path

from tests.chaos.judgement import Judgement
from tests.chaos.play import play


def main() -> int:
    """Run once; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--restarts", type=int, default=2, help="ends of the whole database")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="darkbloom-", ignore_cleanup_errors=True) as home:
        judgement = _played(Path(home), arguments)
    for line in judgement.wrong:
        sys.stderr.write(f"wrong: {line}\n")
    sys.stderr.write(f"  booked: {json.dumps(judgement.kinds)}\n")
    sys.stdout.write(json.dumps(judgement.figures) + "\n")
    return 1 if judgement.wrong or judgement.figures["orphan_holds"] else 0


def _played(home: Path, arguments: argparse.Namespace) -> Judgement:
    # What billing logs under fire is kept beside the database, not mixed with the result.
    with (home / "billing.log").open("w") as log, contextlib.redirect_stdout(log):
        return asyncio.run(
            play(
                home / "postgres",
                seed=arguments.seed,
                seconds=arguments.seconds,
                restarts=arguments.restarts,
                progress=_progress,
            )
        )


def _progress(text: str) -> None:
    sys.stderr.write(f"  {text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
