"""Fuzz every decoder in a process of its own: `make fuzz`; the last line is JSON.

Exit code 1 where an input crashed, hung or wanted unbounded memory; its bytes are kept.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.fuzz.targets import all_targets

_STARTING_S = 120
_STAT = re.compile(r"stat::(number_of_executed_units|peak_rss_mb):\s+(\d+)")
_COVERED = re.compile(r"\bcov: (\d+)")


def fuzz(name: str, seconds: int, folder: Path) -> dict[str, Any]:
    """Run one target and say how it went."""
    command = [sys.executable, "-m", "tests.fuzz.one", name, str(seconds), str(folder)]
    began = time.monotonic()
    try:
        ran = subprocess.run(
            command, capture_output=True, text=True, timeout=seconds + _STARTING_S, check=False
        )
    except subprocess.TimeoutExpired:
        return {"target": name, "ok": False, "why": "the process hung"}
    stats = dict(_STAT.findall(ran.stderr))
    covered = _COVERED.findall(ran.stderr)
    found: dict[str, Any] = {
        "target": name,
        "ok": ran.returncode == 0,
        "inputs": int(stats.get("number_of_executed_units", 0)),
        "peak_rss_mb": int(stats.get("peak_rss_mb", 0)),
        "covered": int(covered[-1]) if covered else None,
        "seconds": round(time.monotonic() - began, 1),
    }
    if not found["ok"]:
        found["why"] = ran.stderr[-3000:]
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="fuzz", description="Fuzz every decoder.")
    parser.add_argument("--seconds", type=int, default=360, help="in total, all targets together")
    parser.add_argument("--jobs", type=int, default=1, help="targets at a time")
    parser.add_argument("--only", help="one target")
    given = parser.parse_args()
    names = [target.name for target in all_targets() if given.only in (None, target.name)]
    each = max(1, -(-given.seconds // max(1, len(names))))

    folder = Path(tempfile.mkdtemp(prefix="darkbloom-fuzz-"))
    results = []
    with ThreadPoolExecutor(given.jobs) as pool:
        for found in pool.map(lambda name: fuzz(name, each, folder), names):
            results.append(found)
            sys.stderr.write(json.dumps(found) + "\n")
    ok = bool(results) and all(found["ok"] for found in results)
    inputs = sum(found.get("inputs", 0) for found in results)
    total = {
        "ok": ok,
        "targets": len(results),
        "seconds_each": each,
        "inputs": inputs,
        "peak_rss_mb": max((found.get("peak_rss_mb", 0) for found in results), default=0),
        "failed": [found["target"] for found in results if not found["ok"]],
        "kept": None if ok else str(folder),
    }
    sys.stdout.write(json.dumps(total) + "\n")
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
