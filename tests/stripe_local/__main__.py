"""`python -m tests.stripe_local`: the local Stripe as a process. No real money."""

import argparse
import asyncio
import json
import os
import socket
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
    parser.add_argument("--ready-file", type=Path, help="written as JSON once it listens")
    given = parser.parse_args()
    world = World(SystemClock(), seed=given.seed, path=given.state)
    world.load()
    if given.endpoints:
        world.endpoints = [{"connect": False, "events": [], **each} for each in given.endpoints]
    server = uvicorn.Server(uvicorn.Config(make_app(world), log_level="warning", ws="none"))
    with socket.create_server(("127.0.0.1", given.port)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        world.pages = f"http://{address}"
        sys.stderr.write(f"local stripe on {address}: no real money\n")
        if given.ready_file is not None:
            staged = given.ready_file.with_suffix(".tmp")
            staged.write_text(json.dumps({"pid": os.getpid(), "listeners": {"http": address}}))
            staged.replace(given.ready_file)
        asyncio.run(server.serve(sockets=[listener]))


if __name__ == "__main__":
    main()
