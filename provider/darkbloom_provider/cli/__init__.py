"""The command line: one module per command, listed in `commands`, joined here.

Exit codes: 0 ok, 1 a failure at run time, 64 bad arguments, 78 bad configuration. What a program
may want comes as JSON with `--json` on standard output; everything for people goes there too, logs
and errors go to standard error.
"""

import sys
from importlib import metadata
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from darkbloom_provider.cli import banner, context
from darkbloom_provider.cli.lazy import LazyGroup
from darkbloom_provider.errors import ProviderError
from darkbloom_provider.models.errors import ModelError

EX_USAGE = 64
_TYPER_USAGE = 2


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(metadata.version("darkbloom-provider"))
        raise typer.Exit


def _root(
    ctx: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option("-c", "--config", help="Use this provider.toml.", show_default=False),
    ] = None,
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Serve private inference from this machine, and see that it earns."""
    context.choose(config)
    banner.tell(ctx.invoked_subcommand, config)


def _leave(code: int | None, **_options: object) -> None:
    raise typer.Exit(code or 0)


def make_app() -> typer.Typer:
    """Build the program; boxes and colours only where a terminal shows them."""
    return typer.Typer(
        name="darkbloom",
        cls=LazyGroup,
        callback=_root,
        no_args_is_help=True,
        add_completion=False,
        result_callback=_leave,
        pretty_exceptions_enable=False,
        rich_markup_mode="markdown" if sys.stdout.isatty() else None,
        context_settings={"help_option_names": ["-h", "--help"]},
        epilog="First steps: `darkbloom doctor`, `darkbloom start`. "
        "Each command explains itself with `--help`.",
    )


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code; failures become one or two plain lines."""
    errors = Console(stderr=True, highlight=False)
    try:
        make_app()(args=arguments)
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
