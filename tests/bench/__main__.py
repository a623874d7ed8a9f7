"""`python -m tests.bench [--quick]`: measure, print a table and, last, one JSON object."""

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from darkbloom_local.errors import LocalError

from tests.bench import billing, ours, placement, proxy, replicas, report
from tests.bench.measure import LoadError
from tests.bench.run import FULL, QUICK, Extent, Findings, run
from tests.bench.systems import System

_HOME = Path(".bench")


def main() -> int:
    """Run the benchmark; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round")
    parser.add_argument("--no-litellm", action="store_true", help="measure the mesh alone")
    parser.add_argument("--only-billing", action="store_true", help="measure holds alone")
    parser.add_argument("--only-replicas", action="store_true", help="measure replicas alone")
    parser.add_argument("--no-mesh", action="store_true", help="measure LiteLLM alone")
    arguments = parser.parse_args()
    _HOME.mkdir(exist_ok=True)
    extent = QUICK if arguments.quick else FULL
    try:
        if arguments.only_replicas:
            return _replicas(extent)
        # First, while nothing else runs and no process is tied to a core.
        with _scratch() as home:
            money = asyncio.run(billing.measure(home, extent.billing_seconds, _progress))
        found = {} if arguments.only_billing else asyncio.run(_bench(arguments, extent))
    except (LocalError, LoadError) as error:
        sys.stderr.write(f"bench: {error}\n")
        return 1
    if found:
        with _scratch() as home:
            rows = asyncio.run(replicas.run(home, extent.seconds, _progress, extent.fleets))
    else:
        rows = []
    sys.stdout.write(
        (report.table(found) if found else "") + billing.table(money) + replicas.table(rows)
    )
    summary = report.summary(found, pinned=placement.can_pin())
    summary |= {"billing": billing.summary(money)}
    summary["replicas"] = replicas.summary(rows)
    summary["targets"] |= billing.targets(money)
    sys.stdout.write(json.dumps(summary) + "\n")
    return 0


def _replicas(extent: Extent) -> int:
    with _scratch() as home:
        rows = asyncio.run(replicas.run(home, extent.seconds, _progress, extent.fleets))
    sys.stdout.write(replicas.table(rows))
    sys.stdout.write(json.dumps({"replicas": replicas.summary(rows)}) + "\n")
    return 0


async def _bench(arguments: argparse.Namespace, extent: Extent) -> dict[str, Findings]:
    if not placement.can_pin():
        _progress("cores cannot be chosen here: what is measured shares them with the load")
    with ExitStack() as stack:
        systems: list[System] = []
        if not arguments.no_litellm:
            try:
                environment = proxy.install(_HOME, _progress)
                behind = stack.enter_context(proxy.upstream(_HOME))
                _progress("starting litellm")
                systems = [behind, stack.enter_context(proxy.litellm(environment, _HOME, behind))]
            except proxy.NoProxyError as error:
                _progress(f"litellm is left out: {error}")
        if arguments.no_mesh:
            return await run(systems, extent, _progress)
        with _scratch() as state:
            async with ours.mesh(state, _progress, providers=extent.providers) as system:
                return await run([*systems, system], extent, _progress)


@contextmanager
def _scratch() -> Iterator[Path]:
    """Give a state directory that is gone afterwards: each run starts with an empty ledger."""
    with tempfile.TemporaryDirectory(prefix="state-", dir=_HOME) as directory:
        yield Path(directory)


def _progress(text: str) -> None:
    sys.stderr.write(f"  {text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
