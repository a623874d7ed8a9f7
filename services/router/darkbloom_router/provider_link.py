"""One provider's stream, from its first frame to its last.

`ProviderLink.live` is the life of a stream: REGISTER within ten seconds, evidence, the answer,
challenges, frames, and an orderly end whatever happens. Frames are taken synchronously as batches
arrive; what needs a neighbour happens in the link's own task.
"""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial

import structlog
from darkbloom.common.v1.frame_pb2 import Frame, FrameKind
from darkbloom.router.v1.provider_link_pb2 import (
    AttestationResponse,
    GoAway,
    Heartbeat,
    ModelsUpdate,
    Register,
    Registered,
)
from darkbloom_mesh.errors import InvalidArgumentError, MeshError
from darkbloom_mesh.lane import Lane, LaneCall, LaneEnd
from google.protobuf.message import DecodeError

from darkbloom_router import convert, registration
from darkbloom_router.attempts import ATTEMPT_BIT
from darkbloom_router.challenges import Challenges
from darkbloom_router.code_answers import CodeAnswers
from darkbloom_router.downloads import SETTLE_S
from darkbloom_router.errors import HandshakeError, LinkOverloadedError, TryLaterError
from darkbloom_router.going import Going
from darkbloom_router.inventory import Rejection
from darkbloom_router.link_parts import LinkParts
from darkbloom_router.provider import Provider
from darkbloom_router.queueing import Trigger
from darkbloom_router.standing import Standing
from darkbloom_router.versions import below_floor
from darkbloom_router.wishes import Wishes

_log = structlog.get_logger()


