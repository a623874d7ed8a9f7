"""The command line: one module per command, joined here.

Exit codes: 0 ok, 1 a failure at run time, 64 bad arguments, 78 bad configuration. What a program
may want comes as JSON with `--json` on standard output; everything for people goes there too, logs
and errors go to standard error.
"""

from importlib import metadata
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from darkbloom_provider.cli import (
    doctor,
    earnings,
    enroll,
    identity,
    login,
    models,
    start,
    status,
    verify,
)
from darkbloom_provider.errors import ProviderError
from darkbloom_provider.models.errors import ModelError

EX_USAGE = 64
_TYPER_USAGE = 2


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(metadata.version("darkbloom-provider"))
        raise typer.Exit


def _root(
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Serve private inference from this machine, and see that it earns."""


def _leave(code: int | None, **_options: object) -> None:
    raise typer.Exit(code or 0)


app = typer.Typer(
    name="darkbloom",
    callback=_root,
    no_args_is_help=True,
    add_completion=False,
    result_callback=_leave,
    pretty_exceptions_enable=False,
    epilog="First steps: `darkbloom doctor`, `darkbloom models import`, `darkbloom start`.",
)
app.command("start")(start.start)
app.command("status")(status.status)
app.command("doctor")(doctor.doctor)
app.command("verify")(verify.verify)
app.command("enroll")(enroll.enroll)
app.command("unenroll")(enroll.unenroll)
app.command("code-release")(start.show_code_release)
app.command("identity")(identity.show_identity)
app.command("login")(login.login)
app.command("logout")(login.logout)
app.command("whoami")(login.whoami)
app.command("earnings")(earnings.earnings)
app.add_typer(models.app, name="models")


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code; failures become one or two plain lines."""
    errors = Console(stderr=True, highlight=False)
    try:
        app(args=arguments)
    except SystemExit as left:
        code = left.code if isinstance(left.code, int) else 1
        return EX_USAGE if code == _TYPER_USAGE else code
    except ProviderError as error:
        _show(errors, error.message, error.remedy)
        return 1
    except ModelError as error:
        _show(errors, str(error))
        return 1
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        _show(errors, f"{where}{error.strerror or type(error).__name__}")
        return 1
    return 0


def _show(console: Console, message: str, remedy: str = "") -> None:
    console.print(f"[red]error:[/] {escape(message)}", soft_wrap=True)
    if remedy:
        console.print(f"       {escape(remedy)}", soft_wrap=True)
