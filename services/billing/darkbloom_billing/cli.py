"""The commands of `python -m darkbloom_billing`."""

import asyncio
import json
import secrets
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer
from darkbloom_mesh.clock import SystemClock
from darkbloom_mesh.config import CHECK_CONFIG, CHECK_HELP, main_config
from darkbloom_mesh.serve import run

from darkbloom_billing import app
from darkbloom_billing.admin import operators
from darkbloom_billing.config import BillingConfig
from darkbloom_billing.recovery.checking import MAX_BEHIND
from darkbloom_billing.recovery.command import BackupCheck, Restored
from darkbloom_billing.recovery.stopping import STOPPED, until_terminated
from darkbloom_billing.state.cli import state

cli = typer.Typer(add_completion=False, help="Billing: serve, migrate, operator, audit.")

cli.add_typer(state, name="state")


@cli.callback(invoke_without_command=True)
def default(
    context: typer.Context,
    *,
    check_config: Annotated[bool, typer.Option(CHECK_CONFIG, help=CHECK_HELP)] = False,
) -> None:
    """Serve where no command is named."""
    if check_config or context.invoked_subcommand is None:
        serve()


@cli.command()
def serve() -> None:
    """Serve until told to stop."""
    config = main_config(BillingConfig, app.ROOM)
    raise typer.Exit(run(lambda: app.serve(config)))


@cli.command()
def migrate(
    *,
    new: Annotated[bool, typer.Option("--new", help="Also where the database is blank.")] = False,
) -> None:
    """Bring the schemas to their newest revision, as the owner of the database."""
    typer.echo(app.migrate(main_config(BillingConfig, app.ROOM), new=new))


@cli.command()
def operator(
    name: Annotated[str, typer.Argument(help="As the audit will name this person.")],
    *,
    revoke: Annotated[bool, typer.Option("--revoke", help="End the token instead.")] = False,
) -> None:
    """Register an operator, as the owner of the database; prints a personal token, this once."""
    config = main_config(BillingConfig, app.ROOM)
    now = SystemClock().now()
    if revoke:
        found = asyncio.run(operators.revoke(config.database_url, name, now=now))
        typer.echo("revoked" if found else "no such operator", err=not found)
        raise typer.Exit(0 if found else 1)
    token = f"{operators.TOKEN_PREFIX}{secrets.token_urlsafe(32)}"
    asyncio.run(operators.register(config.database_url, name, token, now=now))
    typer.echo(token)


@cli.command()
def audit(
    *, as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False
) -> None:
    """Check the whole ledger; the exit code is 1 where the books are broken."""
    report = asyncio.run(app.check(main_config(BillingConfig, app.ROOM)))
    if as_json:
        typer.echo(json.dumps(report.body()))
    else:
        for violation in report.violations:
            typer.echo(f"violation {violation.check}: {violation.what}")
        for name, number in {**report.findings, **report.counts}.items():
            typer.echo(f"{name} {number}")
        typer.echo(f"violations {len(report.violations)}")
    raise typer.Exit(1 if report.violations else 0)


@cli.command()
def head(
    *,
    directory: Annotated[
        Path | None, typer.Option(help="Also write it to a file of its own in this directory.")
    ] = None,
) -> None:
    """Print the head of the sealed history; the exit code is 1 where nothing is sealed yet."""
    block = asyncio.run(app.sealed_head(main_config(BillingConfig, app.ROOM), directory))
    if block is None:
        raise typer.Exit(1)
    typer.echo(json.dumps(block.head()))


