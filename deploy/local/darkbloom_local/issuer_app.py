"""The development issuer over HTTP: key set, discovery, and the code flow of a browser.

`python -m darkbloom_local.issuer_app KEY_FILE PORT READY_FILE` serves it on the loopback.
"""

import base64
import hashlib
import json
import os
import secrets
import sys
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import uvicorn

from darkbloom_local.issuer import ALGORITHM, AUDIENCE, DEVELOPER, ISSUER, LIFE_S, DevelopmentIssuer
from darkbloom_local.issuer_page import sign_in_page

HOST = "127.0.0.1"
MAX_CODES = 100
_MAX_FORM = 16_384
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class _Grant:
    email: str
    redirect_uri: str
    challenge: str
    nonce: str


class IssuerApp:
    """A raw ASGI application: three reads and the exchange of a code.

    Args:
        issuer: signs.
        base: own URL.
    """

    def __init__(self, issuer: DevelopmentIssuer, base: str) -> None:
        self._issuer = issuer
        self._base = base
        self._codes: OrderedDict[str, _Grant] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return
        route = (scope["method"], scope["path"])
        query = _form(scope["query_string"])
        if route == ("GET", "/jwks.json"):
            await _answer(send, 200, self._issuer.jwks)
        elif route == ("GET", "/.well-known/openid-configuration"):
            await _answer(send, 200, self._configuration())
        elif route == ("GET", "/authorize"):
            await self._authorize(query, send, _header(scope, b"accept"))
        elif route == ("POST", "/token"):
            form = _form(await _body(receive))
            await self._exchange(form, send, _may_read(_header(scope, b"origin")))
        else:
            await _answer(send, 404, {"error": "not_found"})

    def _configuration(self) -> Mapping[str, Any]:
        return {
            "issuer": ISSUER,
            "jwks_uri": f"{self._base}/jwks.json",
            "authorization_endpoint": f"{self._base}/authorize",
            "token_endpoint": f"{self._base}/token",
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": [ALGORITHM],
            "code_challenge_methods_supported": ["S256"],
        }

    async def _authorize(self, query: Mapping[str, str], send: Send, accept: str) -> None:
        """Sign in whom `login_hint` names, and go back to a page of this machine only.

        A browser that names nobody is asked who it is.
        """
        target = query.get("redirect_uri", "")
        if urlsplit(target).hostname not in _LOOPBACK or query.get("client_id") != AUDIENCE:
            await _answer(send, 400, {"error": "invalid_request"})
            return
        if "login_hint" not in query and "text/html" in accept:
            await _send(send, 200, b"text/html; charset=utf-8", sign_in_page(query))
            return
        code = secrets.token_urlsafe(24)
        email = query.get("login_hint") or DEVELOPER
        challenge, nonce = query.get("code_challenge", ""), query.get("nonce", "")
        self._codes[code] = _Grant(email, target, challenge, nonce)
        while len(self._codes) > MAX_CODES:
            self._codes.popitem(last=False)
        parameters = urlencode({"code": code, "state": query.get("state", "")})
        joint = "&" if urlsplit(target).query else "?"
        location = f"{target}{joint}{parameters}".encode("latin-1", "replace")
        await _answer(send, 302, {}, ((b"location", location),))

    async def _exchange(
        self, form: Mapping[str, str], send: Send, headers: tuple[tuple[bytes, bytes], ...]
    ) -> None:
        grant = self._codes.pop(form.get("code", ""), None)
        verifier = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        challenge = base64.urlsafe_b64encode(verifier).rstrip(b"=").decode()
        if (
            grant is None
            or form.get("grant_type") != "authorization_code"
            or form.get("redirect_uri") != grant.redirect_uri
            or (grant.challenge and challenge != grant.challenge)
        ):
            await _answer(send, 400, {"error": "invalid_grant"}, headers)
            return
        token = self._issuer.token(grant.email, nonce=grant.nonce)
        content = {"id_token": token, "access_token": token, "token_type": "Bearer"}
        await _answer(send, 200, {**content, "expires_in": LIFE_S}, headers)


def _form(raw: bytes) -> dict[str, str]:
    found = parse_qs(raw.decode("ascii", "replace"), max_num_fields=50)
    return {name: values[0] for name, values in found.items()}


async def _body(receive: Receive) -> bytes:
    body: bytes = b""
    while True:
        message = await receive()
        body += bytes(message.get("body", b""))
        if not message.get("more_body") or len(body) > _MAX_FORM:
            return body[:_MAX_FORM]


async def _answer(
    send: Send,
    status: int,
    content: Mapping[str, Any],
    headers: tuple[tuple[bytes, bytes], ...] = (),
) -> None:
    await _send(send, status, b"application/json", json.dumps(content).encode(), headers)


async def _send(
    send: Send,
    status: int,
    media_type: bytes,
    body: bytes,
    headers: tuple[tuple[bytes, bytes], ...] = (),
) -> None:
    ours = [(b"content-type", media_type), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": status, "headers": [*ours, *headers]})
    await send({"type": "http.response.body", "body": body})


def _header(scope: Scope, name: bytes) -> str:
    found = (value for key, value in scope["headers"] if key == name)
    return str(next(found, b"").decode("latin-1"))


def _may_read(origin: str) -> tuple[tuple[bytes, bytes], ...]:
    """Return what lets a page of this machine read an answer; nothing for any other page."""
    try:
        ours = urlsplit(origin).hostname in _LOOPBACK
    except ValueError:
        ours = False
    if not ours:
        return ()
    return ((b"access-control-allow-origin", origin.encode("latin-1")), (b"vary", b"Origin"))


class _Server(uvicorn.Server):
    """Says in a file that it serves."""

    def __init__(self, config: uvicorn.Config, ready_file: Path, port: int) -> None:
        super().__init__(config)
        self._ready_file = ready_file
        self._port = port

    async def startup(self, sockets: list[Any] | None = None) -> None:
        """Begin to listen, then say so."""
        await super().startup(sockets)
        facts = {"pid": os.getpid(), "listeners": {"http": f"{HOST}:{self._port}"}}
        staged = self._ready_file.with_suffix(".tmp")
        staged.write_text(json.dumps(facts))
        staged.replace(self._ready_file)


def main(arguments: list[str]) -> int:
    """Serve until told to stop."""
    key_file, port, ready_file = Path(arguments[0]), int(arguments[1]), Path(arguments[2])
    app = IssuerApp(DevelopmentIssuer(key_file), f"http://{HOST}:{port}")
    config = uvicorn.Config(app, host=HOST, port=port, log_level="warning", lifespan="off")
    _Server(config, ready_file, port).run()
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
