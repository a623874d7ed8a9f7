"""A play in namespaces of its own: `unshare … -m tests.drills.inside KINDS MODULE HOME SEED`.

Network and mounts of the machine are untouched whatever the play does to its own, and are gone with
the process. The module has `inside(stage)`; the last line that is printed is its outcome.
"""

import asyncio
import dataclasses
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from tests.drills.drill import Outcome
from tests.drills.stage import Stage

NETWORK = "--net"
MOUNTS = "--mount"


async def in_namespaces(stage: Stage, module: str, kinds: Sequence[str]) -> Outcome:
    """Play a module's `inside` in namespaces of those kinds; root alone may.

    Raises:
        AssertionError: It failed; the message is the end of what it printed.
    """
    process = await asyncio.create_subprocess_exec(
        *("unshare", *kinds, "--", sys.executable, "-m", "tests.drills.inside"),
        *(" ".join(kinds), module, str(stage.home), str(stage.seed)),
        env={**os.environ, "GRPC_ENABLE_FORK_SUPPORT": "0"},  # noqa: TID251 - the same again
        stdout=asyncio.subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert process.stdout is not None
    lines: list[str] = []
    try:
        async for line in process.stdout:
            lines.append(line.decode().rstrip())
            if lines[-1].startswith("  "):
                stage.progress(lines[-1].strip())
        code = await process.wait()
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
    assert code == 0, "\n".join(lines[-6:])
    return Outcome(**json.loads(lines[-1]))


def tell(text: str) -> None:
    """Say a step to whoever reads our output."""
    sys.stdout.write(f"  {text}\n")
    sys.stdout.flush()


def run(*command: str) -> str:
    """Run a tool of the system; return what it says.

    Raises:
        AssertionError: It refused.
    """
    done = subprocess.run(command, capture_output=True, check=False, text=True)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
    return done.stdout


def packets_dropped() -> int:
    """Return how many packets the rules of our network have counted."""
    rules = run("nft", "list", "ruleset")
    return sum(int(count) for count in re.findall(r"counter packets (\d+)", rules))


def main(kinds: str, module: str, home: str, seed: str) -> None:
    """Play and print the outcome."""
    if NETWORK in kinds.split():
        run("ip", "link", "set", "lo", "up")
    stage = Stage(home=Path(home), seed=int(seed), progress=tell)
    outcome: Outcome = asyncio.run(import_module(module).inside(stage))
    sys.stdout.write(json.dumps(dataclasses.asdict(outcome)) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