@cli.command()
def recover(
    *,
    to: Annotated[str, typer.Option("--to", help="Moment of the restore, RFC 3339 with its zone.")],
    erasures: Annotated[
        Path | None, typer.Option(help="Records of confirmed erasures (ERASURE_DIRECTORY).")
    ] = None,
    heads: Annotated[
        Path | None, typer.Option(help="Copies of the sealed history (the old SEAL_DIRECTORY).")
    ] = None,
    void_all: Annotated[
        bool,
        typer.Option("--void-all", help="Every router and gateway was down: end all holds."),
    ] = False,
    acknowledge: Annotated[
        list[str] | None,
        typer.Option("--acknowledge", help="Id of a finding that you have dealt with; repeatable."),
    ] = None,
) -> None:
    """Do what follows a restore: holds, Stripe, erasures, sealed history, whole audit.

    Run it before billing serves, as often as needed. Prints one JSON object; the exit code is 1
    while a person has something to look at.
    """
    moment = _moment(to)
    config = main_config(BillingConfig, app.ROOM)
    done = asyncio.run(
        app.recover_from(
            config,
            moment,
            erasures=erasures,
            heads=heads,
            void_all=void_all,
            acknowledge=acknowledge or (),
        )
    )
    typer.echo(json.dumps(done))
    raise typer.Exit(0 if done["sound"] else 1)


@cli.command("backup-check")
def backup_check(
    *,
    heads: Annotated[Path, typer.Option(help="Copies of the sealed history (SEAL_DIRECTORY).")],
    record: Annotated[
        Path | None, typer.Option(help="Write a success down here; best the same directory.")
    ] = None,
    at: Annotated[
        str, typer.Option(help="When the restore began, RFC 3339 with its zone; default: now.")
    ] = "",
    max_behind_s: Annotated[
        float, typer.Option(help="By how much the archive may lag behind the seals, in s.", min=0)
    ] = MAX_BEHIND.total_seconds(),
    cluster: Annotated[
        str,
        typer.Option(help="Let CloudNativePG restore the newest backup of this cluster first."),
    ] = "",
    scratch: Annotated[
        str, typer.Option(help="Name of the cluster that is restored, and deleted afterwards.")
    ] = "backup-check",
    namespace: Annotated[str, typer.Option(help="Of both clusters.")] = "darkbloom",
    api: Annotated[str, typer.Option(help="Of Kubernetes.")] = "https://kubernetes.default.svc",
    credentials: Annotated[
        Path, typer.Option(help="Directory with `token` and `ca.crt` for it.")
    ] = Path("/run/secrets/kubernetes"),
    wait_s: Annotated[float, typer.Option(help="Longest wait for the restore.", min=1)] = 3000,
) -> None:
    """Prove that a restored backup holds the books: sealed heads, and an audit of everything.

    DATABASE_URL names the restored database, never the live one; with --cluster it is the live
    login, and only the host is another. Stripe is not asked. Prints one JSON object; the exit code
    is 1 where the backup is none, and 143 after SIGTERM, which deletes what was restored.
    """
    config = main_config(BillingConfig, app.ROOM)
    restored = Restored(
        address=api,
        credentials=credentials,
        namespace=namespace,
        live=cluster,
        scratch=scratch,
        wait_s=wait_s,
    )
    wanted = BackupCheck(
        config=config,
        clock=config.clock(),
        heads=heads,
        record=record,
        max_behind=timedelta(seconds=max_behind_s),
        restored=restored if cluster else None,
    )
    moment = _moment(at) if at else None
    try:
        told = asyncio.run(until_terminated(wanted.run(moment)))
    except asyncio.CancelledError:
        # What it had found is lost; what it had made is on its way out.
        typer.echo(json.dumps({"sound": False, "problems": ["not_checked"], "failed": "stopped"}))
        raise typer.Exit(STOPPED) from None
    typer.echo(json.dumps(told))
    raise typer.Exit(0 if told["sound"] else 1)


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter("not a moment") from None
    if moment.tzinfo is None:
        raise typer.BadParameter("a moment needs its zone")
    return moment


@cli.command("erasure-proof")
def prove_erasure(erasure_id: Annotated[str, typer.Argument(help="erase_…")]) -> None:
    """Print the proof of an erasure, for `darkbloom-admin erase verify`."""
    typer.echo(
        json.dumps(
            asyncio.run(app.erasure_bundle(main_config(BillingConfig, app.ROOM), erasure_id))
        )
    )
