"""One stream to the router, from REGISTER to its end.

The link speaks for the lane as a whole: it registers, beats, answers challenges and keeps what the
router says of this machine. Attempts are the worker's. A link that is told to go away finishes its
work while the agent opens another.
"""

import asyncio
import math
from collections.abc import Callable, Sequence
from functools import partial

import grpc
import structlog
from darkbloom.common.v1.frame_pb2 import Frame, FrameKind
from darkbloom.router.v1.provider_link_pb2 import (
    AttestationChallenge,
    CodeAttestationResponse,
    CodeResumeChallenge,
    GoAway,
    LoadModel,
    LoadModelStatus,
    OperationStatus,
    ProviderDrain,
    ProviderDrainAck,
    Registered,
    RoutingStatus,
    RuntimeStatus,
    TrustStatus,
)
from darkbloom.router.v1.provider_link_service_pb2_grpc import ProviderLinkServiceStub
from darkbloom_edge.code_identity import (
    CodeIdentityRejected,
    SealedChallenge,
    answer_code_challenge,
)
from darkbloom_mesh.lane import Lane, LaneEnd
from google.protobuf.message import DecodeError

from darkbloom_provider import hardware
from darkbloom_provider.desk import Desk
from darkbloom_provider.hint import Hint, bounded_s, hint_of
from darkbloom_provider.presentation import Presence, heartbeat
from darkbloom_provider.standing import Standing
from darkbloom_provider.waiting import first_of
from darkbloom_provider.wish_messages import take_desired, take_prefetch, wish_status
from darkbloom_provider.wishes import Tracked
from darkbloom_provider.witness import KEY_REJECTED, Witness
from darkbloom_provider.work import Worker

REGISTER_TIMEOUT_S = 15.0
TICK_S = 0.25
"""Least time between two heartbeats, and how often bodies are looked at for being late."""
MAX_HEARTBEAT_S = 60.0
DRAIN_POLL_S = 0.05
STOP_S = 5.0
"""Time for cancelled attempts to end, after the patience of a drain is over."""
SETTLE_S = 10.0
"""Longest wait for the router's word that everything is settled; late is not lost, as terminals
that nobody acknowledged are sent again.
"""
DEFAULT_CREDIT = 32

_log = structlog.get_logger()


