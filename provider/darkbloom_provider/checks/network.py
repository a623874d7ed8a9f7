"""The world outside: router, gateway, account. Every probe at once, none longer than 5 seconds."""

import asyncio
import os
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from importlib import metadata
from typing import Any, Final

import httpx

from darkbloom_provider import code_release
from darkbloom_provider.account import Account, AccountError, LoggedOutError, Login
from darkbloom_provider.checks.model import Check, Result, Scene
from darkbloom_provider.errors import ProviderError
from darkbloom_provider.update.versions import newer
from darkbloom_provider.wording import span

PROBE_S: Final = 5.0
"""Bound of one probe."""
CLOSE_S: Final = 1.0
"""Bound of the goodbye to whoever was probed."""
MAX_SKEW_S: Final = 30.0
"""Past it documents that live for minutes begin to look expired or not yet valid."""
_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
"""Opening of an HTTP/2 connection and an empty SETTINGS frame (RFC 9113 section 3.4)."""
_FRAME_HEADER: Final = 9
_SETTINGS: Final = 4
_OK, _NOT_FOUND = 200, 404
_NO_GATEWAY: Final = (
    "`darkbloom config set coordinator.gateway https://…`, the address that your network gave you"
)


async def checks(scene: Scene) -> list[Check]:
    """Probe everything side by side."""
    probes: tuple[Callable[[Scene], Awaitable[list[Check]]], ...] = (_router, _gateway, _account)
    found = await asyncio.gather(*(probe(scene) for probe in probes))
    return [check for group in found for check in group]


# The router.


async def _router(scene: Scene) -> list[Check]:
    """Say whether one of the router's addresses speaks what the agent speaks."""
    reasons = []
    for found in await asyncio.gather(*(_dial(scene, one) for one in scene.config.coordinators)):
        if not found.problem:
            detail = f"{found.address} speaks HTTP/2{' over TLS' if found.tls else ''}"
            return [Check(name="stream transport", area="network", result="pass", detail=detail)]
        reasons.append(found)
    first = reasons[0]
    return [
        Check(
            name="stream transport",
            area="network",
            result="fail",
            detail="; ".join(f"{one.address}: {one.problem}" for one in reasons),
            fix=first.fix,
        )
    ]


@dataclass(frozen=True, slots=True)
class _Dialled:
    address: str
    tls: bool
    problem: str = ""
    fix: str = ""


async def _dial(scene: Scene, address: str) -> _Dialled:
    host, _, port = address.rpartition(":")
    tls = scene.config.coordinator_tls
    outside = "check the network; then the address with `darkbloom config show` (coordinator.url)"
    try:
        context = _context(scene) if tls else None
        async with asyncio.timeout(PROBE_S):
            problem = await _speaks_http2(host.strip("[]"), int(port), context)
    except ProviderError as error:
        return _Dialled(address, tls, error.message, error.remedy)
    except TimeoutError:
        return _Dialled(address, tls, f"no answer in {PROBE_S:.0f} s", outside)
    except ssl.SSLCertVerificationError as error:
        return _Dialled(
            address,
            tls,
            f"its certificate is not accepted ({error.verify_message})",
            "look at `clock` first: a wrong date breaks certificates; else set coordinator.ca_file",
        )
    except ssl.SSLError as error:
        return _Dialled(address, tls, f"no TLS ({error.reason or 'handshake failed'})", outside)
    except OSError as error:
        return _Dialled(address, tls, f"does not answer ({_words(error)})", outside)
    fix = "this is no router: correct coordinator.url" if problem else ""
    return _Dialled(address, tls, problem, fix)


async def _speaks_http2(host: str, port: int, context: ssl.SSLContext | None) -> str:
    """Open a connection as gRPC does and return what is wrong with the answer."""
    reader, writer = await asyncio.open_connection(host, port, ssl=context)
    try:
        if context is not None:
            tls: ssl.SSLObject = writer.get_extra_info("ssl_object")
            if tls.selected_alpn_protocol() != "h2":
                return "answers, but not with HTTP/2"
        writer.write(_PREFACE)
        await writer.drain()
        header = await reader.readexactly(_FRAME_HEADER)
    except asyncio.IncompleteReadError:
        return "answers, but not with HTTP/2"
    finally:
        await _hang_up(writer)
    return "" if header[3] == _SETTINGS else "answers, but not with HTTP/2"


async def _hang_up(writer: asyncio.StreamWriter) -> None:
    """Close a connection, and be rid of it when this returns."""
    writer.close()
    try:
        async with asyncio.timeout(CLOSE_S):
            await writer.wait_closed()
    except TimeoutError:
        # TLS waits for the other side's goodbye, which may never come.
        writer.transport.abort()
    except OSError:
        return  # It broke on its own; that it is gone is all that was wanted.


def _context(scene: Scene) -> ssl.SSLContext:
    path = scene.config.coordinator_ca_file
    try:
        context = ssl.create_default_context(cafile=str(path) if path else None)
    except (OSError, ssl.SSLError) as error:
        raise ProviderError(
            f"{path} holds no usable certificates ({type(error).__name__})",
            "set coordinator.ca_file to a PEM file of root certificates, or unset it",
        ) from error
    context.set_alpn_protocols(["h2"])
    return context


def _words(error: OSError) -> str:
    """Return the system's words; asyncio's own repeat the address."""
    if isinstance(error, socket.gaierror):
        return "no such host"
    return os.strerror(error.errno).lower() if error.errno else type(error).__name__


