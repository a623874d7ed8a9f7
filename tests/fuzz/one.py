"""Fuzz one decoder: `python -m tests.fuzz.one NAME SECONDS FOLDER`; prints one JSON object.

With atheris the changes are guided by what code they reach; where it does not install, they are
drawn from a seed. Either way an input that raises what it may not, takes longer than `INPUT_S`,
or wants more memory than `MEMORY` ends the run with its bytes in the folder.
"""

import contextlib
import hashlib
import json
import random  # noqa: TID251 - seeded below: a run can be repeated
import resource
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from tests.fuzz.mutation import mutations

try:
    import atheris
except ImportError:  # no wheel for this system
    atheris = None

INPUT_S = 5
"""Longest time for one input, on a machine that does other things too."""
MEMORY = 1 << 30
"""Address space on top of what the process has before it begins."""
MAX_BYTES = 40_000
"""Longest input: more than the largest object that any decoder reads whole."""
_INSTRUMENTED = ["darkbloom_edge", "asn1crypto", "plistlib"]


def limit_memory() -> None:
    """Turn unbounded allocation into a MemoryError."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        used = int(statm.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, resource.RLIM_INFINITY))


def guided(decode: Callable[[bytes], None], corpus: Path, seconds: int, folder: Path) -> NoReturn:
    """Let libFuzzer drive; it ends the process."""
    atheris.Setup(
        [
            "fuzz",
            f"-max_total_time={seconds}",
            f"-timeout={INPUT_S}",
            "-rss_limit_mb=2048",
            f"-max_len={MAX_BYTES}",
            "-seed=1",
            "-print_final_stats=1",
            f"-artifact_prefix={folder}/",
            str(corpus),
        ],
        decode,
    )
    atheris.Fuzz()
    sys.exit(0)


def drawn(decode: Callable[[bytes], None], seeds: list[bytes], seconds: int, folder: Path) -> None:
    """Try drawn changes until the time is over."""

    def late(_signal: int, _frame: object) -> NoReturn:
        raise TimeoutError(f"one input took more than {INPUT_S} s")

    signal.signal(signal.SIGALRM, late)
    until = time.monotonic() + seconds
    tried = 0
    source = random.Random(1)
    while time.monotonic() < until:
        for data in mutations(seeds, source, 100):
            signal.setitimer(signal.ITIMER_REAL, INPUT_S)
            try:
                decode(data)
            except BaseException:
                (folder / f"crash-{hashlib.sha1(data).hexdigest()}").write_bytes(data)  # noqa: S324 - a file name
                raise
            tried += 1
        signal.setitimer(signal.ITIMER_REAL, 0)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    sys.stderr.write(f"stat::number_of_executed_units: {tried}\nstat::peak_rss_mb: {peak}\n")


def main(name: str, seconds: int, folder: Path) -> None:
    guide = (
        contextlib.nullcontext() if atheris is None else atheris.instrument_imports(_INSTRUMENTED)
    )
    with guide:
        from tests.fuzz.targets import all_targets

    target = next(found for found in all_targets() if found.name == name)

    def decode(data: bytes) -> None:
        with contextlib.suppress(*target.refusals):
            target.decode(data)

    corpus = folder / name
    corpus.mkdir(parents=True, exist_ok=True)
    for index, seed in enumerate(target.seeds):
        (corpus / f"seed-{index}").write_bytes(seed)
    limit_memory()
    if atheris is None:
        drawn(decode, list(target.seeds), seconds, folder)
    else:
        guided(decode, corpus, seconds, folder)


if __name__ == "__main__":
    sys.stdout.write(json.dumps({"atheris": atheris is not None}) + "\n")
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
