"""`python -m darkbloom_billing state export|verify|import`, as the owner of the database."""

import asyncio
import json
from collections.abc import Coroutine
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from darkbloom_mesh.clock import SystemClock
from darkbloom_mesh.config import main_config
from darkbloom_mesh.errors import MeshError

from darkbloom_billing.config import BillingConfig
from darkbloom_billing.state import age
from darkbloom_billing.state.file import Manifest
from darkbloom_billing.state.moving import export_state, import_state, verify_state

_ROOM = "billing"
state = typer.Typer(
    no_args_is_help=True,
    help="The whole state as one file, encrypted to its recipients; and into an empty database. "
    "Exit code 1: refused, with the reason; nothing was written.",
)
File = Annotated[Path, typer.Argument(help="The file, .age.")]
IdentityFile = Annotated[
    Path, typer.Option("--identity-file", help="As age-keygen writes it; never on a server.")
]


@state.command("export")
def write(
    path: File,
    recipient: Annotated[
        list[str], typer.Option("--recipient", help="age1…; may be given several times.")
    ],
) -> None:
    """Write everything as of one moment. Plaintext touches no disk."""

    async def work() -> Manifest:
        config = main_config(BillingConfig, _ROOM)
        to = age.recipients(recipient)
        return await export_state(config.database_url, path, to, now=SystemClock().now())

    _show(work())


@state.command()
def verify(path: File, identity_file: IdentityFile) -> None:
    """Check digests, rows and sums of a file; needs no database."""

    async def work() -> Manifest:
        return await asyncio.to_thread(verify_state, path, age.identities(identity_file))

    _show(work())


@state.command("import")
def read(path: File, identity_file: IdentityFile) -> None:
    """Fill an empty, migrated database; the books are audited before it is committed."""

    async def work() -> Manifest:
        config = main_config(BillingConfig, _ROOM)
        who = age.identities(identity_file)
        return await import_state(config.database_url, path, who, now=SystemClock().now())

    _show(work())


def _show(work: Coroutine[Any, Any, Manifest]) -> None:
    try:
        manifest = asyncio.run(work)
    except MeshError as error:
        typer.echo(f"{type(error).__name__}: {error.message}", err=True)
        raise typer.Exit(1) from None
    except OSError as error:
        typer.echo(f"{type(error).__name__}: the file cannot be read or written", err=True)
        raise typer.Exit(1) from None
    typer.echo(json.dumps(asdict(manifest)))
