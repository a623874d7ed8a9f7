"""`python -m darkbloom_local up|ask|demo|token|operator|why|backup-check`."""

import asyncio
import json
import signal
import sys
from collections.abc import Coroutine
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from darkbloom_mesh.clock import SystemClock

from darkbloom_local.ask import ask as ask_mesh
from darkbloom_local.backup_check import check as check_backup
from darkbloom_local.banner import banner
from darkbloom_local.demo import demo as run_demo
from darkbloom_local.errors import LocalError
from darkbloom_local.issuer import DEVELOPER, DevelopmentIssuer
from darkbloom_local.mesh import Mesh
from darkbloom_local.models import ALIASES, SCRIPTED, SMOLLM2
from darkbloom_local.operators import register_operator
from darkbloom_local.state import StateDir
from darkbloom_local.why import why as tell_why

QUESTION = "What is the capital of France?"
STATE = Path(".state")

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="The whole mesh on one machine, in development mode.",
)


class EngineName(StrEnum):
    """What the provider runs."""

    MLX = "mlx"
    SCRIPTED = "scripted"


class StripeName(StrEnum):
    """Which Stripe billing talks to."""

    NONE = "none"
    LOCAL = "local"


StateOption = Annotated[
    Path, typer.Option("--state", envvar="DARKBLOOM_STATE", help="Directory of the mesh.")
]
EngineOption = Annotated[
    EngineName, typer.Option(help="mlx: a real model; scripted: deterministic text.")
]


@app.command()
def up(
    state: StateOption = STATE,
    engine: EngineOption = EngineName.MLX,
    port: Annotated[int, typer.Option(help="Port of the gateway.")] = 8080,
    routers: Annotated[int, typer.Option(help="Replicas of the router.", min=1, max=16)] = 1,
    stripe: Annotated[
        StripeName, typer.Option(help="local: a Stripe without money, to try payments.")
    ] = StripeName.NONE,
    *,
    mtls: Annotated[
        bool, typer.Option("--mtls", help="Rooms know each other by certificates, not a token.")
    ] = False,
) -> None:
    """Start the mesh and keep it running until Ctrl-C."""
    local_stripe = stripe is StripeName.LOCAL
    raise typer.Exit(_run(_up(state, engine, port, routers, local_stripe=local_stripe, mtls=mtls)))


@app.command()
def ask(
    question: Annotated[
        str, typer.Argument(envvar="DARKBLOOM_QUESTION", help="What to ask.")
    ] = QUESTION,
    state: StateOption = STATE,
    model: Annotated[str, typer.Option(help="Alias or build; default: the first one.")] = "",
    max_tokens: Annotated[int, typer.Option(help="Longest answer.", min=1)] = 128,
) -> None:
    """Ask the running mesh; print the answer as it comes and what backs it."""
    try:
        code = ask_mesh(state, question or QUESTION, model=model, max_tokens=max_tokens)
    except LocalError as error:
        code = _fail(error)
    raise typer.Exit(code)


@app.command()
def demo(
    engine: EngineOption = EngineName.MLX,
    cache: Annotated[Path, typer.Option(help="Where downloads are kept.")] = STATE / "cache",
) -> None:
    """Start a fresh mesh, ask, check receipt and ledger, stop; the last line is JSON."""
    raise typer.Exit(_run(run_demo(QUESTION, engine=engine.value, cache=cache, progress=_progress)))


@app.command()
def token(
    state: StateOption = STATE,
    email: Annotated[str, typer.Option(help="Who signs in.")] = DEVELOPER,
) -> None:
    """Print a login token of the development issuer, good for an hour."""
    directory = StateDir(state)
    try:
        directory.running()
        said = DevelopmentIssuer(directory.root / "keys" / "login-issuer.pem").token(email)
    except LocalError as error:
        raise typer.Exit(_fail(error)) from None
    typer.echo(said)


@app.command()
def operator(
    name: Annotated[str, typer.Argument(help="As the audit will name this person.")],
    state: StateOption = STATE,
) -> None:
    """Register an operator of the running mesh; print what `darkbloom-admin` needs, for a shell."""
    directory = StateDir(state)
    try:
        said = asyncio.run(register_operator(directory, name))
    except LocalError as error:
        raise typer.Exit(_fail(error)) from None
    typer.echo(said)


@app.command()
def why(
    name: Annotated[str, typer.Argument(help="Request, or X-Inference-Job-ID of an answer.")] = "",
    state: StateOption = STATE,
) -> None:
    """Show which machines a request was offered to and why, or the last decisions."""
    try:
        said = tell_why(StateDir(state), name)
    except LocalError as error:
        raise typer.Exit(_fail(error)) from None
    typer.echo(said)


@app.command("backup-check")
def backup_check(
    store: Annotated[Path, typer.Option(help="Where base backup and log are archived.")],
    heads: Annotated[Path, typer.Option(help="Copies of the sealed history (SEAL_DIRECTORY).")],
    scratch: Annotated[
        Path | None, typer.Option(help="Where the restored cluster may lie meanwhile.")
    ] = None,
) -> None:
    """Restore the newest backup, prove its books, delete it; one line of JSON, for a schedule."""
    try:
        found = check_backup(store, heads, now=SystemClock().now(), scratch=scratch)
    except (LocalError, OSError) as error:
        typer.echo(json.dumps({"sound": False, "problems": ["not_restored"], "failed": str(error)}))
        raise typer.Exit(1) from None
    typer.echo(json.dumps({name: told for name, told in found.items() if name != "exit"}))
    raise typer.Exit(0 if found["sound"] and not found["exit"] else 1)


async def _up(
    state: Path, engine: EngineName, port: int, routers: int, *, local_stripe: bool, mtls: bool
) -> int:
    mesh = Mesh(
        state,
        engine=engine.value,
        http_port=port,
        routers=routers,
        local_stripe=local_stripe,
        mtls=mtls,
        records=True,
        progress=_progress,
    )
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    asked_before = False

    def stop() -> None:
        nonlocal asked_before
        if asked_before:
            _progress("stopping at once")
            mesh.kill_all()
        elif task is not None:
            _progress("draining; once more ends everything at once")
            task.cancel()
        asked_before = True

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    try:
        async with mesh:
            build = SMOLLM2 if engine is EngineName.MLX else SCRIPTED
            sys.stdout.write(banner(mesh, ALIASES[build]))
            sys.stdout.flush()
            await mesh.watch()
    except asyncio.CancelledError:
        _progress("stopped; the data stays")
    return 0


def _run(work: Coroutine[Any, Any, int]) -> int:
    try:
        return asyncio.run(work)
    except LocalError as error:
        return _fail(error)


def _fail(error: LocalError) -> int:
    sys.stderr.write(f"\ndarkbloom: {str(error).rstrip()}\n")
    return 1


def _progress(text: str) -> None:
    sys.stderr.write(f"  {text}\n")
    sys.stderr.flush()
