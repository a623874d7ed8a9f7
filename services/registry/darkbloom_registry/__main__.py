"""`python -m darkbloom_registry [serve|migrate|key LABEL SCOPE…]`."""

import argparse

from darkbloom_mesh.config import main_config
from darkbloom_mesh.serve import run

from darkbloom_registry.app import ROOM, make_key, migrate, serve
from darkbloom_registry.changes import Scope
from darkbloom_registry.config import RegistryConfig

parser = argparse.ArgumentParser(prog="darkbloom_registry", description="The registry room.")
commands = parser.add_subparsers(dest="command")
commands.add_parser("serve", help="serve; the default")
commands.add_parser("migrate", help="bring the schema to its newest revision")
key = commands.add_parser("key", help="make a publishing key and print it, once")
key.add_argument("label", help="who it is, as changes will name them")
key.add_argument("scopes", nargs="+", choices=[scope.value for scope in Scope])
given = parser.parse_args()
config = main_config(RegistryConfig, ROOM)
if given.command == "migrate":
    raise SystemExit(migrate(config))
if given.command == "key":
    raise SystemExit(make_key(config, given.label, given.scopes))
raise SystemExit(run(lambda: serve(config)))
