"""`python -m tests.drills --only pod-kill`: the last line is JSON.

It leaves with 1 where something was unexpected, with 2 where a drill could not be played here.
"""

import argparse
import json
import sys
from pathlib import Path

from tests.drills.catalogue import every_drill
from tests.drills.pages import write
from tests.drills.running import play_all, skipped, unexpected
from tests.drills.table import HEAD, row

_EX_USAGE = 64
_NOT_ALL = 2
_OPERATIONS = Path(__file__).resolve().parents[2] / "docs" / "operations"


def main() -> int:
    """Play what was asked for; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.drills",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", action="append", metavar="NAME", help="play this one; repeatable")
    parser.add_argument("--list", action="store_true", help="name the drills and play none")
    parser.add_argument("--json", action="store_true", help="print the last line alone")
    parser.add_argument(
        "--table", action="store_true", help="also as docs/operations/drills.md has it"
    )
    parser.add_argument("--write", action="store_true", help="write the figures into the pages")
    parser.add_argument("--seed", type=int, default=1, help="of the drills' dice")
    parser.add_argument(
        "--allow-skips",
        action="store_true",
        help="leave with 0 all the same",
    )
    parser.add_argument("--keep", type=Path, help="directory where logs and data stay")
    arguments = parser.parse_args()

    drills = every_drill()
    if strangers := sorted(set(arguments.only or ()) - set(drills)):
        sys.stderr.write(f"no such drill: {', '.join(strangers)}; --list names them\n")
        return _EX_USAGE
    chosen = [drills[name] for name in arguments.only or drills]
    if arguments.list and arguments.write:
        write(_OPERATIONS, drills, {})
    if arguments.list:
        for drill in chosen:
            told = f"{drill.name:24} {drill.claim}; loses: {drill.expected}"
            sys.stdout.write(f"{row(drill, {}) if arguments.table else told}\n")
        return 0

    results = play_all(
        chosen,
        seed=arguments.seed,
        say=_quiet if arguments.json else _say,
        keep=arguments.keep,
    )
    if arguments.table:
        rows = [row(drill, results[drill.name]) for drill in chosen]
        sys.stdout.write("\n".join((HEAD, *rows)) + "\n")
    if arguments.write:
        write(_OPERATIONS, drills, results)
    found, left_out = unexpected(results), skipped(results)
    last = {"drills": results, "skipped": left_out, "unexpected": found}
    sys.stdout.write(json.dumps(last) + "\n")
    if found:
        return 1
    return _NOT_ALL if left_out and not arguments.allow_skips else 0


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def _quiet(_text: str) -> None:
    """Say nothing."""


if __name__ == "__main__":
    sys.exit(main())
