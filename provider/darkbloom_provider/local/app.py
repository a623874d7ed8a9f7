"""The routes of the local endpoint, as one raw ASGI application (spec: provider section 7)."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol, final
from urllib.parse import urlsplit

import structlog
from darkbloom_edge.boxes import wipe
from darkbloom_edge.dialects.chat import CHAT, MAX_BODY_BYTES
from darkbloom_edge.dialects.completions import COMPLETIONS
from darkbloom_edge.dialects.dialect import Dialect
from darkbloom_edge.dialects.responses import RESPONSES
from darkbloom_edge.errors import MalformedError
from darkbloom_edge.strict_json import canonical_json, parse_json_object
from darkbloom_mesh.clock import Clock

from darkbloom_provider.engine.interface import Build
from darkbloom_provider.local import facts
from darkbloom_provider.local.answering import Answerer, Exchange
from darkbloom_provider.local.errors import (
    GoneError,
    LocalError,
    bad_request,
    model_not_found,
    unauthenticated,
)
from darkbloom_provider.local.key import LocalKey
from darkbloom_provider.local.texts import Texts
from darkbloom_provider.local.wire import (
    CORS,
    Headers,
    Receive,
    Scope,
    Send,
    header,
    read_body,
    send_error,
    send_json,
)
from darkbloom_provider.shift import Kitchen

MAX_CHAT_BYTES: Final = MAX_BODY_BYTES
"""As on the network, so that what works here works there."""
MAX_COMPLETION_BYTES: Final = 2 * 1024 * 1024
MAX_TEXT_BYTES: Final = 4 * 1024 * 1024
DIALECTS: Final[Mapping[str, tuple[Dialect, int]]] = {
    "/v1/chat/completions": (CHAT, MAX_CHAT_BYTES),
    "/v1/completions": (COMPLETIONS, MAX_COMPLETION_BYTES),
    "/v1/responses": (RESPONSES, MAX_CHAT_BYTES),
}
"""Path to dialect and largest body."""
OPEN_PATHS: Final = frozenset({"/", "/health", "/v1/health"})
"""Asked without a key."""
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})
_LOOPBACK_HOSTS: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_OTHER_SITES: Final = frozenset({b"cross-site", b"same-site"})
_VERSIONED = "/v1"
_log = structlog.get_logger()


class Place(Protocol):
    """Where requests are answered, if anywhere, at this moment."""

    def kitchen(self) -> Kitchen:
        """Return what answers.

        Raises:
            LocalError: nothing does: loading, draining, or outside the schedule.
        """
        ...


@final
class LocalApp:
    """Answers the owner's programs.

    Args:
        place: gives the kitchen.
        key: what callers must bring; None asks for nothing, and then only pages and programs that
            call this machine by a loopback name are answered.
        clock: dates answers.
        version: of the agent.
        new_id: draws ids of jobs.
    """

    def __init__(
        self,
        place: Place,
        key: LocalKey | None,
        clock: Clock,
        *,
        version: str,
        new_id: Callable[[], str],
    ) -> None:
        self._place = place
        self._key = key
        self._clock = clock
        self._version = version
        self._new_id = new_id
        # The owner's own requests share what was read with each other and with nobody else.
        self._scope = hashlib.sha256(new_id().encode()).digest()
        self._started = clock.now()
        self._texts = Texts()
        self._headers: Headers = CORS if key is not None else ()
        self._reads: Mapping[str, Callable[[], bytes]] = {
            "/v1/models": lambda: facts.models(self._place.kitchen(), self._started),
            "/v1/props": lambda: facts.properties(self._place.kitchen(), self._version),
        }
        self._text_routes: Mapping[str, Callable[[Build, dict[str, Any]], bytes]] = {
            "/v1/tokenize": self._texts.tokenize,
            "/v1/detokenize": self._texts.detokenize,
            "/v1/apply-template": self._texts.apply_template,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one exchange; whatever goes wrong is one JSON error or one error chunk."""
        if scope["type"] != "http":
            return
        try:
            await self._route(scope, receive, send)
        except LocalError as error:
            await send_error(send, error, self._headers)
        except GoneError:
            return
        except Exception as error:  # noqa: BLE001 - no request may end the agent
            # The text of an unknown error may quote content; its type cannot.
            _log.error("local_request_broke", error_type=type(error).__name__)
            broken = LocalError(500, "internal_failure", "internal error")
            await send_error(send, broken, self._headers)

    async def _route(self, scope: Scope, receive: Receive, send: Send) -> None:
        path, method = str(scope["path"]), str(scope["method"])
        if method == "OPTIONS":
            await send_json(send, b"", 204, self._headers)
            return
        if path in OPEN_PATHS:
            _only(method, "GET")
            await self._json(send, canonical_json({"status": "ok", "version": self._version}))
            return
        self._admit(scope)
        if not path.startswith(_VERSIONED + "/"):
            path = _VERSIONED + path
        if path in self._reads:
            _only(method, "GET")
            await self._json(send, self._reads[path]())
        elif path == "/v1/metrics":
            _only(method, "GET")
            kitchen = self._place.kitchen()
            text = facts.metrics(kitchen.engine.slots(), kitchen.guests.count)
            kind = b"text/plain; version=0.0.4"
            await send_json(send, text, headers=self._headers, kind=kind)
        elif path in DIALECTS:
            _only(method, "POST")
            await self._answer(path, scope, receive, send)
        elif path in self._text_routes:
            _only(method, "POST")
            await self._text(path, scope, receive, send)
        elif path == "/v1/embeddings":
            raise LocalError(501, "embeddings_not_configured", "no embedding model is served here")
        else:
            raise LocalError(404, "invalid_request_error", "this endpoint is not implemented")

    async def _answer(self, path: str, scope: Scope, receive: Receive, send: Send) -> None:
        dialect, limit = DIALECTS[path]
        kitchen = self._place.kitchen()
        with kitchen.guests.one():
            raw = await read_body(scope, receive, limit)
            try:
                body = bytes(raw)
            finally:
                wipe(raw)
            answerer = Answerer(kitchen, self._clock, self._new_id, self._scope)
            exchange = Exchange(receive=receive, send=send, headers=self._headers)
            await answerer.answer(dialect, body, exchange)

    async def _text(self, path: str, scope: Scope, receive: Receive, send: Send) -> None:
        kitchen = self._place.kitchen()
        body = await read_body(scope, receive, MAX_TEXT_BYTES)
        try:
            fields = parse_json_object(bytes(body), max_bytes=MAX_TEXT_BYTES)
        except MalformedError:
            raise bad_request("the body must be a JSON object") from None
        finally:
            wipe(body)
        build = _build_of(kitchen, fields)
        await self._json(send, await asyncio.to_thread(self._text_routes[path], build, fields))

    def _admit(self, scope: Scope) -> None:
        if self._key is not None:
            if not self._key.opens(header(scope, b"authorization")):
                raise unauthenticated()
            return
        # Without a key a page in a browser could ask under a name that it made point here.
        host = (header(scope, b"host") or b"").decode("latin-1").rpartition(":")
        if (host[0] or host[2]).lower() not in _LOOPBACK:
            raise LocalError(
                403, "forbidden", "without a key, call this machine localhost or 127.0.0.1"
            )
        if _from_another_site(scope):
            # It could not read the answer, but it could make this machine work.
            raise LocalError(403, "forbidden", "without a key, pages of other sites may not ask")

    async def _json(self, send: Send, body: bytes) -> None:
        await send_json(send, body, headers=self._headers)


def _only(method: str, allowed: str) -> None:
    if method != allowed:
        raise LocalError(405, "invalid_request_error", f"use {allowed} here")


def _from_another_site(scope: Scope) -> bool:
    """Whether a browser asks for a page that is not of this machine; bad words count as yes."""
    if header(scope, b"sec-fetch-site") in _OTHER_SITES:
        return True
    origin = header(scope, b"origin")
    if origin is None:
        return False
    try:
        return urlsplit(origin.decode("ascii")).hostname not in _LOOPBACK_HOSTS
    except ValueError:
        return True


def _build_of(kitchen: Kitchen, fields: dict[str, Any]) -> Build:
    """Return the build that a request names, or the only one there is."""
    builds = {build.build_id: build for build in kitchen.inventory.builds}
    name = fields.get("model")
    if name is None and len(builds) == 1:
        return next(iter(builds.values()))
    if not isinstance(name, str) or name not in builds:
        raise model_not_found()
    return builds[name]
