"""The owner's account, as this machine sees it: a provider token in a file, and what it is for."""

import json
import os
import stat
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlencode

import httpx
from darkbloom_edge.errors import EdgeError
from darkbloom_edge.link import LINK_KIND, link_statement
from darkbloom_edge.signatures import IdentitySigner, from_base64, to_base64

from darkbloom_provider.errors import ProviderError

TIMEOUT_S = 20.0
_MAX_FILE = 16_384
_OPEN_TO_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_OK, _UNAUTHENTICATED, _FORBIDDEN, _CONFLICT, _GONE, _BUSY = 200, 401, 403, 409, 410, 429
_NOT_FOUND, _CREATED = 404, 201


class AccountError(ProviderError):
    """The gateway refused, or did not answer."""


class LoggedOutError(AccountError):
    """There is no token here, or it counts no more."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Login:
    """A provider token and where it counts."""

    gateway: str
    account_id: str
    token: str = field(repr=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceCode:
    """What the owner must do, and the secret with which this machine asks whether it was done."""

    device_code: str = field(repr=False)
    user_code: str
    verification_uri: str
    expires_in_s: int
    interval_s: int


def read_login(path: Path) -> Login | None:
    """Return the stored login; None where there is none.

    Raises:
        AccountError: The file is malformed, a link, or open to others.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(file.fileno())
        if status.st_uid != os.getuid() or status.st_mode & _OPEN_TO_OTHERS:
            raise AccountError(
                f"{path} must belong to you and be closed to others",
                f"chmod 600 {path}, or remove it and log in again",
            )
        raw = file.read(_MAX_FILE)
    try:
        found = json.loads(raw)
        return Login(**{name: str(found[name]) for name in ("gateway", "account_id", "token")})
    except (ValueError, KeyError, TypeError):
        raise AccountError(f"{path} is not a login", "remove it and log in again") from None


def write_login(path: Path, login: Login) -> None:
    """Keep a login, mode 0600 from the first byte."""
    descriptor, scratch = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(descriptor, "w") as file:
        json.dump(asdict(login), file)
        file.flush()
        os.fsync(file.fileno())
    Path(scratch).replace(path)


