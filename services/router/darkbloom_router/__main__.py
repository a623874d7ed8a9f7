"""`python -m darkbloom_router [serve|migrate|why|explain]`."""

import argparse

from darkbloom_mesh.config import CHECK_CONFIG, CHECK_HELP, main_config
from darkbloom_mesh.serve import run

from darkbloom_router.app import migrate, serve
from darkbloom_router.asked import explain
from darkbloom_router.config import RouterConfig
from darkbloom_router.records.reading import MAX_ROWS
from darkbloom_router.records.why import why


def main() -> None:
    """Serve until told to stop, migrate, or explain a request; exits with the room's code."""
    parser = argparse.ArgumentParser(
        prog="darkbloom_router", allow_abbrev=False, description="The router room."
    )
    parser.add_argument(CHECK_CONFIG, action="store_true", help=CHECK_HELP)
    commands = parser.add_subparsers(dest="command")
    commands.add_parser("serve", help="route (the default)")
    to_newest = commands.add_parser(
        "migrate", help="bring the schema of decision records to its newest form"
    )
    to_newest.add_argument("--new", action="store_true", help="also where the database is blank")
    asked = commands.add_parser("why", help="say how a request went, from the decision records")
    asked.add_argument("name", nargs="?", default="", help="request, or X-Inference-Job-ID")
    asked.add_argument("--build", default="", help="only of this build")
    asked.add_argument("--limit", type=int, choices=range(1, MAX_ROWS + 1), default=20, metavar="N")
    asked.add_argument("--json", action="store_true")
    machine = commands.add_parser("explain", help="say why a machine gets no requests, asked live")
    machine.add_argument("provider", help="its id, or its identity key in base64")
    machine.add_argument("--build", default="", help="only of this build")
    machine.add_argument("--target", default="127.0.0.1:7411", help="all replicas behind the name")
    machine.add_argument("--json", action="store_true")
    given = parser.parse_args()
    config = main_config(RouterConfig, "router")
    if given.command == "why":
        code = why(
            config.database_url,
            given.name,
            build=given.build,
            limit=given.limit,
            as_json=given.json,
        )
        raise SystemExit(code)
    if given.command == "explain":
        raise SystemExit(
            explain(config, given.target, given.provider, build=given.build, as_json=given.json)
        )
    if given.command == "migrate":
        raise SystemExit(migrate(config, new=given.new))
    raise SystemExit(run(lambda: serve(config)))


if __name__ == "__main__":
    main()
