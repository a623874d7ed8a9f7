"""A consumer that seals, written from docs/sealed.md alone: PyNaCl and httpx, none of our code."""

import base64
import hashlib
import json
import struct
import time
from dataclasses import dataclass, field
from typing import Any

import httpx
from nacl.exceptions import CryptoError
from nacl.public import Box, PrivateKey, PublicKey

FRAMED = "application/darkbloom-sealed+json"
PLAIN = "application/eigeninference-sealed+json"
CHAT = "/v1/chat/completions"
_HEADER = struct.Struct(">BBBBHHQQ32s")


def _now_ms() -> int:
    return int(time.time() * 1000)  # noqa: TID251 - a stranger has no clock of ours


class NotAuthenticError(Exception):
    """An answer is not the one to this request, or not all of it."""


@dataclass
class SealedCall:
    """One request and the means to open its answer."""

    page: dict[str, Any]
    """Of `GET /v1/encryption-key`."""
    api_key: str
    body: bytes
    path: str = CHAT
    media_type: str = FRAMED
    time_ms: int = field(default_factory=_now_ms)
    header: bytes | None = None
    """Instead of the right one."""

    def __post_init__(self) -> None:
        self.ours = PrivateKey.generate()
        gateway = PublicKey(base64.b64decode(self.page["public_key"]))
        self.box = Box(self.ours, gateway)
        plain = (self._header() if self.framed else b"") + self.body
        self.sealed = bytes(self.box.encrypt(plain))

    @property
    def framed(self) -> bool:
        """Whether boxes have headers."""
        return self.media_type.lower().startswith(FRAMED)

    @property
    def headers(self) -> dict[str, str]:
        """Of the request."""
        return {"authorization": f"Bearer {self.api_key}", "content-type": self.media_type}

    @property
    def envelope(self) -> dict[str, str]:
        """The body of the request."""
        return {
            "kid": self.page["kid"],
            "ephemeral_public_key": _text(bytes(self.ours.public_key)),
            "ciphertext": _text(self.sealed),
        }

    async def post(self, http: httpx.AsyncClient) -> httpx.Response:
        """Send it; also a second time, as it is."""
        return await http.post(self.path, json=self.envelope, headers=self.headers)

    def whole(self, answer: httpx.Response) -> bytes:
        """Return the body of an answer that is not streamed."""
        assert answer.headers["content-type"] == self.media_type.partition(";")[0].lower()
        assert answer.headers["x-eigen-sealed"] == answer.headers["x-darkbloom-sealed"] == "true"
        assert answer.headers["x-eigen-sealed-kid"] == self.page["kid"]
        assert answer.headers["x-darkbloom-sealed-kid"] == self.page["kid"]
        content = answer.json()
        assert content["kid"] == self.page["kid"]
        return self.open_all([content["ciphertext"]], answer.status_code)[0]

    def events(self, answer: httpx.Response) -> list[bytes]:
        """Return the events of an answer that is streamed."""
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["x-darkbloom-sealed"] == "true"
        return self.open_all(sealed_events(answer.content), answer.status_code)

    def open_all(self, boxes: list[str], status: int) -> list[bytes]:
        """Open the boxes of one answer, in the order in which they came.

        Raises:
            NotAuthenticError: one is not the next of this answer, or the end is missing.
        """
        opened, final = [], False
        for sequence, text in enumerate(boxes):
            if final:
                raise NotAuthenticError("something follows the end")
            try:
                plain = self.box.decrypt(base64.b64decode(text, validate=True))
            except (CryptoError, ValueError):
                raise NotAuthenticError("a box does not open") from None
            if self.framed:
                final = self._check(plain[: _HEADER.size], sequence, status)
                plain = plain[_HEADER.size :]
            opened.append(plain)
        if self.framed and not final:
            raise NotAuthenticError("the end is missing")
        return opened

    def _check(self, header: bytes, sequence: int, status: int) -> bool:
        context = hashlib.sha256(self.sealed).digest()
        for final in (False, True):
            want = _HEADER.pack(1, 2, int(final), 0, status, 0, sequence, self.time_ms, context)
            if header == want:
                return final
        raise NotAuthenticError("a header is not the next one")

    def _header(self) -> bytes:
        if self.header is not None:
            return self.header
        whom = f"POST {self.path}\n{self.api_key}".encode()
        context = hashlib.sha256(whom).digest()
        return _HEADER.pack(1, 1, 1, 0, 0, 0, 0, self.time_ms, context)


def sealed_events(content: bytes) -> list[str]:
    """Return what stands behind `data: `, comments left out."""
    events = [event for event in content.split(b"\n\n") if event and not event.startswith(b":")]
    assert all(event.startswith(b"data: ") for event in events)
    return [event.removeprefix(b"data: ").decode("ascii") for event in events]


def chat_body(**changes: Any) -> bytes:
    """Return a chat completion's body."""
    turns = [{"role": "user", "content": "hi"}]
    return json.dumps({"model": "tiny", "messages": turns, **changes}).encode()


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
