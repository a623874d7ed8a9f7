"""The command line of `darkbloom-proxy`.

Exit codes: 0 ended as asked, 64 bad arguments, 78 bad keys, policy or port.
"""

import asyncio
import os
import secrets
import socket
import sys
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import orjson
import typer
from darkbloom_edge.verdict import TrustLevel

from darkbloom_client.loopback import is_loopback
from darkbloom_client.pins import Pins, PinsError
from darkbloom_client.policy import MINIMUM_MICROS, Policy, PolicyError, PriceLimit
from darkbloom_client.proxy.app import ProxyApp
from darkbloom_client.proxy.errors import ProxyError
from darkbloom_client.proxy.guard import Guard
from darkbloom_client.proxy.server import base_url, bind, make_server
from darkbloom_client.transport import AsyncTransport

EX_USAGE, EX_CONFIG = 64, 78
PORT = 8484
_TYPER_USAGE = 2
_PRIVATE_MODE = 0o600
_MAX_KEY_BYTES = 4096


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(metadata.version("darkbloom-client"))
        raise typer.Exit


def run(
    url: Annotated[
        str, typer.Option(envvar="DARKBLOOM_URL", help="The gateway, such as https://host.")
    ],
    keys: Annotated[
        Path,
        typer.Option(
            help="Keys that you trust: a saved GET /v1/receipts/keys. Fetch it once, over a line "
            "that you trust, compare it with others, and keep it."
        ),
    ],
    api_key_file: Annotated[
        Path | None,
        typer.Option(help="File with your API key; else DARKBLOOM_API_KEY.", show_default=False),
    ] = None,
    api_key: Annotated[
        str, typer.Option(envvar="DARKBLOOM_API_KEY", hidden=True, show_envvar=False)
    ] = "",
    app_id: Annotated[
        str | None,
        typer.Option(help="The provider's app that Apple has to vouch for: <TeamID>.<bundle id>."),
    ] = None,
    trust: Annotated[
        str, typer.Option(help="Lowest level that may read a prompt: hardware or self_signed.")
    ] = "hardware",
    release: Annotated[
        list[str] | None,
        typer.Option(
            help="A code release that may read it; may be given more than once. Without it, every "
            "one that the pinned log has blessed."
        ),
    ] = None,
    allow_unattested: Annotated[
        bool,
        typer.Option(
            "--allow-unattested", help="Take machines of which nothing is proven: `make run`."
        ),
    ] = False,
    max_input_price: Annotated[
        int | None, typer.Option(help="Micro-USD per 1,000,000 prompt tokens, at most.", min=0)
    ] = None,
    max_output_price: Annotated[
        int | None, typer.Option(help="Micro-USD per 1,000,000 completion tokens, at most.", min=0)
    ] = None,
    max_minimum_charge: Annotated[
        int | None,
        typer.Option(help="Micro-USD of a request whose tokens cost less; 100.", min=0),
    ] = None,
    max_hold: Annotated[
        int | None,
        typer.Option(help="Micro-USD held for one request; its bounds at these prices.", min=0),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 takes a free one.", min=0, max=65535)] = PORT,
    allow_remote: Annotated[
        bool,
        typer.Option("--allow-remote", help="Listen where others can reach it, in plaintext."),
    ] = False,
    local_key_file: Annotated[
        Path | None,
        typer.Option(
            help="File with the key that local programs must bring; made if it is not there. "
            "Without it a new key is printed at each start.",
            show_default=False,
        ),
    ] = None,
    no_auth: Annotated[
        bool, typer.Option("--no-auth", help="Let every program of this machine in.")
    ] = False,
    json_: Annotated[
        bool, typer.Option("--json", help="Print the start as one JSON line.")
    ] = False,
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Give any OpenAI or Anthropic tool end-to-end encryption, from this machine.

    Point the tool at http://127.0.0.1:8484/v1 (Anthropic's: without /v1). Prompts are sealed here
    to the machine that answers, after its evidence has been checked against your policy; answers
    are opened and proven here. The gateway sees model, sizes and counts. What does not satisfy the
    policy is refused with HTTP 403 and a `code` that names the rule; nothing is ever taken on
    weaker terms.

    A first start, against a real mesh:

        curl -s $DARKBLOOM_URL/v1/receipts/keys > keys.json

        darkbloom-proxy --url $DARKBLOOM_URL --keys keys.json --app-id TEAMID.app

    Against `make run`, where nothing is attested:

        darkbloom-proxy --url http://127.0.0.1:8080 --keys keys.json --allow-unattested
    """
    limit = _limit(max_input_price, max_output_price, max_minimum_charge, max_hold)
    policy = _policy(keys, app_id, trust, release, limit, unattested=allow_unattested)
    upstream = _upstream(url)
    credential = api_key if api_key_file is None else _read(api_key_file)
    if not credential:
        raise ProxyError("no API key", "give --api-key-file, or set DARKBLOOM_API_KEY")
    local = _local_key(local_key_file, no_auth=no_auth)
    if local is None and not is_loopback(host):
        raise ProxyError("--no-auth would let everybody in", "leave out --no-auth or --host")
    listener = bind(host, port, allow_remote=allow_remote)
    about = {"upstream": upstream, "mode": "end_to_end", "policy": policy.described()}
    _announce(listener, about, None if local_key_file is not None else local, as_json=json_)
    guard = Guard(local, remote=allow_remote)
    asyncio.run(_serve(listener, policy, upstream, credential, guard, about))


async def _serve(
    listener: socket.socket,
    policy: Policy,
    upstream: str,
    api_key: str,
    guard: Guard,
    about: dict[str, Any],
) -> None:
    async with AsyncTransport(policy) as transport:
        app = ProxyApp(transport, upstream=upstream, api_key=api_key, guard=guard, about=about)
        await make_server(app).serve([listener])


def _limit(
    input_price: int | None, output_price: int | None, minimum: int | None, hold: int | None
) -> PriceLimit | None:
    if input_price is None or output_price is None:
        if (input_price, output_price, minimum, hold) == (None, None, None, None):
            return None
        raise ProxyError("a price limit has two sides", "give both --max-…-price")

    return PriceLimit(
        input_micros=input_price,
        output_micros=output_price,
        minimum_micros=MINIMUM_MICROS if minimum is None else minimum,
        hold_micros=hold,
    )


def _policy(
    keys: Path,
    app_id: str | None,
    trust: str,
    release: list[str] | None,
    limit: PriceLimit | None,
    *,
    unattested: bool,
) -> Policy:
    levels: dict[str, TrustLevel] = {"hardware": "hardware", "self_signed": "self_signed"}
    if trust not in levels:
        raise ProxyError("--trust is hardware or self_signed", "for less, say --allow-unattested")
    try:
        return Policy(
            pins=Pins.load(keys),
            app_id=app_id,
            trust=levels[trust],
            allowed_releases=release or None,
            allow_unattested=unattested,
            max_price=limit,
        )
    except PinsError as error:
        raise ProxyError(str(error), "save GET /v1/receipts/keys into a file") from None
    except PolicyError as error:
        raise ProxyError(str(error), "see --help") from None


def _upstream(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ProxyError("--url is no http or https URL")
    if parts.scheme == "http" and not is_loopback(parts.hostname):
        raise ProxyError("your API key would travel in plaintext", "use an https URL")

    return url.rstrip("/").removesuffix("/v1")


def _local_key(path: Path | None, *, no_auth: bool) -> str | None:
    if no_auth:
        if path is not None:
            raise ProxyError("--no-auth and --local-key-file contradict each other")
        return None
    fresh = "sk-local-" + secrets.token_urlsafe(24)
    if path is None:
        return fresh
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _PRIVATE_MODE)
    except FileExistsError:
        found = _read(path)
        if not found:
            raise ProxyError(f"{path} is empty", "remove it, and a key is made") from None
        return found
    except OSError as error:
        raise ProxyError(f"{path} cannot be written ({error.strerror})") from None
    with os.fdopen(descriptor, "w") as file:
        file.write(fresh + "\n")

    return fresh


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_MAX_KEY_BYTES).decode("ascii").strip()
    except OSError as error:
        raise ProxyError(f"{path} cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise ProxyError(f"{path} holds no key") from None


def _announce(
    listener: socket.socket, about: dict[str, Any], key: str | None, *, as_json: bool
) -> None:
    url = base_url(listener)
    if as_json:
        typer.echo(orjson.dumps({"base_url": url, "api_key": key, **about}).decode())
        return
    typer.echo(f"OpenAI tools     {url}")
    typer.echo(f"Anthropic tools  {url.removesuffix('/v1')}")
    if key is not None:
        typer.echo(f"local key        {key}")
    typer.echo(f"gateway          {about['upstream']}, which sees model, sizes and counts")
    typer.echo("policy")
    for name, value in about["policy"].items():
        shown = ", ".join(map(str, value)) if isinstance(value, list) else value
        typer.echo(f"  {name:<17}{'-' if shown is None else shown}")


def main(arguments: list[str] | None = None) -> int:
    """Run the command; what is wrong is told in one line, without a traceback."""
    app = typer.Typer(
        name="darkbloom-proxy",
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.command()(run)
    try:
        app(args=arguments)
    except SystemExit as left:
        code = left.code if isinstance(left.code, int) else 1
        return EX_USAGE if code == _TYPER_USAGE else code
    except ProxyError as error:
        remedy = f"; {error.remedy}" if error.remedy else ""
        sys.stderr.write(f"darkbloom-proxy: {error}{remedy}\n")
        return EX_CONFIG

    return 0
