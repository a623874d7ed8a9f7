"""A gateway as `darkbloom login` sees it: device codes, a token, links, checked proofs."""

import base64
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from darkbloom_edge.errors import SignatureRejected
from darkbloom_edge.link import LINK_KIND, link_statement
from darkbloom_edge.signatures import from_base64, verify_p256

ACCOUNT = "acct_owner"
TOKEN = "dbp-" + "a" * 64
NONCE = b"n" * 32
_STRANGERS = {
    "POST /v1/device/code": {
        "device_code": "d" * 64,
        "user_code": "ABCD-EFGH",
        "verification_uri": "https://console.example/link",
        "expires_in": 900,
        "interval": 1,
    },
    "GET /health": {"status": "ok", "version": "0.1.0", "draining": False},
    "POST /v1/device/token": {"status": "authorized", "token": TOKEN, "account_id": ACCOUNT},
}
_OWN = {
    "GET /v1/provider/token": {
        "label": "device-ABCD-EFGH",
        "machine_name": "m",
        "account_id": ACCOUNT,
    },
    "DELETE /v1/provider/token": {"status": "revoked"},
    "POST /v1/provider/link/challenge": {
        "nonce": base64.b64encode(NONCE).decode(),
        "expires_in": 300,
    },
}


class FakeGateway:
    """Approves at once unless a test says what it answers instead."""

    def __init__(self) -> None:
        self.answers: dict[str, list[tuple[int, Any]]] = {}
        """What comes instead, by `METHOD path`, once each."""
        self.calls: list[str] = []
        self.linked: dict[str, str] = {}
        """Machine name by identity key."""
        self.revoked = False
        self.url = ""
        self.ahead_s = 0.0
        """How far its clock is ahead of ours."""
        self.latest = "0.1.0"
        """Version of the newest release; empty for none."""

    def answer(self, route: str, body: dict[str, Any], authorization: str) -> tuple[int, Any]:
        """Return status and content."""
        self.calls.append(route)
        if self.answers.get(route):
            return self.answers[route].pop(0)
        if route.startswith("GET /v1/releases/latest"):
            found = {"version": self.latest}
            return (200, found) if self.latest else error(404, "not_found")
        if route in _STRANGERS:
            return 200, _STRANGERS[route]
        if authorization != f"Bearer {TOKEN}" or self.revoked:
            return error(401, "authentication_error")
        if route == "POST /v1/provider/link":
            return self._link(body)
        if route == "DELETE /v1/provider/token":
            self.revoked = True
        own = _OWN.get(route)
        return error(404, "not_found") if own is None else (200, own)

    def _link(self, body: dict[str, Any]) -> tuple[int, Any]:
        key = from_base64(body["identity_key"])
        statement = link_statement(ACCOUNT, key, NONCE)
        try:
            verify_p256(key, LINK_KIND, statement, from_base64(body["signature"]))
        except SignatureRejected:
            return error(400, "invalid_request")
        self.linked[body["identity_key"]] = body["machine_name"]
        return 200, {"status": "linked", "account_id": ACCOUNT}

    @contextmanager
    def serving(self) -> Iterator["FakeGateway"]:
        """Serve in a thread until the block ends."""
        gateway = self

        class Handler(BaseHTTPRequestHandler):
            def _serve(self) -> None:
                length = int(self.headers.get("content-length", 0))
                body = json.loads(self.rfile.read(length) or b"{}")
                route = f"{self.command} {self.path}"
                said = gateway.answer(route, body, self.headers.get("authorization", ""))
                status, content = said
                raw = content if isinstance(content, bytes) else json.dumps(content).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            def date_time_string(self, timestamp: float | None = None) -> str:
                now = time.time() if timestamp is None else timestamp  # noqa: TID251 - a real date
                return super().date_time_string(now + gateway.ahead_s)

            do_GET = do_POST = do_DELETE = _serve  # noqa: N815 - names of the standard library

            def log_message(self, *_arguments: object) -> None:
                """Keep quiet."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        self.url = f"http://127.0.0.1:{server.server_port}"
        try:
            yield self
        finally:
            server.shutdown()
            thread.join()
            server.server_close()


def error(status: int, code: str, message: str = "no") -> tuple[int, Any]:
    """Return an error as the gateway writes it."""
    return status, {"error": {"message": message, "type": code, "code": code}}
