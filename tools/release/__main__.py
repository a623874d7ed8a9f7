"""`python -m tools.release`: what the Makefile's release targets run."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from tools.release import versions
from tools.release.errors import ReleaseError
from tools.release.rooms import ROOT


def _version(arguments: argparse.Namespace) -> int:
    for path in versions.write(arguments.version):
        print(path.relative_to(ROOT))
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tools.release", description=__doc__)
    commands = parser.add_subparsers(required=True)

    version = commands.add_parser("version", help="say another version everywhere")
    version.add_argument("version")
    version.set_defaults(run=_version)

    arguments = parser.parse_args(argv)
    try:
        return int(arguments.run(arguments))
    except ReleaseError as error:
        print(f"release: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    raise SystemExit(main())
