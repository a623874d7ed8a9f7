"""The router as a provider sees it: a real gRPC listener, and a gateway's end of the envelope.

    async with serve_ephemeral(FakeRouter().register) as target: ...

A `FakeRouter` answers registrations and acknowledges terminals and drains by itself, as far as its
switches say; everything else a test does by hand through the `FakeLink` of each stream. `Ask` is
one sealed request: it keeps the edge's half of the envelope and opens what comes back.
"""

import asyncio
import hashlib
import secrets
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import grpc
import msgspec
from darkbloom.common.v1.frame_pb2 import Frame, FrameKind
from darkbloom.router.v1.provider_link_pb2 import (
    AttemptError,
    AttestationChallenge,
    AttestationResponse,
    Cancel,
    Credit,
    GoAway,
    InferenceRequest,
    ProviderDrain,
    ProviderDrainAck,
    Register,
    Registered,
    Terminal,
    TerminalAck,
    TrustStatus,
)
from darkbloom.router.v1.provider_link_service_pb2_grpc import (
    ProviderLinkServiceServicer,
    add_ProviderLinkServiceServicer_to_server,
)
from darkbloom_edge.delta import Delta, decode
from darkbloom_edge.envelope import EdgeSession, RequestHeader, new_edge_nonce
from darkbloom_edge.ids import new_id
from darkbloom_edge.request import ChatRequest, canonical_bytes
from darkbloom_edge.terminal import Terminal as TerminalDocument
from darkbloom_edge.terminal import verify_terminal
from darkbloom_mesh.lane import Lane, LaneEnd
from google.protobuf.message import Message

ATTEMPT_BIT = 1 << 63
PATIENCE_S = 20.0
KINDS = FrameKind
CHUNKS = {KINDS.FRAME_KIND_PREAMBLE, KINDS.FRAME_KIND_CHUNK, KINDS.FRAME_KIND_CHUNK_FINAL}


@dataclass
class FakeRouter(ProviderLinkServiceServicer):
    """A public listener with switches; `links` are the streams so far."""

    answers: bool = True
    """Answer REGISTER with REGISTERED and a first verdict."""
    acknowledges: bool = True
    """Acknowledge terminals and drains."""
    refuses: grpc.StatusCode | None = None
    """End every call at once with this status."""
    credit: int = 32
    links: list["FakeLink"] = field(default_factory=list)
    _opened: asyncio.Queue["FakeLink"] = field(default_factory=asyncio.Queue)
    calls: int = 0

    def register(self, server: grpc.aio.Server) -> None:
        add_ProviderLinkServiceServicer_to_server(self, server)

    async def Connect(self, request_iterator: Any, context: Any) -> None:
        self.calls += 1
        if self.refuses is not None:
            await context.abort(self.refuses, "refused by the test")
        link = FakeLink(self, context)
        self.links.append(link)
        self._opened.put_nowait(link)
        await link.run()

    async def next_link(self) -> "FakeLink":
        """Return the next stream that was opened."""
        async with asyncio.timeout(PATIENCE_S):
            return await self._opened.get()


