"""`python -m tests.stripe_local`: the local Stripe as a process. No real money."""

import argparse
import json
import sys
from pathlib import Path

import uvicorn
from darkbloom_mesh.clock import SystemClock

from tests.stripe_local.app import make_app
from tests.stripe_local.world import World


def main() -> None:
    """Serve until told to stop."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=12111)
    parser.add_argument("--state", type=Path, help="file that keeps the state")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--endpoints", type=json.loads, default=[], help="webhook endpoints, a JSON list"
    )
    given = parser.parse_args()
    world = World(SystemClock(), seed=given.seed, path=given.state)
    world.load()
    if given.endpoints:
        world.endpoints = [{"connect": False, "events": [], **each} for each in given.endpoints]
    sys.stderr.write(f"local stripe on 127.0.0.1:{given.port}: no real money\n")
    uvicorn.run(make_app(world), host="127.0.0.1", port=given.port, log_level="warning")


if __name__ == "__main__":
    main()
