"""`darkbloom`, also as `python -m darkbloom_provider`."""

import sys

from darkbloom_provider.cli import run


def main() -> None:
    """Run the command line and leave with its exit code."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