class Account:
    """The gateway's routes for machines.

    Args:
        gateway: its base URL, without `/v1`.
        token: the provider token; empty before the login.
    """

    def __init__(self, gateway: str, token: str = "") -> None:
        headers = {"authorization": f"Bearer {token}"} if token else {}
        self._http = httpx.AsyncClient(
            base_url=gateway.rstrip("/"), headers=headers, timeout=TIMEOUT_S
        )

    async def __aenter__(self) -> Self:
        """Return the account itself."""
        return self

    async def __aexit__(self, *_error: object) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def begin(self, machine_name: str) -> DeviceCode:
        """Begin a login.

        Raises:
            AccountError: The gateway refused or did not answer.
        """
        found = await self._call("POST", "/v1/device/code", {"machine_name": machine_name})
        try:
            return DeviceCode(
                device_code=str(found["device_code"]),
                user_code=str(found["user_code"]),
                verification_uri=str(found["verification_uri"]),
                expires_in_s=int(found["expires_in"]),
                interval_s=max(1, int(found["interval"])),
            )
        except (KeyError, TypeError, ValueError):
            raise _strange() from None

    async def poll(self, device_code: str) -> tuple[str, str] | None:
        """Return (token, account id) once the owner has approved; None: not yet.

        Raises:
            SlowDown: Asked too soon.
            AccountError: It was refused, is over, or the gateway did not answer.
        """
        response = await self._send("POST", "/v1/device/token", {"device_code": device_code})
        if response.status_code == _BUSY:
            raise SlowDown
        if response.status_code == _FORBIDDEN:
            raise AccountError("the owner has refused this machine")
        if response.status_code in (_GONE, _NOT_FOUND):
            raise AccountError("the code has expired", "run darkbloom login again")
        found = _content(response)
        if found.get("status") != "authorized":
            return None
        return str(found.get("token", "")), str(found.get("account_id", ""))

    async def whoami(self) -> Mapping[str, Any]:
        """Return the token's own record.

        Raises:
            LoggedOutError: It counts no more.
            AccountError: The gateway did not answer.
        """
        return await self._call("GET", "/v1/provider/token")

    async def link(self, signer: IdentitySigner, account_id: str, machine_name: str) -> None:
        """Link this machine to the account, proving its identity key.

        Raises:
            AccountError: It is linked to another account, or the gateway did not answer.
        """
        key = to_base64(signer.public)
        challenge = await self._call("POST", "/v1/provider/link/challenge", {"identity_key": key})
        try:
            nonce = from_base64(str(challenge.get("nonce", "")), "nonce")
            statement = link_statement(account_id, signer.public, nonce)
        except EdgeError:
            raise _strange() from None
        proof = {
            "identity_key": key,
            "nonce": to_base64(nonce),
            "signature": to_base64(signer.sign(LINK_KIND, statement)),
            "machine_name": machine_name,
        }
        await self._call("POST", "/v1/provider/link", proof)

    async def revoke(self) -> None:
        """End the token.

        Raises:
            LoggedOutError: It counted no more.
            AccountError: The gateway did not answer.
        """
        await self._call("DELETE", "/v1/provider/token")

    async def earnings_summary(self) -> Mapping[str, Any]:
        """Return the sums of the owner's machines.

        Raises:
            LoggedOutError: The token counts no more.
            AccountError: The gateway did not answer.
        """
        return await self._call("GET", "/v1/provider/earnings-summary")

    async def earnings(self, machine: str, limit: int) -> Sequence[Mapping[str, Any]]:
        """Return the newest earnings.

        Args:
            machine: Identity key in base64; empty: of every machine.
            limit: At most so many.

        Raises:
            LoggedOutError: The token counts no more.
            AccountError: The gateway did not answer.
        """
        query = {"limit": str(limit), **({"machine": machine} if machine else {})}
        found = await self._call("GET", f"/v1/me/earnings?{urlencode(query)}")
        return _rows(found, "earnings")

    async def days(self, machine: str, days: int) -> Sequence[Mapping[str, Any]]:
        """Return work by UTC day, model and machine.

        Args:
            machine: Identity key in base64; empty: every machine.
            days: 7, 30 or 90.

        Raises:
            LoggedOutError: The token counts no more.
            AccountError: The gateway did not answer.
        """
        query = {"days": str(days), **({"machine": machine} if machine else {})}
        found = await self._call("GET", f"/v1/me/insights?{urlencode(query)}")
        return _rows(found, "rows")

    async def send_report(self, content: bytes) -> str:
        """Send in an excerpt of the log; returns the report's id.

        Raises:
            LoggedOutError: The token counts no more.
            AccountError: The gateway refused or did not answer.
        """
        try:
            response = await self._http.post(
                "/v1/provider/log-report",
                content=content,
                headers={"content-type": "application/octet-stream"},
            )
        except httpx.HTTPError as error:
            raise AccountError(
                f"the gateway does not answer ({type(error).__name__})",
                "check the network, and coordinator.gateway in `darkbloom config show`",
            ) from None
        return str(_content(response, _CREATED).get("id", ""))

    async def _call(
        self, method: str, path: str, body: Mapping[str, str] | None = None
    ) -> Mapping[str, Any]:
        return _content(await self._send(method, path, body))

    async def _send(
        self, method: str, path: str, body: Mapping[str, str] | None = None
    ) -> httpx.Response:
        try:
            return await self._http.request(method, path, json=body)
        except httpx.HTTPError as error:
            raise AccountError(
                f"the gateway does not answer ({type(error).__name__})",
                "check the network, and coordinator.gateway in `darkbloom config show`",
            ) from None


class SlowDown(Exception):  # noqa: N818 - a word of the protocol, not a failure
    """The gateway asks for a longer interval."""


def _content(response: httpx.Response, good: int = _OK) -> Mapping[str, Any]:
    try:
        found = response.json()
    except ValueError:
        raise _strange() from None
    if not isinstance(found, dict):
        raise _strange()
    if response.status_code == good:
        return found
    if response.status_code == _UNAUTHENTICATED:
        raise LoggedOutError("this machine's login counts no more", "run darkbloom login")
    if response.status_code == _CONFLICT:
        raise AccountError(
            "this machine is linked to another account",
            "a machine earns for one account; remove its identity key to become a new machine",
        )
    error = found.get("error")
    said = error.get("message") if isinstance(error, dict) else None
    text = said if isinstance(said, str) and said.isprintable() else "no reason given"
    raise AccountError(f"the gateway refused ({response.status_code}): {text[:200]}")


def _rows(found: Mapping[str, Any], name: str) -> Sequence[Mapping[str, Any]]:
    rows = found.get(name)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise _strange()
    return rows


def _strange() -> AccountError:
    return AccountError("the gateway's answer is not understood", "update darkbloom")
