"""The commands of `python -m darkbloom_attestation`."""

from pathlib import Path
from typing import Annotated

import typer
from darkbloom_mesh.config import CHECK_CONFIG, CHECK_HELP, main_config
from darkbloom_mesh.serve import run

from darkbloom_attestation import app
from darkbloom_attestation.cli.app_attest import verify_app_attest
from darkbloom_attestation.cli.blob import verify_blob
from darkbloom_attestation.cli.challenge import verify_answer
from darkbloom_attestation.cli.files import judged
from darkbloom_attestation.cli.mda import verify_mda_file
from darkbloom_attestation.cli.release import release
from darkbloom_attestation.config import AttestationConfig

cli = typer.Typer(add_completion=False, help="Attestation: serve, migrate, verify evidence.")


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
    config = main_config(AttestationConfig, app.ROOM)
    raise typer.Exit(run(lambda: app.serve(config)))


@cli.command()
def migrate(
    *,
    new: Annotated[bool, typer.Option("--new", help="Also where the database is blank.")] = False,
) -> None:
    """Bring the schema to its newest revision, as the owner of the database."""
    raise typer.Exit(app.migrate(main_config(AttestationConfig, app.ROOM), new=new))


@cli.command("verify-blob")
def verify_blob_file(
    file: Annotated[Path, typer.Argument(help="JSON with a registration and verify_at.")],
) -> None:
    """Judge a registration blob offline; the exit code is 0 where nothing hard is wrong."""
    judged(file, verify_blob)


@cli.command("verify-challenge")
def verify_challenge_file(
    file: Annotated[Path, typer.Argument(help="JSON with a challenge, its answer, verify_at.")],
) -> None:
    """Judge the answer to a challenge offline; the exit code is 0 where it passes."""
    judged(file, verify_answer)


cli.add_typer(release, name="release")
cli.command("verify-app-attest")(verify_app_attest)
cli.command("verify-mda")(verify_mda_file)
