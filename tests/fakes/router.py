"""A router that a gateway can be tested against: a real lane, real boxes, one script per offer.

It plays the provider too: K and identity are real keys, the verdict is really signed, the request
is really opened, and what a script says is sealed chunk by chunk under the gateway's credits.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial

import grpc
from darkbloom.common.v1.frame_pb2 import Frame, FrameKind
from darkbloom.common.v1.price_pb2 import PriceRow, SignedDocument
from darkbloom.router.v1 import gateway_lane_pb2 as lane_pb
from darkbloom.router.v1 import provider_link_pb2 as link_pb
from darkbloom.router.v1.fleet_pb2 import BuildCapacity, Explanation, Provider
from darkbloom.router.v1.fleet_service_pb2 import (
    ExplainProviderRequest,
    ExplainProviderResponse,
    ListBuildCapacityRequest,
    ListBuildCapacityResponse,
    ListProvidersRequest,
    ListProvidersResponse,
)
from darkbloom.router.v1.fleet_service_pb2_grpc import (
    FleetServiceServicer,
    add_FleetServiceServicer_to_server,
)
from darkbloom.router.v1.gateway_lane_service_pb2_grpc import (
    GatewayLaneServiceServicer,
    add_GatewayLaneServiceServicer_to_server,
)
from darkbloom_edge.delta import Delta, encode
from darkbloom_edge.documents import rfc3339
from darkbloom_edge.envelope import Opened, ProviderSession, SenderKeyMemory, new_key_pair
from darkbloom_edge.ids import new_id
from darkbloom_edge.request import ChatRequest, parse_canonical
from darkbloom_edge.signatures import Ed25519Signer, P256Signer, to_base64
from darkbloom_edge.terminal import Terminal, sign_terminal
from darkbloom_edge.transcript import Transcript
from darkbloom_edge.verdict import Verdict, sign_verdict
from darkbloom_mesh.interceptors import Context
from darkbloom_mesh.lane import Lane
from darkbloom_mesh.testing import serve_ephemeral

ATTEMPT_BIT = 1 << 63
INITIAL_CREDIT = 32
WEIGHTS = hashlib.sha256(b"weights").hexdigest()


@dataclass
class Script:
    """What one offered provider does."""

    texts: Sequence[str] = ("Hello", " world")
    deltas: Sequence[Delta] | None = None
    """Instead of `texts`: whole deltas, the last one being final."""
    echo: bool = False
    """Say the last message instead of `texts`."""
    refused: lane_pb.Refused | None = None
    """Instead of an offer."""
    fails: bool = False
    """Take the request and fail before content: the next script is offered."""
    silent: bool = False
    """Take the request and say nothing."""
    hedge: "Script | None" = None
    """Offer this one as well once the request is here, and go on when it was sealed or declined."""
    tamper: int | None = None
    """Flip a bit of this chunk."""
    inflate: int | None = None
    """Claim one token too many in the plaintext of this chunk."""
    breaks_after: int | None = None
    """After so many chunks the provider is lost."""
    late: asyncio.Event | None = None
    """Wait for it before anything is said."""
    pause: asyncio.Event | None = None
    """Wait for it after the first chunk."""
    terminal: Callable[[Terminal], Terminal] | None = None
    """Change the terminal before it is signed."""
    no_terminal: bool = False
    expires_in: timedelta = timedelta(minutes=10)
    trust_level: str = "none"
    admission: str = "development"
    price: PriceRow | None = None
    prompt_tokens: int = 7
    preamble_text: str = ""
    """Content where none may be."""
    cut_lane: bool = False
    """Cut the lane once the request is sealed."""
    scripted: bool = False
    forged_verdict: bool = False
    evidence: Sequence[str] = ("test",)


@dataclass
class Seen:
    """What came in, for assertions."""

    opens: list[lane_pb.Open] = field(default_factory=list)
    requests: list[ChatRequest] = field(default_factory=list)
    headers: list[object] = field(default_factory=list)
    abandons: list[int] = field(default_factory=list)
    cancels: list[link_pb.Cancel] = field(default_factory=list)
    closes: list[lane_pb.Close] = field(default_factory=list)
    violations: list[int] = field(default_factory=list)
    declines: list[int] = field(default_factory=list)
    credits: list[int] = field(default_factory=list)
    sent_chunks: int = 0


class FakeRouter(GatewayLaneServiceServicer, FleetServiceServicer):
    def __init__(self, signer: Ed25519Signer, build: str) -> None:
        self.signer = signer
        self.build = build
        self.scripts: list[Script] = []
        self.explanations: list[Explanation] = []
        self.default = Script()
        self.seen = Seen()
        self.changed = asyncio.Event()
        self.identity = P256Signer.generate()
        self.key_pair = new_key_pair()
        self.memory = SenderKeyMemory()
        self.provider_id = new_id("prov")
        self.lanes: list[Lane] = []
        self._attempts = 0

    async def Connect(self, request_iterator: object, context: Context) -> None:
        async with asyncio.TaskGroup() as tasks:
            session = _Session(self, tasks)
            lane = session.lane = Lane(context, on_frames=session.take, name="fake-router")
            self.lanes.append(lane)
            await lane.run()
            session.stop()

    async def ListProviders(
        self, request: ListProvidersRequest, context: Context
    ) -> ListProvidersResponse:
        _, signed = self.verdict(Script())
        row = Provider(
            provider_id=self.provider_id,
            models=[link_pb.ProviderModel(id=self.build)],
            trust_level="none",
            status="online",
            admission="development",
            identity_key=self.identity.public,
            encryption_key=self.key_pair.public,
            verdict=signed,
        )
        return ListProvidersResponse(providers=[row])

    async def ExplainProvider(
        self, request: ExplainProviderRequest, context: Context
    ) -> ExplainProviderResponse:
        if request.provider != to_base64(self.identity.public):
            await context.abort(grpc.StatusCode.NOT_FOUND, "not connected here")
        return ExplainProviderResponse(explanations=self.explanations)

    async def ListBuildCapacity(
        self, request: ListBuildCapacityRequest, context: Context
    ) -> ListBuildCapacityResponse:
        return ListBuildCapacityResponse(
            builds=[BuildCapacity(build=self.build, routable_providers=1, can_accept=True)]
        )

    def next_script(self) -> Script:
        return self.scripts.pop(0) if self.scripts else self.default

    def next_stream(self) -> int:
        self._attempts += 1
        return ATTEMPT_BIT | self._attempts

    def note(self) -> None:
        self.changed.set()

    async def until(self, check: Callable[[], object], seconds: float = 30.0) -> None:
        async with asyncio.timeout(seconds):
            while not check():
                self.changed.clear()
                await self.changed.wait()

    def verdict(self, script: Script) -> tuple[Verdict, SignedDocument]:
        now = datetime.now(UTC)  # noqa: TID251 - a fake lives in real time
        expires = now + script.expires_in
        verdict = Verdict(
            verdict_id=new_id("ver"),
            provider_id=self.provider_id,
            identity_key=to_base64(self.identity.public),
            encryption_key=to_base64(self.key_pair.public),
            trust_level=script.trust_level,  # type: ignore[arg-type]
            admission=script.admission,  # type: ignore[arg-type]
            evidence=list(script.evidence),
            code_release="sha256:" + "0" * 64,
            issued_at=rfc3339(expires - timedelta(minutes=15)),
            expires_at=rfc3339(expires),
        )
        signer = Ed25519Signer.generate() if script.forged_verdict else self.signer
        document, signature = sign_verdict(verdict, signer)
        return verdict, SignedDocument(
            document=document, signature=signature, key_id=self.signer.key_id
        )

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        async with serve_ephemeral(
            partial(add_GatewayLaneServiceServicer_to_server, self),
            partial(add_FleetServiceServicer_to_server, self),
        ) as target:
            yield target


@dataclass
class _Attempt:
    request_stream: int
    stream: int
    attempt_id: str
    request_id: str
    script: Script
    verdict: Verdict
    number: int
    hedge: bool = False
    sealed: lane_pb.Sealed | None = None
    body: bytearray = field(default_factory=bytearray)
    granted: int = INITIAL_CREDIT
    credited: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None
    committed: bool = False


class _Session:
    lane: Lane

    def __init__(self, router: FakeRouter, tasks: asyncio.TaskGroup) -> None:
        self.router = router
        self.tasks = tasks
        self.attempts: dict[int, _Attempt] = {}

    def stop(self) -> None:
        for attempt in self.attempts.values():
            if attempt.task is not None:
                attempt.task.cancel()

    def take(self, frames: Sequence[Frame]) -> None:
        for frame in frames:
            self.take_one(frame)
        self.router.note()

    def take_one(self, frame: Frame) -> None:
        seen, kind = self.router.seen, frame.kind
        if kind == FrameKind.FRAME_KIND_LANE_HELLO:
            welcome = lane_pb.LaneWelcome(replica="fake", prefix=1, initial_credit=INITIAL_CREDIT)
            self.lane.send_control(FrameKind.FRAME_KIND_LANE_WELCOME, 0, welcome)
        elif kind == FrameKind.FRAME_KIND_OPEN:
            message = lane_pb.Open.FromString(frame.payload)
            seen.opens.append(message)
            self.offer(frame.stream, message.request_id, message.build, 1)
        elif kind == FrameKind.FRAME_KIND_ABANDON:
            seen.abandons.append(lane_pb.Abandon.FromString(frame.payload).reason)
        elif frame.stream in self.attempts:
            self.take_attempt(self.attempts[frame.stream], frame)

    def take_attempt(self, attempt: _Attempt, frame: Frame) -> None:
        seen, kind = self.router.seen, frame.kind
        if kind == FrameKind.FRAME_KIND_SEALED:
            attempt.sealed = lane_pb.Sealed.FromString(frame.payload)
        elif kind == FrameKind.FRAME_KIND_BODY_PART:
            attempt.body += frame.payload
            if attempt.sealed is not None and len(attempt.body) == attempt.sealed.body_bytes:
                attempt.task = self.tasks.create_task(self.answer(attempt))
        elif kind == FrameKind.FRAME_KIND_CREDIT:
            credit = link_pb.Credit.FromString(frame.payload)
            seen.credits.append(credit.granted_frames)
            attempt.granted = credit.granted_frames
            attempt.credited.set()
        elif kind == FrameKind.FRAME_KIND_CANCEL:
            seen.cancels.append(link_pb.Cancel.FromString(frame.payload))
            if attempt.task is not None:
                attempt.task.cancel()
        elif kind == FrameKind.FRAME_KIND_CLOSE:
            seen.closes.append(lane_pb.Close.FromString(frame.payload))
        elif kind == FrameKind.FRAME_KIND_VIOLATION:
            seen.violations.append(lane_pb.Violation.FromString(frame.payload).kind)
            self.take_violation(attempt)
        elif kind == FrameKind.FRAME_KIND_DECLINE:
            seen.declines.append(lane_pb.Decline.FromString(frame.payload).reason)
            self.take_decline(attempt)

    def take_violation(self, attempt: _Attempt) -> None:
        if attempt.task is not None:
            attempt.task.cancel()
        if attempt.committed:
            self.fail(attempt, lane_pb.ATTEMPT_FAILURE_ENCRYPTION_FAILURE)
        else:
            self.offer_again(attempt)

    def take_decline(self, attempt: _Attempt) -> None:
        """Offer the next script, if there is one; otherwise nobody is cheap enough."""
        if attempt.hedge:
            return
        if self.router.scripts:
            self.offer_again(attempt)
            return
        refused = lane_pb.Refused(
            http_status=402,
            type="provider_error",
            code="provider_error",
            reason=lane_pb.REFUSAL_REASON_PRICE,
            message="insufficient funds for provider price",
        )
        self.lane.send_control(FrameKind.FRAME_KIND_REFUSED, attempt.request_stream, refused)

    def offer_again(self, attempt: _Attempt) -> None:
        self.offer(
            attempt.request_stream, attempt.request_id, self.router.build, attempt.number + 1
        )

    def offer(
        self,
        stream: int,
        request_id: str,
        build: str,
        number: int,
        hedge: Script | None = None,
    ) -> None:
        router = self.router
        script = hedge or router.next_script()
        if script.refused is not None:
            self.lane.send_control(FrameKind.FRAME_KIND_REFUSED, stream, script.refused)
            return
        verdict, signed = router.verdict(script)
        attempt = _Attempt(
            stream,
            router.next_stream(),
            new_id("att"),
            request_id,
            script,
            verdict,
            number,
            hedge is not None,
        )
        self.attempts[attempt.stream] = attempt
        offer = lane_pb.Offer(
            attempt_id=attempt.attempt_id,
            attempt_stream=attempt.stream,
            attempt_number=number,
            verdict=signed,
            build=build,
            provider=lane_pb.ProviderFacts(
                provider_id=router.provider_id,
                chip_name="Test chip\r\nX-Evil: 1",
                machine_model="T1",
            ),
            scripted=script.scripted,
            hedge=hedge is not None,
        )
        if script.price is not None:
            offer.price.CopyFrom(script.price)
        self.lane.send_control(FrameKind.FRAME_KIND_OFFER, stream, offer)

    def fail(self, attempt: _Attempt, failure: int) -> None:
        message = lane_pb.AttemptFailed(failure=failure)  # type: ignore[arg-type]
        self.lane.send_ordered(FrameKind.FRAME_KIND_ATTEMPT_FAILED, attempt.stream, message)

    def open_request(self, attempt: _Attempt) -> Opened:
        sealed = attempt.sealed
        assert sealed is not None
        body = bytes(attempt.body)
        assert hashlib.sha256(body).digest() == sealed.body_sha256
        opened = ProviderSession.open_request(
            key_pair=self.router.key_pair,
            sender_key=sealed.sender_key,
            request_id=attempt.request_id,
            attempt_id=attempt.attempt_id,
            payload=body,
            now_ms=int(datetime.now(UTC).timestamp() * 1000),  # noqa: TID251 - real time
            memory=self.router.memory,
        )
        self.router.seen.headers.append(opened.header)
        self.router.seen.requests.append(parse_canonical(opened.body))
        return opened

    async def race(self, attempt: _Attempt, script: Script) -> None:
        """Wait, make a second offer, if any, and return once it was sealed or declined."""
        if script.late is not None:
            await script.late.wait()
        hedge = script.hedge
        if hedge is None:
            return
        seen = self.router.seen
        before = len(seen.headers) + len(seen.declines)
        stream, request_id = attempt.request_stream, attempt.request_id
        self.offer(stream, request_id, self.router.build, attempt.number + 1, hedge)
        await self.router.until(lambda: len(seen.headers) + len(seen.declines) > before)

    async def answer(self, attempt: _Attempt) -> None:
        script = attempt.script
        opened = self.open_request(attempt)
        asked = self.router.seen.requests[-1]
        self.router.note()
        if script.cut_lane:
            self.lane.close("cut")
            return
        self.lane.send_control(FrameKind.FRAME_KIND_ACCEPTED, attempt.stream, link_pb.Accepted())
        await self.race(attempt, script)
        if script.silent:
            return
        if script.fails:
            self.offer_again(attempt)
            return

        transcript = Transcript(opened.header.receipt_key)
        transcript.request(opened.body)
        transcript.feed(Delta(text=script.preamble_text))
        preamble = Delta(text=script.preamble_text, prompt_tokens=script.prompt_tokens)
        sequence = 0
        self.chunk(attempt, opened.session, preamble, sequence, FrameKind.FRAME_KIND_PREAMBLE)
        deltas = list(script.deltas if script.deltas is not None else _deltas(script, asked))
        for index, delta in enumerate(deltas):
            sequence += 1
            while sequence >= attempt.granted and delta is not deltas[-1]:
                attempt.credited.clear()
                await attempt.credited.wait()
            if not attempt.committed:
                attempt.committed = True
                committed = lane_pb.Committed(queue_ms=1, provider_ms=2)
                self.lane.send_ordered(FrameKind.FRAME_KIND_COMMITTED, attempt.stream, committed)
            final = index == len(deltas) - 1
            kind = FrameKind.FRAME_KIND_CHUNK_FINAL if final else FrameKind.FRAME_KIND_CHUNK
            transcript.feed(delta)
            self.chunk(attempt, opened.session, delta, sequence, kind, script, index)
            if script.breaks_after == index + 1:
                self.fail(attempt, lane_pb.ATTEMPT_FAILURE_PROVIDER_LOST)
                return
            if script.pause is not None and index == 0:
                await script.pause.wait()
        if not script.no_terminal:
            self.finish(attempt, opened, transcript, deltas[-1], sequence + 1)

    def chunk(
        self,
        attempt: _Attempt,
        session: ProviderSession,
        delta: Delta,
        sequence: int,
        kind: int,
        script: Script | None = None,
        index: int = -1,
    ) -> None:
        payload = session.seal_chunk(encode(delta), final=kind == FrameKind.FRAME_KIND_CHUNK_FINAL)
        tokens = delta.completion_tokens
        if script is not None and script.tamper == index:
            payload = payload[:-1] + bytes([payload[-1] ^ 1])
        if script is not None and script.inflate == index:
            tokens += 1
        self.router.seen.sent_chunks += 1
        self.lane.send_chunk(kind, attempt.stream, sequence, payload, tokens)

    def finish(
        self,
        attempt: _Attempt,
        opened: Opened,
        transcript: Transcript,
        last: Delta,
        chunks: int,
    ) -> None:
        terminal = Terminal(
            request_id=attempt.request_id,
            attempt_id=attempt.attempt_id,
            build=self.router.build,
            weight_hash=WEIGHTS,
            prompt_tokens=last.prompt_tokens,
            completion_tokens=last.completion_tokens,
            cached_tokens=last.cached_tokens,
            reasoning_tokens=last.reasoning_tokens,
            chunks=chunks,
            finish_reason=last.finish_reason,
            encryption_key=attempt.verdict.encryption_key,
            verdict_id=attempt.verdict.verdict_id,
            sealed_to=opened.header.sealed_to,
            digests=transcript.digests(),
            outcome="completed",
        )
        if attempt.script.terminal is not None:
            terminal = attempt.script.terminal(terminal)
        document, signature = sign_terminal(terminal, self.router.identity)
        message = link_pb.Terminal(terminal=SignedDocument(document=document, signature=signature))
        self.lane.send_ordered(FrameKind.FRAME_KIND_TERMINAL, attempt.stream, message)


def _deltas(script: Script, asked: ChatRequest) -> list[Delta]:
    prompt = script.prompt_tokens
    texts = [asked.messages[-1]["content"]] if script.echo else script.texts
    deltas = [
        Delta(text=text, prompt_tokens=prompt, completion_tokens=index + 1)
        for index, text in enumerate(texts)
    ]
    count = len(texts)
    end = Delta(prompt_tokens=prompt, completion_tokens=count, finish_reason="stop")
    return [*deltas, end]


def scripted(*texts: str, **changes: object) -> Script:
    """Return a script that says these texts."""
    return replace(Script(texts=texts), **changes)  # type: ignore[arg-type]
