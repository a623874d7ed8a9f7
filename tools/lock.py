"""Compile constraints.txt from requirements-dev.txt and the rooms, or `--check` it."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CONSTRAINTS = ROOT / "constraints.txt"


def compiled() -> str:
    """Resolve, keeping what is pinned where the pins still fit, and return the file's text."""
    wanted = (ROOT / "requirements-dev.txt").read_text().splitlines()
    with tempfile.NamedTemporaryFile("w", dir=ROOT, prefix=".lock-", suffix=".in") as source:
        # Without the line that constrains by the very file that is being made.
        source.write("\n".join(line for line in wanted if not line.startswith("-c ")))
        source.flush()
        with tempfile.TemporaryDirectory() as scratch:
            output = Path(scratch) / "constraints.txt"
            if CONSTRAINTS.exists():
                output.write_text(CONSTRAINTS.read_text())
            subprocess.run(
                [
                    str(Path(sys.executable).with_name("uv")),
                    "pip",
                    "compile",
                    "--quiet",
                    "--universal",
                    "--python-version=3.11",
                    "--no-annotate",
                    "--no-header",
                    "--no-emit-index-url",
                    "--constraint=pins.in",
                    f"--output-file={output}",
                    Path(source.name).name,
                ],
                cwd=ROOT,
                check=True,
            )
            lines = output.read_text().splitlines(keepends=True)
    return "".join(line for line in lines if not line.startswith("-e "))


def main() -> int:
    """Write the file, or with `--check` say whether it is stale."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check

    text = compiled()
    if not check:
        CONSTRAINTS.write_text(text)
        return 0
    if text == CONSTRAINTS.read_text():
        return 0
    print("stale: constraints.txt; run `make lock` and commit the result")
    return 1


if __name__ == "__main__":
    raise SystemExit(main())
