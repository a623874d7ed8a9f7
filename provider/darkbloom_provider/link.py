"""One stream to the router, from REGISTER to its end.

The link speaks for the lane as a whole: it registers, beats, answers challenges and keeps what the
router says of this machine. Attempts are the worker's. A link that is told to go away finishes its
work while the agent opens another.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import grpc
import structlog
from darkbloom.common.v1.frame_pb2 import Frame, FrameKind
from darkbloom.router.v1.provider_link_pb2 import (
    AttestationChallenge,
    GateReason,
    GoAway,
    ProviderDrain,
    ProviderDrainAck,
    Registered,
    RuntimeStatus,
    TrustStatus,
)
from darkbloom.router.v1.provider_link_service_pb2_grpc import ProviderLinkServiceStub
from darkbloom_mesh.lane import Lane, LaneEnd
from google.protobuf.message import DecodeError

from darkbloom_provider import hardware
from darkbloom_provider.presentation import Presence, heartbeat
from darkbloom_provider.state import RejectedModel
from darkbloom_provider.work import Desk, Worker

REGISTER_TIMEOUT_S = 15.0
TICK_S = 0.25
"""Least time between two heartbeats, and how often bodies are looked at for being late."""
DEFAULT_CREDIT = 32

_log = structlog.get_logger()


@dataclass(slots=True)
class Standing:
    """What the router last said of this machine."""

    provider_id: str = ""
    account_id: str = ""
    trust_level: str = "none"
    trust_status: str = ""
    trust_reason: str = ""
    admission: str = ""
    accepted_models: tuple[str, ...] = ()
    rejected_models: tuple[RejectedModel, ...] = ()
    runtime_verified: bool | None = None
    runtime_mismatches: tuple[str, ...] = field(default=())


class Link:
    """One connection; run it once.

    Args:
        channel: To the router's provider listener.
        presence: What to register with.
        desk: Keys, engine and memory that all links share.
        interval_s: Seconds between heartbeats until the router names its own.
        previous: Provider id of the stream before.
        updated: Called after each change of `standing`.
    """

    def __init__(
        self,
        channel: grpc.aio.Channel,
        *,
        presence: Presence,
        desk: Desk,
        interval_s: float,
        previous: str,
        updated: Callable[[], None],
    ) -> None:
        self.standing = Standing()
        self.registered = asyncio.Event()
        self.leaving = asyncio.Event()
        """Set when the router asks us to open a stream elsewhere, and at the end."""
        self._presence = presence
        self._desk = desk
        self._interval_s = interval_s
        self._previous = previous
        self._updated = updated
        self._lane = Lane(
            ProviderLinkServiceStub(channel).Connect(),
            on_frames=self._receive,
            name="provider",
            clock=desk.clock,
        )
        self._worker: Worker | None = None
        self._tasks: asyncio.TaskGroup | None = None
        self._dirty = True
        self._sequence = 0
        self._drained = asyncio.Event()
        self._handlers: dict[int, Callable[[bytes], None]] = {
            FrameKind.FRAME_KIND_REGISTERED: self._on_registered,
            FrameKind.FRAME_KIND_ATTESTATION_CHALLENGE: self._on_challenge,
            FrameKind.FRAME_KIND_TRUST_STATUS: self._on_trust_status,
            FrameKind.FRAME_KIND_RUNTIME_STATUS: self._on_runtime_status,
            FrameKind.FRAME_KIND_GO_AWAY: self._on_go_away,
            FrameKind.FRAME_KIND_PROVIDER_DRAIN_ACK: self._on_drain_ack,
        }

    @property
    def busy(self) -> bool:
        """Whether attempts are running on this stream."""
        return self._worker is not None and self._worker.busy

    async def run(self) -> LaneEnd:
        """Register and serve until the stream ends; stops its attempts and returns why."""
        now = self._desk.clock.now()
        waiting = [attempt_id for attempt_id, _ in self._desk.terminals]
        self._lane.send_control(
            FrameKind.FRAME_KIND_REGISTER,
            0,
            self._presence.register(now, previous=self._previous, inflight=waiting),
        )
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                ticker = tasks.create_task(self._tick(), name="link.tick")
                end = await self._lane.run()
                ticker.cancel()
                if self._worker is not None:
                    self._worker.close()
        finally:
            self.leaving.set()
            self._drained.set()
        return end

    async def drain(self) -> None:
        """Refuse new work, finish what runs, and leave once every terminal is settled."""
        if self._worker is None:
            self._lane.close("drain")
            return
        self._worker.draining = True
        self._dirty = True
        while self._worker.busy and self._lane.open:
            await self._desk.clock.sleep(TICK_S / 5)
        self._lane.send_control(
            FrameKind.FRAME_KIND_PROVIDER_DRAIN,
            0,
            ProviderDrain(drain_id=self._presence.generation),
        )
        await self._drained.wait()
        self._lane.close("drain")

    # What the router says.

    def _receive(self, frames: Sequence[Frame]) -> None:
        for frame in frames:
            try:
                if self._worker is not None and self._worker.handle(frame):
                    continue
                handler = self._handlers.get(frame.kind)
                if handler is not None and frame.stream == 0:
                    handler(frame.payload)
            except DecodeError:
                _log.warning("frame_malformed", kind=frame.kind)
                self._lane.close("malformed")
                return

    def _on_registered(self, payload: bytes) -> None:
        if self._worker is not None or self._tasks is None:
            return
        answer = Registered.FromString(payload)
        self.standing.provider_id = answer.provider_id
        self.standing.account_id = answer.account_id
        self.standing.trust_level = answer.trust_level
        self.standing.accepted_models = tuple(answer.accepted_models)
        self.standing.rejected_models = tuple(
            RejectedModel(id=r.id, reason=reason_name(r.reason), detail=r.detail)
            for r in answer.rejected_models
        )
        if answer.HasField("heartbeat_interval"):
            self._interval_s = max(TICK_S, answer.heartbeat_interval.ToTimedelta().total_seconds())
        self._worker = Worker(
            self._desk,
            outlet=self._lane,
            tasks=self._tasks,
            credit=answer.initial_credit or DEFAULT_CREDIT,
            changed=self._touch,
        )
        for _, terminal in self._desk.terminals:
            self._lane.send_control(FrameKind.FRAME_KIND_TERMINAL, 0, terminal)
        self.registered.set()
        self._updated()

    def _on_challenge(self, payload: bytes) -> None:
        challenge = AttestationChallenge.FromString(payload)
        self._lane.send_control(
            FrameKind.FRAME_KIND_ATTESTATION_RESPONSE, 0, self._presence.answer(challenge)
        )

    def _on_trust_status(self, payload: bytes) -> None:
        status = TrustStatus.FromString(payload)
        self.standing.trust_level = status.trust_level
        self.standing.trust_status = status.status
        self.standing.trust_reason = status.reason
        self.standing.admission = status.admission
        if self._worker is not None:
            self._worker.accept_verdict(status.verdict_id)
        self._updated()

    def _on_runtime_status(self, payload: bytes) -> None:
        status = RuntimeStatus.FromString(payload)
        self.standing.runtime_verified = status.verified
        self.standing.runtime_mismatches = tuple(m.component for m in status.mismatches)
        self._updated()

    def _on_go_away(self, payload: bytes) -> None:
        GoAway.FromString(payload)
        self.leaving.set()

    def _on_drain_ack(self, payload: bytes) -> None:
        if ProviderDrainAck.FromString(payload).drain_id == self._presence.generation:
            self._drained.set()

    # What we say by ourselves.

    def _touch(self) -> None:
        self._dirty = True

    async def _tick(self) -> None:
        clock = self._desk.clock
        opened_at = beat_at = clock.monotonic()
        while True:
            await clock.sleep(TICK_S)
            now = clock.monotonic()
            if self._worker is None:
                if now - opened_at >= REGISTER_TIMEOUT_S:
                    self._lane.close("not_registered")
                continue
            self._worker.expire()
            if self._dirty or now - beat_at >= self._interval_s:
                self._dirty, beat_at = False, now
                self._beat()

    def _beat(self) -> None:
        self._sequence += 1
        message = heartbeat(
            slots=self._desk.engine.slots(),
            stats=self._desk.stats,
            usage_gaps=len(self._desk.terminals),
            load=hardware.load(),
            total_memory_gb=self._presence.hardware.memory_gb,
            sequence=self._sequence,
            draining=self._worker is not None and self._worker.draining,
        )
        self._lane.send_control(FrameKind.FRAME_KIND_HEARTBEAT, 0, message)
        self._updated()


def reason_name(reason: int) -> str:
    """Return a gate's word as people see it, `other` for one that this agent does not know."""
    if reason not in GateReason.values():
        return "other"
    return GateReason.Name(GateReason.ValueType(reason)).removeprefix("GATE_REASON_").lower()
