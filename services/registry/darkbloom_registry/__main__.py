"""`python -m darkbloom_registry [serve|migrate]`."""

import argparse

from darkbloom_mesh.config import main_config
from darkbloom_mesh.serve import run

from darkbloom_registry.app import ROOM, migrate, serve
from darkbloom_registry.config import RegistryConfig

parser = argparse.ArgumentParser(prog="darkbloom_registry", description="The registry room.")
parser.add_argument("command", nargs="?", choices=["serve", "migrate"], default="serve")
command = parser.parse_args().command
config = main_config(RegistryConfig, ROOM)
raise SystemExit(migrate(config) if command == "migrate" else run(lambda: serve(config)))
