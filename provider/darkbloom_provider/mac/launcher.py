"""The agent's end of the socket to the signed launcher (protocol: deploy/macos/README.md).

The launcher is the process that Apple knows: only it can use App Attest and receive pushes. It
derives what it signs by itself; the agent hands it nothing but the challenge, and once, at the
start, its keys.
"""

import asyncio
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, TypeVar, final

import msgspec
from darkbloom_edge.code_identity import SealedChallenge
from darkbloom_edge.errors import MalformedError
from darkbloom_edge.signatures import IdentitySigner, from_base64, to_base64
from msgspec import Meta

from darkbloom_provider.mac.errors import LauncherError
from darkbloom_provider.mac.frames import encode_message, read_message

PROTOCOL = 1
HELLO_S: Final = 10.0
"""Bound of the greeting."""
EVIDENCE_S: Final = 20.0
"""Bound of one piece of evidence: the challenge that it belongs to lives for 30 s."""
MAX_PENDING = 8
"""Questions that wait for an answer."""
BIND_KIND = "launcher_bind"
"""Domain of the signature that shows who holds the identity key."""

REFUSALS = frozenset(
    {
        "agent_changed",
        "app_attest_unavailable",
        "apple_unavailable",
        "already_bound",
        "bad_signature",
        "not_bound",
        "protocol_unsupported",
        "request_malformed",
        "serial_unreadable",
        "too_soon",
        "unknown_operation",
    }
)
"""What a launcher may refuse with."""

Text = Annotated[str, Meta(max_length=512)]
Blob = Annotated[str, Meta(max_length=131_072)]
T = TypeVar("T", bound=msgspec.Struct)


class Hello(msgspec.Struct, frozen=True, kw_only=True):
    """What the launcher says of itself."""

    protocol: int
    nonce: Text
    """32 random bytes in base64, to be signed with the identity key."""
    app_version: Text
    app_attest: bool
    """Whether this system offers App Attest."""
    push: bool
    """Whether the app may receive pushes."""


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """What the launcher signed, and what opens it."""

    statement: Blob
    """The device statement's canonical bytes, base64."""
    serial_number: Text
    serial_salt: Text
    key_id: Text
    assertion: Blob = ""
    attestation: Blob = ""

    def __repr__(self) -> str:
        return "Evidence(<redacted>)"


class _PushToken(msgspec.Struct, frozen=True, kw_only=True):
    token: Annotated[str, Meta(pattern=r"^[0-9a-fA-F]{64,200}\Z")]
    environment: Annotated[str, Meta(pattern=r"^(production|development)\Z")]


class _Sealed(msgspec.Struct, frozen=True, kw_only=True):
    ephemeral_public_key: Text
    ciphertext: Annotated[str, Meta(max_length=4096)]


@dataclass(frozen=True, slots=True)
class PushAddress:
    """Where a push reaches this app."""

    token: str = field(repr=False)
    environment: str


