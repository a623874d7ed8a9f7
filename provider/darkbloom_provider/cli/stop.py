"""`darkbloom stop` and `darkbloom restart`: drain first, lose nothing."""

from typing import Annotated

import msgspec
import typer

from darkbloom_provider.cli.background import background
from darkbloom_provider.service.background import DEFAULT_STARTUP_S, MAX_STARTUP_S
from darkbloom_provider.service.leaving import DEFAULT_TIMEOUT_S, MAX_TIMEOUT_S

Timeout = Annotated[
    float,
    typer.Option(help="Seconds to wait for running work.", min=0, max=MAX_TIMEOUT_S),
]
Force = Annotated[
    bool, typer.Option("--force", help="End running work at once; what was delivered is settled.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def stop(
    timeout: Timeout = DEFAULT_TIMEOUT_S,
    force: Force = False,
    uninstall: Annotated[
        bool, typer.Option("--uninstall", help="Also remove the background service.")
    ] = False,
    json_: Json = False,
) -> None:
    """Finish running work, stop, and stay stopped after a reboot.

    Exit code 1 when work still runs after the time: the agent goes on finishing it, takes nothing
    new and is not started again.
    """
    pid = background().stop(timeout_s=timeout, force=force, uninstall=uninstall)
    if json_:
        facts = {"stopped": pid is not None, "pid": pid, "uninstalled": uninstall}
        typer.echo(msgspec.json.encode(facts).decode())
        return
    typer.echo("No agent was running." if pid is None else f"Stopped the agent (process {pid}).")
    if uninstall:
        typer.echo("The background service is removed; models, login and identity stay.")
    else:
        typer.echo("It stays stopped until `darkbloom start`.")


def restart(
    timeout: Timeout = DEFAULT_TIMEOUT_S,
    force: Force = False,
    startup_timeout: Annotated[
        float,
        typer.Option(help="Seconds for the new agent to be authorised.", min=1, max=MAX_STARTUP_S),
    ] = DEFAULT_STARTUP_S,
    json_: Json = False,
) -> None:
    """Finish running work, start again as before, and wait until the router trusts the new process.

    Exit code 1 when no new process with a fresh key is authorised in time.
    """
    facts = background().restart(timeout_s=timeout, startup_s=startup_timeout, force=force)
    if json_:
        typer.echo(msgspec.json.encode(facts).decode())
        return
    typer.echo(f"Restarted: process {facts.pid}, version {facts.version}.")
    if facts.phase == "closed":
        typer.echo(f"The schedule is closed; it opens {facts.opens_at}.")
    else:
        typer.echo(f"Authorised: {facts.connection}, trust {facts.trust_level}.")
