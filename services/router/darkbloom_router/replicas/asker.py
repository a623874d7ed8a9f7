"""The asker's end of a peer lane: a mirror of the holder's providers, and reservations on them."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass

import structlog
from darkbloom.common.v1.frame_pb2 import Frame, FrameKind
from darkbloom.router.v1.machine_faults_pb2 import Lesson as Words
from darkbloom.router.v1.machine_faults_pb2 import Outcome, Remembered
from darkbloom.router.v1.peer_lane_pb2 import (
    Distrust,
    Forward,
    PeerHello,
    PeerWelcome,
    Presence,
    ProviderPresence,
    Reserve,
    Reserved,
    Superseded,
)
from darkbloom_mesh.backoff import Backoff
from darkbloom_mesh.clock import Clock
from darkbloom_mesh.lane import Lane, LaneCall

from darkbloom_router import convert
from darkbloom_router.attempts import ATTEMPT_BIT, Attempt, Attempts, Phase
from darkbloom_router.downlink import Downlink
from darkbloom_router.fleet import Fleet
from darkbloom_router.losses import Losses
from darkbloom_router.meter import Meter
from darkbloom_router.model import Lesson, Verdict
from darkbloom_router.payloads import read
from darkbloom_router.provider import Candidate, Provider
from darkbloom_router.replicas import fault_words, presence
from darkbloom_router.replicas.lane import ProviderLane, RemoteLane
from darkbloom_router.replicas.members import Member
from darkbloom_router.timers import Timers

_LINK = "peer"
_SETTLED_S = 5.0
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class AskerParts:
    """What every peer of this replica works with."""

    fleet: Fleet
    attempts: Attempts
    downlink: Downlink
    losses: Losses
    lanes: dict[Provider, ProviderLane]
    timers: Timers
    clock: Clock
    meter: Meter
    hello: PeerHello
    drain_lines: Callable[[Provider], None]
    granted: Callable[[Attempt, Verdict], None]
    """Called when a holder has debited a place."""
    orphaned: Callable[[Iterable[str]], None]
    """Called with the builds of machines whose holder is lost, before what they carried moves."""
    refused: Callable[[Attempt], None]
    """Called when it has not."""
    terminal: Callable[[Provider, Frame], None]
    """Takes a terminal that a provider of another replica sent again."""


class Peer:
    """Another replica, as long as it is a member.

    Invariant: its providers are in our fleet exactly while a welcomed lane to it is open, so a lost
    lane is a lost holder, and nothing is offered that could not be reserved.

    Args:
        member: Who and where.
        connect: Opens a call.
        parts: The rest of the router.
        backoff: Waits between tries.
        close: Ends what `connect` uses.
    """

    def __init__(
        self,
        member: Member,
        connect: Callable[[], LaneCall],
        parts: AskerParts,
        backoff: Backoff,
        *,
        close: Callable[[], Awaitable[object]],
    ) -> None:
        self.member = member
        self._connect = connect
        self._parts = parts
        self._backoff = backoff
        self._close = close
        self._lane: Lane | None = None
        self._welcomed = False
        self.described = False
        """It has told of every provider that it holds."""
        self.leaving = False
        """It is about to end; a process that has said so does not come back."""
        self._mirrors: dict[str, Provider] = {}
        self._loads: dict[tuple[str, str], tuple[int, int]] = {}

    @property
    def connected(self) -> bool:
        """Whether reservations can be made there now."""
        return self._welcomed

    @property
    def holding(self) -> int:
        """How many providers it holds that will stay there."""
        return sum(not mirror.drain_fence for mirror in self._mirrors.values())

    async def run(self) -> None:
        """Hold a lane open until cancelled."""
        try:
            await self._hold()
        finally:
            await self._close()

    async def _hold(self) -> None:
        clock = self._parts.clock
        while True:
            lane = Lane(self._connect(), on_frames=self._receive, name=_LINK, clock=clock)
            self._lane, opened_at = lane, clock.monotonic()
            lane.send_control(FrameKind.FRAME_KIND_PEER_HELLO, 0, self._parts.hello)
            try:
                end = await lane.run()
            finally:
                self._lose()
            if clock.monotonic() - opened_at >= _SETTLED_S:
                self._backoff.reset()
            _log.info("peer_lost", peer=self.member.replica, reason=end.reason)
            await clock.sleep(self._backoff.next_s())

    def superseded(self, identity_key: bytes, epoch: int) -> None:
        """Tell this replica that an identity of its streams is ours now."""
        if self._lane is not None:
            message = Superseded(identity_key=identity_key, epoch=epoch)
            self._lane.send_control(FrameKind.FRAME_KIND_SUPERSEDED, 0, message)

    def distrust(self, provider: Provider, reason: str) -> None:
        """Tell the holder of a provider that it broke the envelope."""
        if self._lane is not None and self._mirrors.get(provider.provider_id) is provider:
            message = Distrust(provider_id=provider.provider_id, reason=reason)
            self._lane.send_control(FrameKind.FRAME_KIND_DISTRUST, 0, message)

    def taught(self, candidate: Candidate, lesson: Lesson, shape: int) -> None:
        """Tell the holder of a machine what an attempt has taught about it."""
        name = candidate.provider.provider_id
        if self._lane is not None and self._mirrors.get(name) is candidate.provider:
            message = Outcome(
                provider_id=name,
                build=candidate.build.build,
                lesson=Words.ValueType(int(lesson)),
                shape=shape,
            )
            self._lane.send_control(FrameKind.FRAME_KIND_OUTCOME, 0, message)

    def close(self) -> None:
        """Half-close the lane; `run` is to be cancelled afterwards."""
        if self._lane is not None:
            self._lane.close("drain")

    def _lose(self) -> None:
        self._lane = None
        self._welcomed = self.described = False
        for provider in self._mirrors.values():
            self._parts.orphaned(provider.candidates)
        for provider_id in list(self._mirrors):
            # Its holder is lost, not the machine: no fault of anybody's.
            self._gone(provider_id, clean=True)

    def _receive(self, frames: Sequence[Frame]) -> None:
        now = self._parts.timers.now()
        for frame in frames:
            if not frame.stream & ATTEMPT_BIT:
                self._of_lane(frame)
                continue
            attempt = self._parts.attempts.by_stream.get(frame.stream)
            if attempt is None or self._mirrors.get(attempt.provider.provider_id) is not (
                attempt.provider
            ):
                self._parts.meter.ignored(_LINK, "unknown_stream")
            elif frame.kind == FrameKind.FRAME_KIND_RESERVED:
                self._reserved(attempt, frame, now)
            else:
                self._parts.downlink.take(attempt.provider, frame, now)

    def _of_lane(self, frame: Frame) -> None:
        parts, kind = self._parts, frame.kind
        if kind == FrameKind.FRAME_KIND_PRESENCE:
            message = read(Presence, frame.payload, parts.meter, _LINK)
            if message is not None and self._welcomed:
                self._apply(message)
        elif kind == FrameKind.FRAME_KIND_PEER_WELCOME:
            welcome = read(PeerWelcome, frame.payload, parts.meter, _LINK)
            if welcome is not None and welcome.session == self.member.session:
                self._welcomed = True
                _log.info("peer_found", peer=self.member.replica)
            elif self._lane is not None:
                # Another process has taken the address over; membership will say so as well.
                self._lane.close("another_session")
        elif kind == FrameKind.FRAME_KIND_FORWARD:
            forward = read(Forward, frame.payload, parts.meter, _LINK)
            provider = self._mirrors.get(forward.provider_id) if forward else None
            if forward is not None and provider is not None:
                parts.terminal(provider, forward.frame)
        else:
            parts.meter.ignored(_LINK, "unexpected")

    def _apply(self, message: Presence) -> None:
        self.leaving = self.leaving or message.leaving
        if message.full:
            for provider_id in list(self._mirrors):
                self._gone(provider_id, clean=True)
        for provider_id in message.gone_provider_ids:
            self._fenced(provider_id)
            self._gone(provider_id, clean=message.clean)
        for item in message.providers:
            self._describe(item)
        self.described = self.described or message.complete

    def _describe(self, message: ProviderPresence) -> None:
        """Take one provider's state; one that we know nothing of must come whole."""
        parts, now = self._parts, self._parts.timers.now()
        provider = self._mirrors.get(message.provider_id)
        stood = presence.standing(provider, provider.verdict) if provider else None
        if provider is None:
            if not message.HasField("registration") or self._lane is None:
                parts.meter.ignored(_LINK, "unknown_provider")
                return
            provider = presence.provider(message)
            provider.joined_at = now
            self._mirrors[provider.provider_id] = provider
            parts.lanes[provider] = RemoteLane(provider.provider_id, self._lane)
            parts.fleet.join(provider, presence.models(message))
            self._remind(provider, message, now)
        elif message.HasField("inventory"):
            parts.fleet.set_models(provider, presence.models(message))
        verdict = presence.apply_state(provider, message, now)
        if message.HasField("faults"):
            parts.fleet.hold_against(provider, fault_words.read(message.faults, now))
        self._take_loads(provider, message)
        if message.HasField("heartbeat"):
            parts.fleet.beat(provider, convert.beat(message.heartbeat), now)
        provider.beat_at = now - message.heartbeat_age_ms / 1000
        if provider.drain_fence:
            self._fenced(provider.provider_id)
        if stood != presence.standing(provider, verdict) or message.HasField("faults"):
            parts.fleet.set_verdict(provider, verdict)
        elif not message.HasField("heartbeat"):
            parts.fleet.moved(provider)
        parts.drain_lines(provider)

    def _fenced(self, provider_id: str) -> None:
        """Expect a machine back whose holder leaves before it has found another one."""
        mirror = self._mirrors.get(provider_id)
        if mirror is None or not self.leaving:
            return
        if self._parts.fleet.by_identity(mirror.identity_key) in (None, mirror):
            self._parts.orphaned(mirror.candidates)

    def _remind(self, provider: Provider, message: ProviderPresence, now: float) -> None:
        """Tell a holder that knows nothing against a machine what is remembered here.

        It may have been held here once, or by somebody who has left.
        """
        known = provider.faults
        if known is None or message.HasField("faults") or known.until <= now:
            return
        if self._lane is not None:
            said = Remembered(
                provider_id=provider.provider_id, faults=fault_words.write(known, now)
            )
            self._lane.send_control(FrameKind.FRAME_KIND_REMEMBERED, 0, said)

    def _take_loads(self, provider: Provider, message: ProviderPresence) -> None:
        """Replace what others have in flight there; our own attempts are counted by ourselves."""
        said = {item.build: (item.inflight, item.pending_tokens) for item in message.loads}
        for build, candidate in provider.candidates.items():
            key = (provider.provider_id, build)
            old, old_tokens = self._loads.pop(key, (0, 0))
            new, new_tokens = said.get(build, (0, 0))
            self._parts.fleet.taken_elsewhere(candidate, new - old, new_tokens - old_tokens)
            if new:
                self._loads[key] = (new, new_tokens)

    def _gone(self, provider_id: str, *, clean: bool) -> None:
        provider = self._mirrors.pop(provider_id, None)
        if provider is None:
            return
        for build in list(provider.candidates):
            self._loads.pop((provider_id, build), None)
        self._parts.fleet.leave(provider)
        self._parts.losses.provider(provider, clean=clean)

    def _reserved(self, attempt: Attempt, frame: Frame, now: float) -> None:
        message = read(Reserved, frame.payload, self._parts.meter, _LINK)
        if message is None or attempt.phase is not Phase.RESERVING:
            self._parts.meter.ignored(_LINK, "unexpected")
        elif message.HasField("refused") or not message.HasField("verdict"):
            self._parts.refused(attempt)
        else:
            self._parts.granted(attempt, presence.verdict(message.verdict, now))


def reserve(lane: RemoteLane, attempt: Attempt, message: Reserve) -> None:
    """Ask the holder for the place of an attempt."""
    lane.peer.send_control(FrameKind.FRAME_KIND_RESERVE, attempt.stream, message)
