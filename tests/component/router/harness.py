"""A router in this process with fake neighbours, a scripted provider and a scripted gateway."""

import asyncio
import base64
import itertools
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import grpc
from darkbloom.attestation.v1.attestation_service_pb2_grpc import (
    add_AttestationServiceServicer_to_server,
)
from darkbloom.billing.v1.account_service_pb2_grpc import add_AccountServiceServicer_to_server
from darkbloom.billing.v1.ledger_service_pb2_grpc import add_LedgerServiceServicer_to_server
from darkbloom.billing.v1.price_service_pb2_grpc import add_PriceServiceServicer_to_server
from darkbloom.common.v1.frame_pb2 import Frame, FrameKind
from darkbloom.common.v1.price_pb2 import SignedDocument
from darkbloom.registry.v1.registry_service_pb2_grpc import add_RegistryServiceServicer_to_server
from darkbloom.router.v1 import fleet_service_pb2_grpc
from darkbloom.router.v1 import gateway_lane_pb2 as gw
from darkbloom.router.v1 import provider_link_pb2 as pl
from darkbloom.router.v1.gateway_lane_service_pb2_grpc import GatewayLaneServiceStub
from darkbloom.router.v1.provider_link_service_pb2_grpc import ProviderLinkServiceStub
from darkbloom_edge.ids import new_id
from darkbloom_mesh.channel import call_metadata, channel
from darkbloom_mesh.config import Secret
from darkbloom_mesh.lane import Lane, LaneEnd
from darkbloom_mesh.options import MAX_LANE_BYTES
from darkbloom_mesh.serve import Service
from darkbloom_mesh.testing import FakeClock, serve_ephemeral
from darkbloom_router.app import build
from darkbloom_router.attempts import Phase
from darkbloom_router.config import RouterConfig
from darkbloom_router.upkeep import Router
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from tests.fakes.attestation import FakeAttestation
from tests.fakes.billing import FakeAccounts, FakeLedger, FakePrices
from tests.fakes.registry import SCRIPTED_BUILD, SCRIPTED_HASH, FakeRegistry

MessageT = TypeVar("MessageT", bound=Message)
TOKEN = "m" * 40
PATIENCE_S = 20.0
K = FrameKind