class FakeLink:
    """One stream: what came is kept until a test takes it."""

    def __init__(self, router: FakeRouter, call: Any) -> None:
        self.router = router
        self.provider_id = new_id("prov")
        self.verdict_id = ""
        self.register_frame: Register | None = None
        self.end: LaneEnd | None = None
        self.ended = asyncio.Event()
        self.seen: list[Frame] = []
        """Every frame that ever came."""
        self._waiting: list[Frame] = []
        self._arrived = asyncio.Event()
        self._numbers = count(1)
        self._lane = Lane(call, on_frames=self._receive, name="fake-router")

    async def run(self) -> None:
        try:
            self.end = await self._lane.run()
        finally:
            self.ended.set()

    # What the provider says.

    async def take(self, kind: int | AbstractSet[int], stream: int | None = None) -> Frame:
        """Return the first frame of that kind, or one of those, and wait for it."""
        kinds = {kind} if isinstance(kind, int) else kind
        async with asyncio.timeout(PATIENCE_S):
            while True:
                for at, frame in enumerate(self._waiting):
                    if frame.kind in kinds and stream in (None, frame.stream):
                        return self._waiting.pop(at)
                self._arrived.clear()
                await self._arrived.wait()

    async def error(self, stream: int) -> AttemptError:
        """Return the refusal or failure of an attempt."""
        return AttemptError.FromString((await self.take(KINDS.FRAME_KIND_ERROR, stream)).payload)

    async def registration(self) -> Register:
        """Return the stream's first frame."""
        return Register.FromString((await self.take(KINDS.FRAME_KIND_REGISTER)).payload)

    def challenge(self, nonce: str, timestamp: str, provider_id: str = "") -> None:
        """Ask the provider to prove itself; see `response`."""
        message = AttestationChallenge(
            nonce=nonce, timestamp=timestamp, provider_id=provider_id or self.provider_id
        )
        self.send(KINDS.FRAME_KIND_ATTESTATION_CHALLENGE, 0, message)

    async def response(self) -> AttestationResponse:
        frame = await self.take(KINDS.FRAME_KIND_ATTESTATION_RESPONSE)
        return AttestationResponse.FromString(frame.payload)

    def kinds(self, stream: int) -> list[int]:
        """Return the kinds of every frame of a stream so far."""
        return [frame.kind for frame in self.seen if frame.stream == stream]

    # What the router says.

    def send(self, kind: int, stream: int, message: Message | bytes) -> None:
        self._lane.send_control(kind, stream, message)

    def send_part(self, stream: int, sequence: int, payload: bytes) -> None:
        self._lane.send_body_part(
            Frame(
                stream=stream,
                kind=KINDS.FRAME_KIND_BODY_PART,
                sequence=sequence,
                payload=payload,
            )
        )

    def send_body(self, stream: int, payload: bytes) -> None:
        self._lane.send_body(stream, payload)

    def answer(self) -> None:
        """Take the provider in."""
        register = self.register_frame
        assert register is not None
        self.send(
            KINDS.FRAME_KIND_REGISTERED,
            0,
            Registered(
                provider_id=self.provider_id,
                trust_level="none",
                accepted_models=[model.id for model in register.models],
                account_id="acct_1",
                initial_credit=self.router.credit,
            ),
        )
        self.trust(new_id("ver"))

    def trust(self, verdict_id: str, status: str = "online", reason: str = "") -> None:
        """Say which verdict is in force."""
        self.verdict_id = verdict_id
        message = TrustStatus(
            trust_level="none",
            status=status,
            reason=reason,
            verdict_id=verdict_id,
            admission="development",
        )
        self.send(KINDS.FRAME_KIND_TRUST_STATUS, 0, message)

    def credit(self, stream: int, granted: int) -> None:
        self.send(KINDS.FRAME_KIND_CREDIT, stream, Credit(granted_frames=granted))

    def cancel(self, stream: int) -> None:
        self.send(KINDS.FRAME_KIND_CANCEL, stream, Cancel())

    def go_away(self, reason: str = "drain") -> None:
        self.send(KINDS.FRAME_KIND_GO_AWAY, 0, GoAway(reason=reason))

    def acknowledge(self, attempt_id: str, stream: int = 0) -> None:
        self.send(KINDS.FRAME_KIND_TERMINAL_ACK, stream, TerminalAck(attempt_id=attempt_id))

    def close(self) -> None:
        """End the stream in order; the provider sees `peer_closed`."""
        self._lane.close("test")

    def ask(self, content: str, **changes: Any) -> "Ask":
        """Seal a request for this provider; `Ask.send` puts it on the wire."""
        register = self.register_frame
        assert register is not None
        stream = ATTEMPT_BIT | next(self._numbers)
        return Ask(self, stream=stream, key=register.encryption_key, content=content, **changes)

    def _receive(self, frames: Sequence[Frame]) -> None:
        for frame in frames:
            self.seen.append(frame)
            self._waiting.append(frame)
            react = self._reactions.get(frame.kind)
            if react is not None:
                react(self, frame)
        self._arrived.set()

    def _on_register(self, frame: Frame) -> None:
        self.register_frame = Register.FromString(frame.payload)
        if self.router.answers:
            self.answer()

    def _on_terminal(self, frame: Frame) -> None:
        if self.router.acknowledges:
            signed = Terminal.FromString(frame.payload).terminal
            attempt_id = msgspec.json.decode(signed.document)["attempt_id"]
            self.acknowledge(attempt_id, frame.stream)

    def _on_drain(self, frame: Frame) -> None:
        if self.router.acknowledges:
            drain = ProviderDrain.FromString(frame.payload)
            message = ProviderDrainAck(drain_id=drain.drain_id)
            self.send(KINDS.FRAME_KIND_PROVIDER_DRAIN_ACK, 0, message)

    _reactions: dict[int, Callable[["FakeLink", Frame], None]] = {  # noqa: RUF012 - a constant
        KINDS.FRAME_KIND_REGISTER: _on_register,
        KINDS.FRAME_KIND_TERMINAL: _on_terminal,
        KINDS.FRAME_KIND_PROVIDER_DRAIN: _on_drain,
    }