# The gateway: reachable, what time it is there, what it says of releases.


async def _gateway(scene: Scene) -> list[Check]:
    if not scene.gateway:
        return [
            Check(
                name="coordinator health",
                area="network",
                result="warn",
                detail="no gateway is configured: no login, no clock to compare with",
                fix=_NO_GATEWAY,
            )
        ]
    try:
        async with (
            asyncio.timeout(PROBE_S),
            httpx.AsyncClient(base_url=scene.gateway, timeout=PROBE_S) as http,
        ):
            answer = await http.get("/health")
            latest = await http.get(
                "/v1/releases/latest", params={"platform": code_release.platform_name()}
            )
    except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, ValueError) as error:
        return [
            Check(
                name="coordinator health",
                area="network",
                result="fail",
                detail=f"{scene.gateway} does not answer ({type(error).__name__})",
                fix="check the network; then the address with `darkbloom config show` "
                "(coordinator.gateway)",
            )
        ]
    return [_health(scene, answer), _clock(scene, answer), *_up_to_date(latest)]


def _health(scene: Scene, answer: httpx.Response) -> Check:
    said = _object(answer)
    if answer.status_code != _OK or said.get("status") != "ok":
        return Check(
            name="coordinator health",
            area="network",
            result="fail",
            detail=f"{scene.gateway} answers with status {answer.status_code}",
            fix="wait, and check coordinator.gateway: this may be no gateway",
        )
    draining = ", it is being replaced" if said.get("draining") is True else ""
    detail = f"{scene.gateway} is well{draining}"
    return Check(name="coordinator health", area="network", result="pass", detail=detail)


def _clock(scene: Scene, answer: httpx.Response) -> Check:
    try:
        theirs = parsedate_to_datetime(answer.headers["date"])
        behind_s = (theirs - scene.clock.now()).total_seconds()
    except (KeyError, ValueError, TypeError):
        return Check(
            name="clock",
            area="machine",
            result="warn",
            detail="the gateway does not say what time it is",
            fix="compare this machine's clock by hand",
        )
    if abs(behind_s) <= MAX_SKEW_S:
        return Check(
            name="clock", area="machine", result="pass", detail="agrees with the gateway's"
        )
    word = "behind" if behind_s > 0 else "ahead"
    return Check(
        name="clock",
        area="machine",
        result="fail",
        detail=f"{span(abs(behind_s))} {word} of the gateway's: verdicts and certificates "
        "look expired or not yet valid",
        fix="switch on automatic time: System Settings > General > Date & Time "
        "(Linux: `timedatectl set-ntp true`)",
    )


def _up_to_date(latest: httpx.Response) -> list[Check]:
    here = metadata.version("darkbloom-provider")
    version = _object(latest).get("version")
    if latest.status_code == _NOT_FOUND:
        detail = f"{here}; no release is published for this platform"
        return [Check(name="up to date", area="agent", result="pass", detail=detail)]
    newer = isinstance(version, str) and _older(here, version)
    return [
        Check(
            name="up to date",
            area="agent",
            result="warn" if newer else "pass",
            detail=f"{here}, and {version} is out" if newer else here,
            fix="`darkbloom update`" if newer else "",
        )
    ]


def minimum_version(here: str, floor: str) -> Check:
    """Say whether the router still takes this version."""
    if not floor or not _older(here, floor):
        return Check(
            name="minimum version",
            area="agent",
            result="pass",
            detail=f"{here}; the router takes {floor} and newer" if floor else here,
        )
    return Check(
        name="minimum version",
        area="agent",
        result="fail",
        detail=f"{here} is too old: the router takes {floor} and newer",
        fix="`darkbloom update`, or install the newest version as you installed this one",
    )


def _older(here: str, there: str) -> bool:
    return newer(there, than=here)


def _object(answer: httpx.Response) -> Mapping[str, Any]:
    try:
        found = answer.json()
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


# The account.


async def _account(scene: Scene) -> list[Check]:
    linked = scene.snapshot.account_id if scene.snapshot is not None else ""
    if scene.login_problem:
        fix = "remove that file, then run `darkbloom login`"
        return [_account_check("fail", scene.login_problem, fix)]
    if scene.login is not None:
        return [await _login(scene.login, linked)]
    if linked:
        return [_account_check("pass", f"{linked}; linked without a login on this machine")]
    return [
        _account_check(
            "fail",
            "linked to no account: paid requests do not come here",
            "`darkbloom login`, then type the code that it shows into the page that it names",
        )
    ]


async def _login(login: Login, linked: str) -> Check:
    try:
        async with asyncio.timeout(PROBE_S), Account(login.gateway, login.token) as account:
            await account.whoami()
    except LoggedOutError:
        return _account_check(
            "fail",
            f"the login for {login.account_id} has expired or was revoked",
            "`darkbloom login`, it links this machine again",
        )
    except (AccountError, TimeoutError):
        if linked:
            return _account_check("pass", linked)
        return _account_check(
            "warn",
            f"logged in to {login.account_id}; the gateway could not confirm it",
            "look at `coordinator health`, then try again",
        )
    return _account_check("pass", login.account_id)


def _account_check(result: Result, detail: str, fix: str = "") -> Check:
    return Check(name="account link", area="account", result=result, detail=detail, fix=fix)