@final
class Launcher:
    """One connection: `connect`, `run` beside everything else, and `greet` before any evidence."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._pending: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._last_id = 0
        self._gone = ""
        self.hello: Hello | None = None
        """None until it was greeted."""
        self.address: PushAddress | None = None
        """None until the system has given the app an address."""
        self.on_code_challenge: Callable[[SealedChallenge], None] = _ignore
        """Called with each sealed challenge that Apple delivered."""

    @classmethod
    async def connect(cls, inherited: socket.socket) -> "Launcher":
        """Take over the socket that the launcher left open for us."""
        inherited.setblocking(False)
        reader, writer = await asyncio.open_connection(sock=inherited)

        return cls(reader, writer)

    async def run(self) -> None:
        """Read for as long as the launcher lives; without it this process may not go on.

        Raises:
            LauncherError: it is gone, or broke the protocol.
        """
        reason = "gone"
        try:
            while (message := await read_message(self._reader)) is not None:
                self._take(message)
        except LauncherError as error:
            reason = error.reason
        except OSError:
            reason = "gone"
        finally:
            self._gone = reason
            for waiting in self._pending.values():
                if not waiting.done():
                    waiting.set_exception(LauncherError(reason))
            self._writer.close()
        raise LauncherError(reason)

    async def greet(self, encryption_key: bytes, signer: IdentitySigner) -> Hello:
        """Say who we are and bind this process's keys; the launcher takes them only once.

        Raises:
            LauncherError: another protocol, or refused.
        """
        said = await self._ask("hello", HELLO_S, protocol=PROTOCOL)
        hello = _convert(said, Hello)
        if hello.protocol != PROTOCOL:
            raise LauncherError("protocol_unsupported")

        signature = signer.sign(BIND_KIND, _decode(hello.nonce) + encryption_key)
        await self._ask(
            "bind",
            HELLO_S,
            encryption_key=to_base64(encryption_key),
            identity_key=to_base64(signer.public),
            signature=to_base64(signature),
        )
        self.hello = hello

        return hello

    async def evidence(self, *, provider_id: str, nonce: str, timestamp: str) -> Evidence:
        """Have a challenge signed by the attested app.

        Raises:
            LauncherError: refused, too late, or not what it must be.
        """
        said = await self._ask(
            "evidence", EVIDENCE_S, provider_id=provider_id, nonce=nonce, timestamp=timestamp
        )

        return _convert(said, Evidence)

    async def renew_key(self) -> None:
        """Have the app attest another key with its next evidence.

        Raises:
            LauncherError: the last one is too young, or the launcher is gone.
        """
        await self._ask("renew_key", HELLO_S)

    async def _ask(self, operation: str, timeout_s: float, **fields: Any) -> dict[str, Any]:
        if self._gone:
            raise LauncherError(self._gone)
        if len(self._pending) >= MAX_PENDING:
            raise LauncherError("busy")
        self._last_id += 1
        number = self._last_id
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._pending[number] = answer
        try:
            async with asyncio.timeout(timeout_s):
                self._writer.write(encode_message({"id": number, "op": operation, **fields}))
                await self._writer.drain()
                return await answer
        except TimeoutError:
            raise LauncherError("timeout") from None
        except OSError:
            raise LauncherError("gone") from None
        finally:
            self._pending.pop(number, None)
            # Whoever waits no longer must not be told that nobody listened.
            answer.cancel()

    def _take(self, message: dict[str, Any]) -> None:
        event = message.get("event")
        if event == "push_token":
            told = _convert(message, _PushToken)
            self.address = PushAddress(told.token.lower(), told.environment)
        elif event == "code_challenge":
            self._take_challenge(_convert(message, _Sealed))
        elif event is None:
            self._take_answer(message)

    def _take_challenge(self, message: _Sealed) -> None:
        sealed = SealedChallenge(
            ephemeral_public_key=_decode(message.ephemeral_public_key),
            ciphertext=_decode(message.ciphertext),
        )
        self.on_code_challenge(sealed)

    def _take_answer(self, message: dict[str, Any]) -> None:
        number = message.get("id")
        waiting = self._pending.get(number) if isinstance(number, int) else None
        if waiting is None or waiting.done():
            # Its question has timed out.
            return
        if message.get("ok") is True:
            waiting.set_result(message)
            return
        word = message.get("error")
        known = isinstance(word, str) and word in REFUSALS
        waiting.set_exception(LauncherError(str(word) if known else "refused"))


def _ignore(_sealed: SealedChallenge) -> None:
    """Drop a push that comes before anybody can answer it; it is sent again."""


def _convert(message: dict[str, Any], kind: type[T]) -> T:
    try:
        return msgspec.convert(message, kind)
    except msgspec.ValidationError:
        raise LauncherError("malformed_message") from None


def _decode(text: str) -> bytes:
    try:
        return from_base64(text)
    except MalformedError:
        raise LauncherError("malformed_message") from None