@dataclass
class Answer:
    """What a provider made of one request."""

    text: str
    deltas: list[Delta]
    terminal: TerminalDocument


class Ask:
    """One sealed request and the edge's half of its envelope."""

    def __init__(
        self,
        link: FakeLink,
        *,
        stream: int,
        key: bytes,
        content: str,
        build: str = "dev/scripted",
        model: str = "",
        now_ms: int,
        lifetime_ms: int = 60_000,
        prompt_bound: int = 1000,
        output_bound: int = 1000,
        verdict_id: str | None = None,
        body: bytes | None = None,
        cache_scope: bytes = b"",
    ) -> None:
        self.link = link
        self.stream = stream
        self.request_id, self.attempt_id = new_id("req"), new_id("att")
        self.session = EdgeSession.create(
            provider_key=key, request_id=self.request_id, attempt_id=self.attempt_id
        )
        self.receipt_key = secrets.token_bytes(32)
        verdict = link.verdict_id if verdict_id is None else verdict_id
        header = RequestHeader(
            not_after_ms=now_ms + lifetime_ms,
            prompt_bound=prompt_bound,
            output_bound=output_bound,
            receipt_key=self.receipt_key,
            verdict_id=verdict,
            sealed_to=1,
            edge_nonce=new_edge_nonce(),
            cache_scope=cache_scope,
        )
        self.body = body or canonical_bytes(
            ChatRequest(
                model=model or build,
                messages=[{"role": "user", "content": content}],
                max_tokens=output_bound,
            )
        )
        self.ciphertext = self.session.seal_request(header, self.body)
        self.request = InferenceRequest(
            request_id=self.request_id,
            attempt_id=self.attempt_id,
            build=build,
            sender_key=self.session.sender_key,
            body_bytes=len(self.ciphertext),
            body_sha256=hashlib.sha256(self.ciphertext).digest(),
            prompt_bound=prompt_bound,
            output_bound=output_bound,
            verdict_id=verdict,
        )

    def send(self) -> "Ask":
        """Send the request and its whole body."""
        self.announce()
        self.link.send_body(self.stream, self.ciphertext)
        return self

    def announce(self) -> None:
        """Send the request's first frame alone."""
        self.link.send(KINDS.FRAME_KIND_REQUEST, self.stream, self.request)

    async def delta(self) -> tuple[Delta, Frame]:
        """Open the next chunk."""
        frame = await self.link.take(CHUNKS, self.stream)
        data, final = self.session.open_chunk(frame.payload)
        assert final == (frame.kind == KINDS.FRAME_KIND_CHUNK_FINAL)
        delta = decode(data)
        assert frame.tokens == delta.completion_tokens
        return delta, frame

    async def answer(self) -> Answer:
        """Open everything up to the terminal and check it."""
        deltas: list[Delta] = []
        while not deltas or deltas[-1].finish_reason is None:
            deltas.append((await self.delta())[0])
        text = "".join(delta.text for delta in deltas)
        return Answer(text, deltas, await self.terminal())

    async def terminal(self) -> TerminalDocument:
        """Take the terminal and check its signature against the registered identity."""
        frame = await self.link.take(KINDS.FRAME_KIND_TERMINAL, self.stream)
        return self.check(frame)

    def check(self, frame: Frame) -> TerminalDocument:
        signed = Terminal.FromString(frame.payload).terminal
        register = self.link.register_frame
        assert register is not None
        identity = msgspec.json.decode(register.attestation_blob)["publicKey"]
        return verify_terminal(signed.document, signed.signature, identity)

    async def error(self) -> AttemptError:
        return await self.link.error(self.stream)