class Mailbox:
    """Frames that came, taken by kind; waiting for one that does not come fails the test, and says
    how the lane ended where it did.
    """

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self._changed = asyncio.Event()
        self._end: LaneEnd | None = None

    def put(self, frames: Sequence[Frame]) -> None:
        self.frames.extend(frames)
        self._changed.set()

    def end(self, end: LaneEnd) -> None:
        """Nothing comes any more."""
        self._end = end
        self._changed.set()

    async def take(self, *kinds: int, stream: int | None = None) -> Frame:
        """Return and remove the first frame of one of the kinds."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                for index, frame in enumerate(self.frames):
                    if frame.kind in kinds and stream in (None, frame.stream):
                        return self.frames.pop(index)
                wanted = [K.Name(K.ValueType(kind)) for kind in kinds]
                assert self._end is None, f"no {wanted}, the lane has ended: {self._end}"
                self._changed.clear()
                await self._changed.wait()

    async def message(self, kind: int, cls: type[MessageT], stream: int | None = None) -> MessageT:
        return cls.FromString((await self.take(kind, stream=stream)).payload)

    def kinds(self) -> list[int]:
        return [frame.kind for frame in self.frames]


class Peer:
    """One end of a lane."""

    def __init__(self, stub: Any, token: Secret | None) -> None:
        self.box = Mailbox()
        self.call = stub.Connect(metadata=call_metadata(token))
        self.lane = Lane(self.call, on_frames=self._receive, name="test")
        self.end: LaneEnd | None = None

    def _receive(self, frames: Sequence[Frame]) -> None:
        self.box.put(frames)

    async def run(self) -> LaneEnd:
        self.end = await self.lane.run()
        self.box.end(self.end)
        return self.end


class ScriptedProvider(Peer):
    """A provider that does only what a test tells it, but answers challenges by itself."""

    answers = True
    evidence = b""

    def __init__(self, stub: Any, name: str) -> None:
        super().__init__(stub, None)
        self.name = name
        self.identity = b"\x04" + name.encode().ljust(64, b".")[:64]
        self.provider_id = ""
        self.capacity_seq = 0

    def _receive(self, frames: Sequence[Frame]) -> None:
        for frame in frames:
            if frame.kind == K.FRAME_KIND_ATTESTATION_CHALLENGE and self.answers:
                challenge = pl.AttestationChallenge.FromString(frame.payload)
                self.lane.send_control(
                    K.FRAME_KIND_ATTESTATION_RESPONSE,
                    0,
                    pl.AttestationResponse(
                        nonce=challenge.nonce, status=b"{}", device_evidence=self.evidence
                    ),
                )
        super()._receive(frames)

    def blob(self) -> bytes:
        return json.dumps({"publicKey": base64.b64encode(self.identity).decode()}).encode()

    def registration(self, **changes: Any) -> pl.Register:
        message = pl.Register(
            protocol=pl.ProtocolVersion(major=1, minor=0),
            capabilities=["credits"],
            hardware=pl.Hardware(memory_gb=64, memory_bandwidth_gbs=400, chip_family="M4"),
            models=[pl.ProviderModel(id=SCRIPTED_BUILD, weight_hash=SCRIPTED_HASH)],
            backend="scripted",
            version="0.1.0",
            encryption_key=b"K" * 32,
            attestation_blob=self.blob(),
            attestation_signature=b"sig",
            privacy=pl.PrivacyCapabilities(
                text_backend_inprocess=True, encrypted_response_chunks=True
            ),
        )
        for name, value in changes.items():
            setattr(message, name, value)
        return message

    async def register(self, **changes: Any) -> pl.Registered:
        self.lane.send_control(K.FRAME_KIND_REGISTER, 0, self.registration(**changes))
        registered = await self.box.message(K.FRAME_KIND_REGISTERED, pl.Registered)
        self.provider_id = registered.provider_id
        return registered

    async def admitted(self) -> pl.TrustStatus:
        """Wait until a verdict is in force here."""
        while True:
            status = await self.trust()
            if status.verdict_id:
                return status

    async def trust(self) -> pl.TrustStatus:
        return await self.box.message(K.FRAME_KIND_TRUST_STATUS, pl.TrustStatus)

    def heartbeat(self, *, slots: Sequence[pl.Slot] = (), **changes: Any) -> None:
        message = pl.Heartbeat(status=pl.PROVIDER_STATUS_IDLE, **changes)
        if slots:
            self.capacity_seq += 1
            message.capacity.capacity_seq = self.capacity_seq
            message.capacity.total_memory_gb = 64
            message.capacity.slots.extend(slots)
        self.lane.send_control(K.FRAME_KIND_HEARTBEAT, 0, message)

    async def request(self) -> tuple[int, pl.InferenceRequest]:
        frame = await self.box.take(K.FRAME_KIND_REQUEST)
        return frame.stream, pl.InferenceRequest.FromString(frame.payload)

    def accept(self, stream: int) -> None:
        self.lane.send_control(K.FRAME_KIND_ACCEPTED, stream, pl.Accepted())

    def chunk(
        self, stream: int, sequence: int, tokens: int, *, kind: int = K.FRAME_KIND_CHUNK
    ) -> None:
        self.lane.send_chunk(kind, stream, sequence, b"sealed-%d" % sequence, tokens)

    def error(self, stream: int, code: int, reason: int = 0, status: int = 500) -> None:
        self.lane.send_ordered(
            K.FRAME_KIND_ERROR,
            stream,
            pl.AttemptError(
                status_code=status,
                failure_code=pl.FailureCode.ValueType(code),
                reason=pl.FailureReason.ValueType(reason),
            ),
        )

    def terminal(self, stream: int, attempt_id: str) -> None:
        document = json.dumps({"attempt_id": attempt_id}).encode()
        self.lane.send_ordered(
            K.FRAME_KIND_TERMINAL,
            stream,
            pl.Terminal(terminal=SignedDocument(document=document, signature=b"sig")),
        )

    async def serve(self, tokens: int = 3) -> tuple[int, pl.InferenceRequest]:
        """Answer one request completely."""
        stream, request = await self.request()
        self.accept(stream)
        for index in range(tokens):
            self.chunk(stream, index, index + 1)
        self.chunk(stream, tokens, tokens, kind=K.FRAME_KIND_CHUNK_FINAL)
        self.terminal(stream, request.attempt_id)
        return stream, request


class ScriptedGateway(Peer):
    """A gateway worker that does only what a test tells it."""

    def __init__(self, stub: Any, clock: FakeClock) -> None:
        super().__init__(stub, Secret(TOKEN))
        self.clock = clock
        self.prefix = 0
        self._counter = itertools.count(1)

    async def hello(self) -> gw.LaneWelcome:
        self.lane.send_control(K.FRAME_KIND_LANE_HELLO, 0, gw.LaneHello(gateway="test"))
        welcome = await self.box.message(K.FRAME_KIND_LANE_WELCOME, gw.LaneWelcome)
        self.prefix = welcome.prefix
        return welcome

    def open(self, *, deadline_s: float = 60.0, **changes: Any) -> tuple[int, str]:
        stream = self.prefix << 40 | next(self._counter)
        message = gw.Open(
            request_id=changes.pop("request_id", None) or new_id("req"),
            build=SCRIPTED_BUILD,
            prompt_tokens_estimate=10,
            prompt_bound=100,
            output_bound=50,
            account_id="acct_consumer",
            owner_policy=gw.OWNER_POLICY_PUBLIC,
            trust_floor="hardware",
        )
        message.deadline_time.FromDatetime(self.clock.now() + timedelta(seconds=deadline_s))
        for name, value in changes.items():
            if isinstance(value, Message):
                getattr(message, name).CopyFrom(value)
            else:
                setattr(message, name, value)
        self.lane.send_control(K.FRAME_KIND_OPEN, stream, message)
        return stream, message.request_id

    async def offer(self, stream: int) -> gw.Offer:
        frame = await self.box.take(K.FRAME_KIND_OFFER, K.FRAME_KIND_REFUSED, stream=stream)
        assert frame.kind == K.FRAME_KIND_OFFER, gw.Refused.FromString(frame.payload)
        return gw.Offer.FromString(frame.payload)

    async def refused(self, stream: int) -> gw.Refused:
        frame = await self.box.take(K.FRAME_KIND_OFFER, K.FRAME_KIND_REFUSED, stream=stream)
        assert frame.kind == K.FRAME_KIND_REFUSED
        return gw.Refused.FromString(frame.payload)

    def seal(self, offer: gw.Offer, body: bytes = b"ciphertext", **changes: Any) -> None:
        message = gw.Sealed(
            sender_key=b"s" * 32,
            body_bytes=len(body),
            body_sha256=b"h" * 32,
            verdict_id=json.loads(offer.verdict.document)["verdict_id"],
            prompt_bound=100,
            output_bound=50,
        )
        for name, value in changes.items():
            setattr(message, name, value)
        self.lane.send_control(K.FRAME_KIND_SEALED, offer.attempt_stream, message)
        self.lane.send_body(offer.attempt_stream, body)

    def credit(self, stream: int, granted: int, frames: int = 0, tokens: int = 0) -> None:
        self.lane.send_control(
            K.FRAME_KIND_CREDIT,
            stream,
            pl.Credit(granted_frames=granted, opened=opened(frames, tokens)),
        )

    def cancel(self, stream: int, frames: int = 0, tokens: int = 0) -> None:
        self.lane.send_control(
            K.FRAME_KIND_CANCEL,
            stream,
            pl.Cancel(reason=pl.CANCEL_REASON_CLIENT_GONE, opened=opened(frames, tokens)),
        )

    def close(self, stream: int, frames: int = 4, tokens: int = 3) -> None:
        self.lane.send_control(K.FRAME_KIND_CLOSE, stream, gw.Close(opened=opened(frames, tokens)))

    def violation(self, stream: int, frames: int = 0, tokens: int = 0) -> None:
        self.lane.send_control(
            K.FRAME_KIND_VIOLATION,
            stream,
            gw.Violation(kind=gw.VIOLATION_KIND_UNOPENABLE, opened=opened(frames, tokens)),
        )

    async def dispatched(self, **changes: Any) -> tuple[int, str, gw.Offer]:
        """Open, take the offer and seal."""
        stream, request_id = self.open(**changes)
        offer = await self.offer(stream)
        self.seal(offer)
        return stream, request_id, offer

    async def whole(self, stream: int) -> list[int]:
        """Take the frames of one attempt up to its terminal; returns their kinds."""
        kinds = []
        while not kinds or kinds[-1] != K.FRAME_KIND_TERMINAL:
            frame = await self.box.take(
                K.FRAME_KIND_COMMITTED,
                K.FRAME_KIND_PREAMBLE,
                K.FRAME_KIND_CHUNK,
                K.FRAME_KIND_CHUNK_FINAL,
                K.FRAME_KIND_TERMINAL,
                stream=stream,
            )
            kinds.append(frame.kind)
        return kinds


def opened(frames: int, tokens: int) -> pl.Opened:
    return pl.Opened(frames=frames, prompt_tokens=10 if frames else 0, completion_tokens=tokens)


def seconds(value: float) -> Duration:
    message = Duration()
    message.FromNanoseconds(int(value * 1e9))
    return message


@dataclass
class World:
    """Everything around one router."""

    clock: FakeClock
    attestation: FakeAttestation
    ledger: FakeLedger
    accounts: FakeAccounts
    prices: FakePrices
    registry: FakeRegistry
    service: Service
    router: Router
    tasks: asyncio.TaskGroup
    stack: AsyncExitStack
    served: asyncio.Task[int]
    fleet: Any
    peers: list[Peer] = field(default_factory=list)

    async def provider(self, name: str = "one", **changes: Any) -> ScriptedProvider:
        """Connect and admit a provider."""
        provider = await self.raw_provider(name)
        await provider.register(**changes)
        await provider.admitted()
        return provider

    async def raw_provider(
        self, name: str = "one", cls: type[ScriptedProvider] = ScriptedProvider
    ) -> ScriptedProvider:
        """Connect a provider that says nothing yet."""
        target = self.service.listeners["public"]
        opened_channel = await self._channel(target, None)
        provider = cls(ProviderLinkServiceStub(opened_channel), name)
        self._run(provider)
        return provider

    async def gateway(self) -> ScriptedGateway:
        """Connect a gateway worker."""
        gateway = await self.stranger()
        await gateway.hello()
        return gateway

    async def stranger(self) -> ScriptedGateway:
        """Connect a gateway worker that has not said hello."""
        target = self.service.listeners["internal"]
        opened_channel = await self._channel(target, Secret(TOKEN))
        gateway = ScriptedGateway(GatewayLaneServiceStub(opened_channel), self.clock)
        self._run(gateway)
        return gateway

    async def until(self, condition: Callable[[], bool]) -> None:
        """Let the loop run until something is so."""
        async with asyncio.timeout(PATIENCE_S):
            while not condition():  # noqa: ASYNC110 - what it waits for has no event
                await asyncio.sleep(0.001)  # noqa: TID251 - polls the real loop, tests no time

    async def accepted(self, stream: int) -> None:
        """Let the loop run until the router knows that an attempt was admitted."""
        attempts = self.router.losses._attempts.by_stream
        await self.until(lambda: attempts[stream].phase is Phase.ACCEPTED)

    async def turn(self, seconds_: float) -> None:
        """Let a little time pass, and what it causes cross the sockets."""
        await self.clock.advance(seconds_)
        await asyncio.sleep(0.005)  # noqa: TID251 - the sockets' turn

    def provider_state(self, provider: ScriptedProvider) -> Any:
        return self.router.fleet.providers[provider.provider_id]

    async def _channel(self, target: str, token: Secret | None) -> grpc.aio.Channel:
        return await self.stack.enter_async_context(
            channel(target, mesh_token=token, room="test", max_message_bytes=MAX_LANE_BYTES)
        )

    def _run(self, peer: Peer) -> None:
        self.peers.append(peer)
        self.tasks.create_task(peer.run())


@asynccontextmanager
async def world(tmp_path: Path, **settings: Any) -> AsyncIterator[World]:
    """Start a router in development mode with everything around it."""
    clock = FakeClock()
    attestation, ledger, accounts = FakeAttestation(clock), FakeLedger(clock), FakeAccounts()
    prices = FakePrices()
    registry = settings.pop("registry", None) or FakeRegistry()
    token_file = tmp_path / "token"
    token_file.write_text(TOKEN)
    async with AsyncExitStack() as stack:
        attestation_at, billing_at, registry_at = [
            await stack.enter_async_context(serve_ephemeral(*registrars, mesh_token=TOKEN))
            for registrars in (
                (partial(add_AttestationServiceServicer_to_server, attestation),),
                (
                    partial(add_LedgerServiceServicer_to_server, ledger),
                    partial(add_AccountServiceServicer_to_server, accounts),
                    partial(add_PriceServiceServicer_to_server, prices),
                ),
                (partial(add_RegistryServiceServicer_to_server, registry),),
            )
        ]
        values = {
            "environment": "development",
            "public_listen": "127.0.0.1:0",
            "internal_listen": "127.0.0.1:0",
            "attestation_target": attestation_at,
            "billing_target": billing_at,
            "registry_target": registry_at,
            "mesh_token_file": token_file,
            "state_dir": tmp_path,
            "log_level": "error",
            "accept_timeout_s": 2.0,
            "content_timeout_s": 4.0,
            "break_settle_delay_s": 5.0,
            "queue_wait_s": 3.0,
            **settings,
        }
        config = RouterConfig(**values)
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        service = Service(config, room="router", version="0", signals=False)
        await stack.enter_async_context(service)
        router = await build(config, service, clock)
        served = tasks.create_task(service.wait())
        fleet_channel = None
        made = World(
            clock,
            attestation,
            ledger,
            accounts,
            prices,
            registry,
            service,
            router,
            tasks,
            stack,
            served,
            None,
        )
        await made.until(lambda: served.done() or bool(service.listeners))
        if values["registry_target"] == registry_at and not registry.away:
            await made.until(lambda: router.fleet.catalog.generation > 0)
        fleet_channel = await made._channel(service.listeners["internal"], Secret(TOKEN))
        made.fleet = fleet_service_pb2_grpc.FleetServiceStub(fleet_channel)
        try:
            yield made
        finally:
            for peer in made.peers:
                peer.lane.close("test over")
            service.stop()
            while not served.done():
                clock.jump(0.1)
                await asyncio.sleep(0.001)  # noqa: TID251 - lets the drain proceed
