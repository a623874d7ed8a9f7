"""The command `darkbloom-admin`."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from darkbloom_billing.admin.cli import accounts, books, erase, history, money
from darkbloom_billing.admin.cli.desk import Desk, read_token

_JSON = "--json"
_HELP = """Operate Darkbloom's accounts and money.

Every write is recorded in billing with your name, and most can be tried with --dry-run.
Add --json anywhere for one JSON object. Amounts are dollars; nothing is ever rounded.

A first day:

  darkbloom-admin budgets propose capital --usd 1000      (you)
  darkbloom-admin budgets approve fund_…                  (a colleague)
  darkbloom-admin budgets propose invite --usd 100        (you; approved again)
  darkbloom-admin invites create --usd 5 --max-uses 20
  darkbloom-admin audit run

Exit codes: 0 done, 1 found something wrong, 2 wrong command line, 3 refused, 4 not known, 5 away.
"""
cli = typer.Typer(
    add_completion=False, no_args_is_help=True, help=_HELP, pretty_exceptions_enable=False
)


@cli.callback()
def main(
    context: typer.Context,
    *,
    target: Annotated[
        str, typer.Option(envvar="DARKBLOOM_ADMIN_TARGET", help="billing's gRPC listener")
    ] = "127.0.0.1:7102",
    mesh_token_file: Annotated[
        Path | None,
        typer.Option(envvar="DARKBLOOM_MESH_TOKEN_FILE", help="token of internal calls"),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(envvar="DARKBLOOM_ADMIN_TOKEN_FILE", help="your own token; writes need it"),
    ] = None,
    as_json: Annotated[bool, typer.Option(_JSON, help="One JSON object.")] = False,
) -> None:
    """See `--help`."""
    context.obj = Desk(target, read_token(mesh_token_file), read_token(token_file), as_json)


main.__doc__ = _HELP
cli.add_typer(accounts.accounts, name="accounts")
cli.add_typer(accounts.keys, name="keys")
cli.command("credit")(money.credit)
cli.command("reward")(money.reward)
cli.add_typer(money.prices, name="prices")
cli.add_typer(money.budgets, name="budgets")
cli.add_typer(money.invites, name="invites")
cli.add_typer(money.withdrawals, name="withdrawals")
cli.add_typer(books.audit, name="audit")
cli.add_typer(books.seal, name="seal")
cli.command("export")(books.export)
cli.command("verify")(books.verify)
cli.add_typer(erase.erase, name="erase")
cli.add_typer(history.history, name="history")


def arguments(given: Sequence[str]) -> list[str]:
    """Return a command line with `--json` where the parser looks for it: it may stand anywhere."""
    rest = [word for word in given if word != _JSON]
    return [_JSON, *rest] if len(rest) < len(given) else rest


def run() -> None:
    """Run the command line of this process."""
    cli(args=arguments(sys.argv[1:]), prog_name="darkbloom-admin")