class ProviderLink:
    """One stream; owned by `ProviderLinks.serve`."""

    def __init__(self, parts: LinkParts, call: LaneCall) -> None:
        self._parts = parts
        self._lane = Lane(call, on_frames=self._receive, name="provider", clock=parts.clock)
        self._first: asyncio.Future[Register | None] = asyncio.get_running_loop().create_future()
        self.provider: Provider | None = None
        self._challenges: Challenges | None = None
        self._going = Going(parts, self._lane)
        self._standing = Standing(parts.fleet, self._lane)
        self._wishes = Wishes(parts, self._lane)
        self._code_answers = CodeAnswers(parts.attestation, parts.meter)
        self._refusal: MeshError | None = None
        self._sent_away = False
        self._claimed = False
        self._handlers: dict[int, Callable[[Provider, bytes], None]] = {
            FrameKind.FRAME_KIND_HEARTBEAT: self._heartbeat,
            FrameKind.FRAME_KIND_ATTESTATION_RESPONSE: self._answer,
            FrameKind.FRAME_KIND_CODE_ATTESTATION_RESPONSE: self._code_answers.receive,
            FrameKind.FRAME_KIND_MODELS_UPDATE: self._models,
            FrameKind.FRAME_KIND_PROVIDER_DRAIN: self._going.take,
            FrameKind.FRAME_KIND_LOAD_MODEL_STATUS: self._wishes.loading,
            FrameKind.FRAME_KIND_PREFETCH_MODEL_STATUS: self._wishes.fetching,
        }

    async def live(self) -> str:
        """Run the lane and the supervisor until either ends; returns why, in a closed word."""
        end = LaneEnd("peer_lost", clean=False)
        try:
            async with asyncio.TaskGroup() as tasks:
                own = (
                    tasks.create_task(self._supervise(), name="provider.supervise"),
                    tasks.create_task(self._follow_account(), name="provider.account"),
                    tasks.create_task(self._code_answers.run(), name="provider.code"),
                )
                end = await self._lane.run()
                for task in own:
                    task.cancel()
        finally:
            self._leave(end)
        if self._refusal is not None:
            raise self._refusal
        if end.reason == "overflow":
            raise LinkOverloadedError("a bound of the lane was broken")
        return end.reason

    @property
    def current(self) -> bool:
        """Whether this is the stream of its provider that gets work."""
        provider = self.provider
        return self._claimed and provider is not None and not provider.drain_fence

    @property
    def stays(self) -> bool:
        """Whether it has not been asked to leave either."""
        return self.current and not self._sent_away

    @property
    def idle(self) -> bool:
        """Whether nothing runs on this provider."""
        provider = self.provider
        return provider is not None and not any(
            candidate.inflight for candidate in provider.candidates.values()
        )

    @property
    def desired(self) -> frozenset[str]:
        """Builds that the catalog wants this provider to hold, now or once it has leave."""
        return self._wishes.desired

    def send_desired(self) -> None:
        """Send the aliases that concern this provider."""
        if self.provider is not None:
            self._wishes.send(self.provider)

    def go_away(self, reason: str, grace_s: float, spread_s: float) -> None:
        """Ask the provider to leave in time; `spread_s` keeps a fleet from dialling at once."""
        self._sent_away = True
        message = GoAway(
            reason=reason,
            grace=convert.duration(grace_s),
            reconnect_after=convert.duration(self._parts.uniform() * spread_s),
        )
        self._lane.send_control(FrameKind.FRAME_KIND_GO_AWAY, 0, message)

    def fence(self) -> None:
        """Give the provider no more work on this stream; what runs may end."""
        if self.provider is not None:
            self.provider.drain_fence = True
            self._parts.fleet.refresh(self.provider)

    def close(self, reason: str) -> None:
        """Write what waits and end the stream."""
        self._lane.close(reason)

    # The link's own task

    async def _supervise(self) -> None:
        """Register, then challenge for ever; a refusal ends the lane."""
        try:
            await self._register()
            if self._challenges is not None:
                await self._challenges.run()
        except MeshError as error:
            self.refuse(error)

    async def _follow_account(self) -> None:
        """Ask again and again whose machine this is: it may be linked while it is connected."""
        parts = self._parts
        while True:
            provider = self.provider
            linked = provider is not None and bool(provider.account_id)
            await parts.clock.sleep(parts.limits.relink_s if linked else parts.limits.link_poll_s)
            provider = self.provider
            if provider is None or not provider.identity_key:
                continue
            try:
                account_id = await parts.links.account_of(provider.identity_key)
            except MeshError:
                continue
            if account_id != provider.account_id or provider.restoring:
                provider.account_id, provider.restoring = account_id, False
                parts.fleet.refresh(provider)
                parts.dispatcher.drain_lines(provider, Trigger.KICK)

    async def _register(self) -> None:
        parts, limits = self._parts, self._parts.limits
        timer = parts.timers.after(limits.register_s, partial(_give_up, self._first))
        message = await self._first
        timer.cancel()
        if message is None:
            raise HandshakeError("the first frame must be a registration, in time and readable")
        registration.check(message)

        provider_id = parts.new_id("prov")
        try:
            known = await registration.evaluate(
                message, provider_id, parts.attestation, parts.links
            )
        except InvalidArgumentError:
            raise HandshakeError("a field of the registration is out of range") from None
        except MeshError as error:
            _log.warning("registration_unjudged", reason=error.reason_name)
            raise TryLaterError("evidence cannot be judged at the moment") from None
        self._join(known, message)

    def _join(self, known: registration.Registered, message: Register) -> None:
        """Take the provider into the fleet and answer; nothing is routed before a challenge."""
        parts, provider = self._parts, known.provider
        self.provider = provider
        provider.joined_at = provider.beat_at = parts.timers.now()
        parts.lanes[provider] = self._lane
        rejections = parts.fleet.join(provider, known.models)
        parts.replicas.publisher.joined(provider, message)
        hashes = {model.build: model.weight_hash for model in known.models}
        self._send_registered(known, rejections)
        parts.trust.runtime(provider, known.found.runtime_verified, known.found.runtime_findings)
        parts.trust.tell(provider, provider.untrusted or "challenge_awaited")
        self.send_desired()
        parts.timers.after(SETTLE_S, partial(self._wishes.settle, provider))
        parts.meter.registered(known.found.trust_level or "none")
        if below_floor(provider.version, parts.fleet.rules.min_version):
            parts.meter.too_old()
        _log.info(
            "provider_registered",
            provider_id=provider.provider_id,
            trust_level=known.found.trust_level,
            accepted=known.found.accepted,
            linked=bool(provider.account_id),
            models=len(provider.candidates),
            rejected_models=len(rejections),
        )
        self._challenges = Challenges(
            provider,
            self._lane,
            parts.attestation,
            parts.trust,
            parts.timers,
            parts.clock,
            parts.meter,
            parts.limits.challenges,
            hashes=lambda: (
                {
                    name: candidate.facts.weight_hash
                    for name, candidate in provider.candidates.items()
                }
                or hashes
            ),
            on_pass=self._claim,
            passed=self._announce,
            uniform=parts.uniform,
        )

    def _send_registered(
        self, known: registration.Registered, rejections: Sequence[Rejection]
    ) -> None:
        parts, provider = self._parts, known.provider
        self._lane.send_control(
            FrameKind.FRAME_KIND_REGISTERED,
            0,
            Registered(
                provider_id=provider.provider_id,
                trust_level=known.found.trust_level,
                accepted_models=sorted(provider.candidates),
                rejected_models=convert.rejected_models(list(rejections)),
                account_id=provider.account_id,
                min_version=parts.fleet.rules.min_version,
                heartbeat_interval=convert.duration(parts.limits.heartbeat_s),
                max_frame_bytes=parts.limits.max_frame_bytes,
                capabilities=known.features,
                protocol=registration.PROTOCOL,
                initial_credit=parts.initial_credit,
            ),
        )

    async def _claim(self) -> None:
        """Take the identity from an older stream, here or elsewhere: this one has proven it.

        Once in a stream's life: one that was superseded does not take its identity back.
        """
        parts, provider = self._parts, self.provider
        if provider is None or self._claimed:
            return
        await parts.replicas.claim(provider)
        self._claimed = True
        older = parts.fleet.claim(provider)
        if older is not None and not older.remote:
            supersede(parts, older)

    def _announce(self) -> None:
        if self.provider is not None:
            self._parts.replicas.announce(self.provider)
            self._wishes.trust_changed(self.provider)

    def _leave(self, end: LaneEnd) -> None:
        """Take the provider out of the fleet; what it carried moves or breaks."""
        provider, parts = self.provider, self._parts
        stats = self._lane.stats
        parts.meter.lane_closed("provider", end.reason, stats.frames_in, stats.frames_out)
        if provider is None:
            return
        builds = list(provider.candidates)
        parts.fleet.leave(provider)
        parts.downloads.gone(provider.stable_id)
        parts.warm.left(provider)
        clean = end.clean and (self._going.announced or end.reason != "peer_closed")
        if not clean and provider.short_of_memory:
            parts.meter.suspected(provider.busiest_build, "memory_pressure")
        others = parts.replicas.left(provider, clean=clean)
        parts.losses.provider(provider, clean=clean, others=others)
        parts.dispatcher.left(builds)
        _log.info("provider_left", provider_id=provider.provider_id, reason=end.reason)

    # Frames

    def _receive(self, frames: Sequence[Frame]) -> None:
        provider = self.provider
        now = self._parts.timers.now()
        take = self._parts.downlink.take
        for frame in frames:
            if provider is not None and frame.stream & ATTEMPT_BIT:
                take(provider, frame, now)
            else:
                self._of_lane(frame)

    def _of_lane(self, frame: Frame) -> None:
        """Take a frame of the lane itself."""
        if not self._first.done():
            self._handshake(frame)
            return
        if frame.kind == FrameKind.FRAME_KIND_REGISTER:
            self.refuse(HandshakeError("a stream registers once"))
            return
        provider = self.provider
        if provider is None:
            # Frames on the heels of REGISTER, before its answer: early, not wrong.
            self._parts.meter.ignored("provider", "early")
            return
        if frame.kind == FrameKind.FRAME_KIND_TERMINAL:
            self._parts.downlink.stray(provider, frame)
            return
        handle = self._handlers.get(frame.kind)
        if handle is None:
            self._parts.meter.ignored("provider", "unexpected")
            return
        try:
            handle(provider, frame.payload)
        except DecodeError:
            self._parts.meter.ignored("provider", "malformed")

    def _handshake(self, frame: Frame) -> None:
        message = None
        if frame.kind == FrameKind.FRAME_KIND_REGISTER and frame.stream == 0:
            try:
                message = Register.FromString(frame.payload)
            except DecodeError:
                message = None
        self._first.set_result(message)

    def _heartbeat(self, provider: Provider, payload: bytes) -> None:
        message = Heartbeat.FromString(payload)
        beat = convert.beat(message)
        self._parts.replicas.publisher.beat(provider, message)
        self._parts.fleet.beat(provider, beat, self._parts.timers.now())
        self._parts.dispatcher.drain_lines(provider, Trigger.HEARTBEAT)
        self._standing.tell(provider, self._parts.timers.now())

    def _answer(self, _provider: Provider, payload: bytes) -> None:
        response = AttestationResponse.FromString(payload)
        if self._challenges is None or not self._challenges.answered(response):
            self._parts.meter.ignored("provider", "challenge_unknown")

    def _models(self, provider: Provider, payload: bytes) -> None:
        message = ModelsUpdate.FromString(payload)
        if len(message.models) > convert.MAX_MODELS:
            self._parts.meter.ignored("provider", "malformed")
            return
        facts = [convert.model_facts(model) for model in message.models]
        self._parts.fleet.set_models(provider, facts)
        self._parts.replicas.publisher.models(provider, message)
        self.send_desired()
        self._parts.dispatcher.drain_lines(provider)

    def refuse(self, error: MeshError) -> None:
        """End the stream with a status."""
        self._refusal = self._refusal or error
        self._lane.close("refused")


def supersede(parts: LinkParts, older: Provider) -> None:
    """Give a stream no more work: another one has its identity. What runs may end."""
    older.drain_fence = True
    parts.fleet.refresh(older)
    lane = parts.lanes.get(older)
    if lane is None:
        return
    grace_s = parts.limits.superseded_s
    message = GoAway(reason="superseded", grace=convert.duration(grace_s))
    lane.send_control(FrameKind.FRAME_KIND_GO_AWAY, 0, message)
    parts.timers.after(grace_s, partial(lane.close, "superseded"))


def _give_up(first: asyncio.Future[Register | None]) -> None:
    if not first.done():
        first.set_result(None)