class Link:
    """One connection; run it once.

    Args:
        channel: To the router's provider listener.
        presence: What to register with.
        witness: What can be shown beyond our own word.
        desk: Keys, engine and memory that all links share.
        interval_s: Seconds between heartbeats until the router names its own.
        previous: Provider id of the stream before.
        updated: Called after each change of `standing`.
        register_timeout_s: How long the router may take to answer the registration.
    """

    def __init__(
        self,
        channel: grpc.aio.Channel,
        *,
        presence: Presence,
        witness: Witness,
        desk: Desk,
        interval_s: float,
        previous: str,
        updated: Callable[[], None],
        register_timeout_s: float = REGISTER_TIMEOUT_S,
    ) -> None:
        self.standing = Standing()
        self.registered = asyncio.Event()
        self.admitted = asyncio.Event()
        """Set with the first verdict: from here on requests may come."""
        self.leaving = asyncio.Event()
        """Set when the router asks us to open a stream elsewhere, and at the end."""
        self.over = asyncio.Event()
        self.hint = Hint()
        self._presence = presence
        self._witness = witness
        self._desk = desk
        self.channel = channel
        self._interval_s = interval_s
        self._previous = previous
        self._updated = updated
        self._register_timeout_s = register_timeout_s
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
        self._draining = False
        self._drain_until = math.inf
        self._answering: asyncio.Task[None] | None = None
        self._drained = asyncio.Event()
        """Set when the router has settled everything, and at the end."""
        self._handlers: dict[int, Callable[[bytes], None]] = {
            FrameKind.FRAME_KIND_REGISTERED: self._on_registered,
            FrameKind.FRAME_KIND_ATTESTATION_CHALLENGE: self._on_challenge,
            FrameKind.FRAME_KIND_CODE_RESUME_CHALLENGE: self._on_code_challenge,
            FrameKind.FRAME_KIND_TRUST_STATUS: self._on_trust_status,
            FrameKind.FRAME_KIND_RUNTIME_STATUS: self._on_runtime_status,
            FrameKind.FRAME_KIND_ROUTING_STATUS: self._on_routing_status,
            FrameKind.FRAME_KIND_GO_AWAY: self._on_go_away,
            FrameKind.FRAME_KIND_LOAD_MODEL: self._on_load_model,
            FrameKind.FRAME_KIND_PROVIDER_DRAIN_ACK: self._on_drain_ack,
            FrameKind.FRAME_KIND_DESIRED_MODELS: self._on_desired_models,
            FrameKind.FRAME_KIND_PREFETCH_MODEL: self._on_prefetch_model,
        }

    @property
    def busy(self) -> bool:
        """Whether attempts are running on this stream."""
        return self._worker is not None and self._worker.busy

    async def run(self) -> LaneEnd:
        """Register and serve until the stream ends; stops its attempts and returns why."""
        posture = await self._witness.posture()
        now = self._desk.clock.now()
        waiting = [attempt_id for attempt_id, _ in self._desk.terminals]
        self._lane.send_control(
            FrameKind.FRAME_KIND_REGISTER,
            0,
            self._presence.register(
                now,
                posture,
                previous=self._previous,
                inflight=waiting,
                address=self._witness.address,
            ),
        )
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                ticker = tasks.create_task(self._tick(), name="link.tick")
                try:
                    end = await self._lane.run()
                finally:
                    ticker.cancel()
                    if self._answering is not None:
                        self._answering.cancel()
                    if self._worker is not None:
                        self._worker.close()
        finally:
            self.over.set()
            self.leaving.set()
            self._drained.set()
        return end

    async def drain(self, patience_s: float) -> None:
        """Refuse new work, finish what runs, and leave once every terminal is settled.

        What still runs after `patience_s` is cancelled, so that what was delivered is paid. Called
        once more, it can only shorten the patience.
        """
        clock = self._desk.clock
        self._drain_until = min(self._drain_until, clock.monotonic() + patience_s)
        if self._draining:
            await self.over.wait()
            return
        self._draining = True
        if self._worker is not None:
            await self._finish(self._worker)
        self._lane.close("drain")

    async def _finish(self, worker: Worker) -> None:
        clock = self._desk.clock
        worker.draining = self._dirty = True
        while worker.busy and self._lane.open:
            late_s = clock.monotonic() - self._drain_until
            if late_s >= STOP_S:
                break
            if late_s >= 0:
                worker.stop()
            await clock.sleep(DRAIN_POLL_S)
        drain_id = self._presence.generation
        message = ProviderDrain(drain_id=drain_id)
        self._lane.send_control(FrameKind.FRAME_KIND_PROVIDER_DRAIN, 0, message)
        await first_of(self._drained.wait(), clock.sleep(SETTLE_S))

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
        self.standing.take_registered(answer)
        if answer.HasField("heartbeat_interval"):
            self._interval_s = bounded_s(answer.heartbeat_interval, TICK_S, MAX_HEARTBEAT_S)
        self._worker = Worker(
            self._desk,
            outlet=self._lane,
            tasks=self._tasks,
            credit=answer.initial_credit if answer.initial_credit > 0 else DEFAULT_CREDIT,
            changed=self._touch,
        )
        for _, terminal in self._desk.terminals:
            self._lane.send_control(FrameKind.FRAME_KIND_TERMINAL, 0, terminal)
        self.registered.set()
        self._updated()

    def _on_challenge(self, payload: bytes) -> None:
        challenge = AttestationChallenge.FromString(payload)
        if not challenge.provider_id or challenge.provider_id != self.standing.provider_id:
            # Whoever relays somebody else's challenge gets no signature of ours for it.
            _log.warning("challenge_for_another")
            return
        if self._tasks is None or (self._answering is not None and not self._answering.done()):
            # One is outstanding at a time; whoever asks faster gets no more work out of us.
            return
        refused = self.standing.trust_reason == KEY_REJECTED
        work = self._renew_and_answer(challenge) if refused else self._answer(challenge)
        self._answering = self._tasks.create_task(work, name="link.answer")

    async def _answer(self, challenge: AttestationChallenge) -> None:
        posture = await self._witness.posture()
        evidence = await self._witness.evidence(challenge)
        answer = self._presence.answer(challenge, posture, evidence)
        self._lane.send_control(FrameKind.FRAME_KIND_ATTESTATION_RESPONSE, 0, answer)

    async def _renew_and_answer(self, challenge: AttestationChallenge) -> None:
        await self._witness.renew_key()
        await self._answer(challenge)

    def _on_code_challenge(self, payload: bytes) -> None:
        message = CodeResumeChallenge.FromString(payload)
        try:
            sealed = SealedChallenge.from_bytes(message.sealed_nonce)
        except CodeIdentityRejected as error:
            _log.warning("code_challenge_refused", reason=error.reason.value)
            return
        self.answer_code_challenge(sealed)

    def answer_code_challenge(self, sealed: SealedChallenge) -> None:
        """Open a challenge with K, whichever way it came, and answer on this stream."""
        try:
            answer = answer_code_challenge(
                sealed,
                provider_id=self.standing.provider_id,
                key_pair=self._desk.key_pair,
                signer=self._presence.signer,
            )
        except CodeIdentityRejected as error:
            # Whoever wants something else opened learns nothing, not even what it was.
            _log.warning("code_challenge_refused", reason=error.reason.value)
            return
        message = CodeAttestationResponse(nonce=answer.nonce, signature=answer.signature)
        self._lane.send_control(FrameKind.FRAME_KIND_CODE_ATTESTATION_RESPONSE, 0, message)

    def _on_trust_status(self, payload: bytes) -> None:
        status = TrustStatus.FromString(payload)
        self.standing.take_trust(status)
        self._desk.fence.admits(status.epoch)
        if status.verdict_id:
            self.admitted.set()
        if self._worker is not None:
            self._worker.accept_verdict(status.verdict_id)
        self._updated()

    def _on_runtime_status(self, payload: bytes) -> None:
        self.standing.take_runtime(RuntimeStatus.FromString(payload))
        self._updated()

    def _on_routing_status(self, payload: bytes) -> None:
        self.standing.take_routing(RoutingStatus.FromString(payload))
        self._updated()

    def _on_go_away(self, payload: bytes) -> None:
        self.hint = hint_of(GoAway.FromString(payload))
        self.leaving.set()

    def _on_load_model(self, payload: bytes) -> None:
        build_id = LoadModel.FromString(payload).model_id
        report = partial(self._tell_load, build_id)
        if self._draining:
            report(OperationStatus.OPERATION_STATUS_FAILED, "draining")
        else:
            self._desk.loads.command(build_id, report)

    def _tell_load(self, build_id: str, status: OperationStatus.ValueType, error: str) -> None:
        message = LoadModelStatus(model_id=build_id, status=status, error=error)
        self._lane.send_control(FrameKind.FRAME_KIND_LOAD_MODEL_STATUS, 0, message)
        self._touch()

    def _on_desired_models(self, payload: bytes) -> None:
        take_desired(payload, self._desk.stock)

    def _on_prefetch_model(self, payload: bytes) -> None:
        refusal = take_prefetch(payload, self._desk.stock)
        if refusal is not None:
            self._lane.send_control(FrameKind.FRAME_KIND_PREFETCH_MODEL_STATUS, 0, refusal)

    def tell_models(self) -> None:
        """Say what is served now, in place of what was said before."""
        if self.registered.is_set():
            message = self._presence.inventory()
            self._lane.send_control(FrameKind.FRAME_KIND_MODELS_UPDATE, 0, message)
            self._touch()

    def tell_wish(self, tracked: Tracked) -> None:
        """Say how far a download is."""
        if self.registered.is_set():
            message = wish_status(tracked)
            self._lane.send_control(FrameKind.FRAME_KIND_PREFETCH_MODEL_STATUS, 0, message)

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
                if now - opened_at >= self._register_timeout_s:
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
