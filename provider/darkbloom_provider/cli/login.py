"""`darkbloom login`, `logout`, `whoami`: whose account this machine earns for."""

import asyncio
import json
import shlex
import socket
from collections.abc import Mapping
from typing import Annotated
from urllib.parse import urlsplit

import typer
from darkbloom_edge.signatures import to_base64
from darkbloom_mesh.clock import Clock, SystemClock

from darkbloom_provider.account import (
    Account,
    AccountError,
    DeviceCode,
    LoggedOutError,
    Login,
    SlowDown,
    read_login,
    write_login,
)
from darkbloom_provider.cli import context
from darkbloom_provider.config import ProviderConfig
from darkbloom_provider.device_key import open_device_key

_LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})
_SLOWER_S = 5

Json = Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.")]


def login(json_: Json = False) -> None:
    """Link this machine to your account, so that it earns for you.

    Shows a code to type at the console; where this machine is logged in, it is only linked again.
    """
    link_here(_config(), SystemClock(), json_=json_)


def link_here(config: ProviderConfig, clock: Clock, *, json_: bool = False) -> None:
    """Log in and link, as the command does.

    Raises:
        AccountError: refused, too late, or the gateway does not answer.
    """
    config.folders.create()
    asyncio.run(_login(config, clock, json_=json_))


def logout(
    json_: Json = False,
    force: Annotated[
        bool, typer.Option(help="Forget the login here even if the gateway cannot be told.")
    ] = False,
) -> None:
    """Revoke this machine's login and forget it; the machine stays linked."""
    config = _config()
    path = config.folders.login
    stored = read_login(path)
    if stored is not None:
        asyncio.run(_revoke(stored, force=force))
        path.unlink(missing_ok=True)
    _say(json_, {"logged_in": False}, "Logged out." if stored else "This machine is not logged in.")


def whoami(json_: Json = False) -> int:
    """Show the account that this machine is logged in to; exit code 1 where there is none."""
    config = _config()
    stored = read_login(config.folders.login)
    if stored is None:
        _say(json_, {"logged_in": False}, "This machine is not logged in. Run `darkbloom login`.")
        return 1
    found = asyncio.run(_whoami(stored))
    key = to_base64(open_device_key(config).public)
    facts = {
        "logged_in": True,
        "account_id": found.get("account_id"),
        "label": found.get("label"),
        "machine_name": found.get("machine_name"),
        "gateway": stored.gateway,
        "identity_key": key,
    }
    text = f"Earns for {facts['account_id']} at {stored.gateway} (login {facts['label']})."
    _say(json_, facts, text)
    return 0


async def _login(config: ProviderConfig, clock: Clock, *, json_: bool) -> None:
    home = config.folders
    machine = config.name or socket.gethostname()
    signer = open_device_key(config)
    stored = read_login(home.login)
    if stored is None or not await _counts(stored):
        stored = await _approved(_gateway(config), machine, clock, json_=json_)
        write_login(home.login, stored)
    async with Account(stored.gateway, stored.token) as account:
        await account.link(signer, stored.account_id, machine)
    facts = {
        "event": "linked",
        "account_id": stored.account_id,
        "identity_key": to_base64(signer.public),
    }
    _say(json_, facts, f"Linked: this machine earns for {stored.account_id}.")


async def _approved(gateway: str, machine: str, clock: Clock, *, json_: bool) -> Login:
    """Show a code and return the login that its approval brings."""
    async with Account(gateway) as account:
        code = await account.begin(machine)
        _show(code, gateway, json_=json_)
        end = clock.monotonic() + code.expires_in_s
        interval_s = code.interval_s
        while clock.monotonic() < end:
            try:
                found = await account.poll(code.device_code)
            except SlowDown:
                interval_s += _SLOWER_S
                found = None
            if found is not None:
                token, account_id = found
                return Login(gateway=gateway, account_id=account_id, token=token)
            await clock.sleep(interval_s)
    raise AccountError("the code has expired", "run darkbloom login again")


async def _counts(stored: Login) -> bool:
    try:
        async with Account(stored.gateway, stored.token) as account:
            await account.whoami()
    except LoggedOutError:
        return False
    return True


async def _whoami(stored: Login) -> dict[str, object]:
    async with Account(stored.gateway, stored.token) as account:
        return dict(await account.whoami())


async def _revoke(stored: Login, *, force: bool) -> None:
    try:
        async with Account(stored.gateway, stored.token) as account:
            await account.revoke()
    except LoggedOutError:
        return
    except AccountError:
        if not force:
            raise


def _config() -> ProviderConfig:
    config = context.config()
    config.folders.create()
    return config


def _gateway(config: ProviderConfig) -> str:
    if config.gateway is None:
        raise AccountError(
            "no gateway is configured",
            "`darkbloom config set coordinator.gateway https://…`, the address of your network",
        )
    return config.gateway


def _show(code: DeviceCode, gateway: str, *, json_: bool) -> None:
    facts = {
        "event": "code",
        "user_code": code.user_code,
        "verification_uri": code.verification_uri,
        "expires_in": code.expires_in_s,
    }
    minutes = code.expires_in_s // 60
    text = (
        f"Open {code.verification_uri} and type this code:\n\n    {code.user_code}\n\n"
        f"Check that it is you who asked. Waiting, at most {minutes} minutes …"
    )
    if urlsplit(code.verification_uri).hostname in _LOCAL:
        text = f"{_by_hand(code, gateway)}\n\n{text}"
    _say(json_, facts, text)


def _by_hand(code: DeviceCode, gateway: str) -> str:
    """Return how to approve without a console; what came from elsewhere is quoted for a shell."""
    url = shlex.quote(f"{gateway.rstrip('/')}/v1/device/approve")
    body = shlex.quote(json.dumps({"user_code": code.user_code}))
    return (
        "No console on this machine? A development mesh takes the approval like this:\n\n"
        "    LOGIN=$(make -s token)\n"
        f'    curl -s {url} -H "Authorization: Bearer $LOGIN" -d {body}'
    )


def _say(json_: bool, facts: Mapping[str, object], text: str) -> None:
    typer.echo(json.dumps(facts) if json_ else text)
