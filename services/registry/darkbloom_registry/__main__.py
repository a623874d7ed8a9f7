"""`python -m darkbloom_registry [serve|migrate|key LABEL (SCOPE… [--replace]|--revoke)]`."""

import argparse

from darkbloom_mesh.config import CHECK_CONFIG, CHECK_HELP, main_config
from darkbloom_mesh.serve import run

from darkbloom_registry.app import ROOM, make_key, migrate, revoke_key, serve
from darkbloom_registry.changes import Scope
from darkbloom_registry.config import RegistryConfig

parser = argparse.ArgumentParser(
    prog="darkbloom_registry", allow_abbrev=False, description="The registry room."
)
parser.add_argument(CHECK_CONFIG, action="store_true", help=CHECK_HELP)
commands = parser.add_subparsers(dest="command")
commands.add_parser("serve", help="serve; the default")
to_newest = commands.add_parser("migrate", help="bring the schema to its newest revision")
to_newest.add_argument("--new", action="store_true", help="also where the database is blank")
key = commands.add_parser("key", help="make a publishing key and print it, once; or revoke it")
key.add_argument("label", help="who it is, as changes will name them")
key.add_argument("scopes", nargs="*", metavar="scope", help=", ".join(Scope))
how = key.add_mutually_exclusive_group()
how.add_argument("--replace", action="store_true", help="also where the label has, or had, a key")
how.add_argument("--revoke", action="store_true", help="accept the label's key no more")
given = parser.parse_args()
if given.command == "key" and bool(given.scopes) == given.revoke:
    key.error("name scopes, or --revoke alone")
if given.command == "key" and not set(given.scopes) <= set(Scope):
    key.error(f"scopes are {', '.join(Scope)}")
config = main_config(RegistryConfig, ROOM)
if given.command == "migrate":
    raise SystemExit(migrate(config, new=given.new))
if given.command == "key":
    if given.revoke:
        raise SystemExit(revoke_key(config, given.label))
    raise SystemExit(make_key(config, given.label, given.scopes, replace=given.replace))
raise SystemExit(run(lambda: serve(config)))
