"""`python -m darkbloom_attestation [serve|migrate]`."""

import argparse

from darkbloom_mesh.config import main_config
from darkbloom_mesh.serve import run

from darkbloom_attestation.app import ROOM, migrate, serve
from darkbloom_attestation.config import AttestationConfig

parser = argparse.ArgumentParser(prog="darkbloom_attestation", description="The attestation room.")
parser.add_argument("command", nargs="?", choices=["serve", "migrate"], default="serve")
command = parser.parse_args().command
config = main_config(AttestationConfig, ROOM)
raise SystemExit(migrate(config) if command == "migrate" else run(lambda: serve(config)))
