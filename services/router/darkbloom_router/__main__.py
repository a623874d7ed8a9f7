"""`python -m darkbloom_router [serve|migrate]`."""

import argparse

from darkbloom_mesh.config import main_config
from darkbloom_mesh.serve import run

from darkbloom_router.app import migrate, serve
from darkbloom_router.config import RouterConfig


def main() -> None:
    """Serve until told to stop, or migrate; exits with the room's code."""
    parser = argparse.ArgumentParser(prog="darkbloom_router", description="The router room.")
    parser.add_argument("command", nargs="?", choices=["serve", "migrate"], default="serve")
    command = parser.parse_args().command
    config = main_config(RouterConfig, "router")
    raise SystemExit(migrate(config) if command == "migrate" else run(lambda: serve(config)))


if __name__ == "__main__":
    main()
