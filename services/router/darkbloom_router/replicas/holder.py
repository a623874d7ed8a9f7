"""The holder's end of a peer lane: presence out, reservations and ciphertext through."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import structlog
from darkbloom.common.v1.frame_pb2 import Frame, FrameKind
from darkbloom.router.v1.machine_faults_pb2 import Outcome, Remembered
from darkbloom.router.v1.peer_lane_pb2 import (
    Distrust,
    Forward,
    PeerHello,
    PeerWelcome,
    Reserve,
    Reserved,
    Superseded,
)
from darkbloom.router.v1.provider_link_pb2 import (
    AttemptError,
    Cancel,
    CancelReason,
    FailureReason,
    GateReason,
)
from darkbloom_mesh.clock import Clock
from darkbloom_mesh.errors import InvalidArgumentError
from darkbloom_mesh.lane import Lane, LaneCall, LaneEnd

from darkbloom_router import convert
from darkbloom_router.attempts import ATTEMPT_BIT
from darkbloom_router.conditions import View
from darkbloom_router.errors import HandshakeError, LinkOverloadedError
from darkbloom_router.fleet import Fleet
from darkbloom_router.gates import failing
from darkbloom_router.health import Health
from darkbloom_router.meter import Meter
from darkbloom_router.model import Gate, Lesson
from darkbloom_router.payloads import read
from darkbloom_router.provider import Provider
from darkbloom_router.replicas import fault_words, presence
from darkbloom_router.replicas.carried import Carriage, Carried
from darkbloom_router.replicas.fault_words import SHAPES
from darkbloom_router.replicas.lane import LANE_LEVEL, ProviderLane
from darkbloom_router.replicas.publisher import Publisher
from darkbloom_router.timers import Timers
from darkbloom_router.trust import Trust

MAX_PEERS = 256
UNSENT_S = 15.0
"""A place that nobody sent a request for by then is given back: an asker that forgot it."""
LAST_WORD_S = 60.0
"""A stopped attempt waits so long for the provider's terminal."""
_HELLO_S = 10.0
_LINK = "peer"
_BODY_PART = FrameKind.FRAME_KIND_BODY_PART
_REQUEST = FrameKind.FRAME_KIND_REQUEST
_CANCEL = FrameKind.FRAME_KIND_CANCEL
_CREDIT = FrameKind.FRAME_KIND_CREDIT
_TERMINAL = FrameKind.FRAME_KIND_TERMINAL
_ERROR = FrameKind.FRAME_KIND_ERROR
_LESSONS = frozenset(map(int, Lesson))
_LAST_WORDS = frozenset({_TERMINAL, _ERROR})
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class HolderParts:
    """What every peer lane of this replica works with."""

    fleet: Fleet
    carriage: Carriage
    publisher: Publisher
    lanes: dict[Provider, ProviderLane]
    trust: Trust
    health: Health
    timers: Timers
    clock: Clock
    meter: Meter
    welcome: PeerWelcome
    superseded: Callable[[bytes, int], None]
    """Called when another replica has been granted an identity of ours."""


class PeerLanes:
    """All lanes on which other replicas ask this one."""

    def __init__(self, parts: HolderParts) -> None:
        self._parts = parts
        self._open: dict[Lane, str] = {}

    def __len__(self) -> int:
        return len(self._open)

    async def serve(self, call: LaneCall) -> None:
        """Live through one lane.

        Raises:
            HandshakeError: The first frame was missing, late or another one than PEER_HELLO.
            LinkOverloadedError: No more lanes fit.
        """
        if len(self._open) >= MAX_PEERS:
            raise LinkOverloadedError("too many peer lanes are open")
        session = PeerSession(self._parts, call)
        self._open[session.lane] = ""
        self._parts.meter.lane_opened(_LINK)
        timer = self._parts.timers.after(_HELLO_S, session.timed_out)
        end = LaneEnd("failed", clean=False)
        try:
            end = await session.lane.run()
        finally:
            timer.cancel()
            self._open.pop(session.lane, None)
            session.leave()
            stats = session.lane.stats
            self._parts.meter.lane_closed(_LINK, end.reason, stats.frames_in, stats.frames_out)
        if session.refused:
            raise HandshakeError("the first frame must be a peer hello, in time and readable")

    def resent(self, provider: Provider, frame: Frame) -> None:
        """Show a terminal that nobody here knows to everybody who may."""
        message = Forward(provider_id=provider.provider_id, frame=frame)
        for lane in self._open:
            lane.send_control(FrameKind.FRAME_KIND_FORWARD, 0, message)

    def close(self, reason: str) -> None:
        """End every lane after what waits has been written."""
        for lane in list(self._open):
            lane.close(reason)


class PeerSession:
    """One asker until its lane ends."""

    def __init__(self, parts: HolderParts, call: LaneCall) -> None:
        self.lane = Lane(call, on_frames=self._receive, name=_LINK, clock=parts.clock)
        self.refused = False
        self._parts = parts
        self._known = False

    def timed_out(self) -> None:
        """End a lane that never said hello."""
        if not self._known:
            self._refuse()

    def leave(self) -> None:
        """Free everything that this asker had reserved; its requests are lost or moved."""
        parts = self._parts
        parts.publisher.unsubscribe(self.lane)
        for carried in parts.carriage.of_asker(self.lane):
            self._stop(carried)

    def _receive(self, frames: Sequence[Frame]) -> None:
        for frame in frames:
            if not self._known:
                self._hello(frame)
            elif frame.stream & ATTEMPT_BIT:
                self._of_attempt(frame)
            else:
                self._of_lane(frame)

    def _hello(self, frame: Frame) -> None:
        parts = self._parts
        message = None
        if frame.kind == FrameKind.FRAME_KIND_PEER_HELLO and not frame.stream:
            message = read(PeerHello, frame.payload, parts.meter, _LINK)
        if message is None:
            self._refuse()
            return
        self._known = True
        self.lane.send_control(FrameKind.FRAME_KIND_PEER_WELCOME, 0, parts.welcome)
        parts.publisher.subscribe(self.lane)
        _log.info("peer_lane_open", peer=message.replica)

    def _of_lane(self, frame: Frame) -> None:
        parts, kind = self._parts, frame.kind
        if kind == FrameKind.FRAME_KIND_SUPERSEDED:
            moved = read(Superseded, frame.payload, parts.meter, _LINK)
            if moved is not None:
                parts.superseded(moved.identity_key, moved.epoch)
        elif kind == FrameKind.FRAME_KIND_DISTRUST:
            caught = read(Distrust, frame.payload, parts.meter, _LINK)
            provider = parts.fleet.providers.get(caught.provider_id) if caught else None
            if caught is not None and provider is not None and not provider.remote:
                parts.trust.distrust(provider, caught.reason[: convert.MAX_TEXT])
        elif kind == FrameKind.FRAME_KIND_OUTCOME:
            self._learn(frame)
        elif kind == FrameKind.FRAME_KIND_REMEMBERED:
            self._remember(frame)
        elif kind == FrameKind.FRAME_KIND_FORWARD:
            self._forward(frame)
        else:
            parts.meter.ignored(_LINK, "unexpected")

    def _learn(self, frame: Frame) -> None:
        """Write what an attempt of the asker has taught: this replica alone keeps the memory."""
        parts = self._parts
        message = read(Outcome, frame.payload, parts.meter, _LINK)
        provider = parts.fleet.providers.get(message.provider_id) if message else None
        if message is None or provider is None or provider.remote:
            return
        candidate = provider.candidates.get(message.build)
        if candidate is None or message.lesson not in _LESSONS or message.shape >= SHAPES:
            parts.meter.ignored(_LINK, "malformed")
            return
        parts.health.learn(candidate, Lesson(message.lesson), message.shape, parts.timers.now())

    def _remember(self, frame: Frame) -> None:
        """Take over what others know against a machine that is new here."""
        parts = self._parts
        message = read(Remembered, frame.payload, parts.meter, _LINK)
        provider = parts.fleet.providers.get(message.provider_id) if message else None
        if message is None or provider is None or provider.remote or provider.faults is not None:
            return
        parts.fleet.hold_against(provider, fault_words.read(message.faults, parts.timers.now()))
        parts.fleet.refresh(provider)

    def _forward(self, frame: Frame) -> None:
        """Hand an acknowledgement on to the provider that it is for."""
        parts = self._parts
        message = read(Forward, frame.payload, parts.meter, _LINK)
        if message is None or message.frame.kind not in LANE_LEVEL:
            parts.meter.ignored(_LINK, "unexpected")
            return
        provider = parts.fleet.providers.get(message.provider_id)
        lane = parts.lanes.get(provider) if provider is not None else None
        if lane is not None and provider is not None and not provider.remote:
            lane.send_control(message.frame.kind, 0, message.frame.payload)

    def _of_attempt(self, frame: Frame) -> None:
        kind = frame.kind
        if kind == FrameKind.FRAME_KIND_RESERVE:
            self._reserve(frame)
            return
        carried = self._parts.carriage.of(self.lane, frame.stream)
        if carried is None:
            self._parts.meter.ignored(_LINK, "unknown_stream")
        elif kind == _BODY_PART and carried.cut:
            self._fail(carried, FailureReason.FAILURE_REASON_DRAINING)
        elif kind == _BODY_PART:
            frame.stream = carried.stream
            if not carried.lane.send_body_part(frame):
                self._fail(carried, FailureReason.FAILURE_REASON_CAPACITY_BUSY)
        elif kind == _REQUEST:
            self._send(carried, frame)
        elif kind == FrameKind.FRAME_KIND_UNRESERVE:
            self._unreserve(carried)
        elif kind == _CANCEL:
            self._parts.carriage.release(carried)
            carried.lane.drop_stream(carried.stream)
            carried.lane.send_control(_CANCEL, carried.stream, frame.payload)
            self._wait_for_last_word(carried)
        elif kind == _CREDIT:
            carried.lane.send_control(_CREDIT, carried.stream, frame.payload)
        else:
            self._parts.meter.ignored(_LINK, "unexpected")

    def _reserve(self, frame: Frame) -> None:
        """Run every gate again and debit, in one step; or say which gate is shut."""
        parts, now = self._parts, self._parts.timers.now()
        message = read(Reserve, frame.payload, parts.meter, _LINK)
        if message is None or parts.carriage.of(self.lane, frame.stream) is not None:
            parts.meter.ignored(_LINK, "malformed")
            return
        answer = Reserved()
        provider = parts.fleet.providers.get(message.provider_id)
        if provider is None or provider.remote or provider.epoch != message.epoch:
            answer.stale_owner = True
            answer.refused = GateReason.GATE_REASON_OFFLINE
            self._answer(frame.stream, answer)
            return
        try:
            demand = convert.demand(message.open)
        except InvalidArgumentError:
            parts.meter.ignored(_LINK, "malformed")
            return
        candidate = provider.candidates.get(message.build)
        view = View(demand, parts.fleet.rules, now, frozenset())
        check = next(failing(candidate, view), None) if candidate is not None else None
        lane = parts.lanes.get(provider)
        if candidate is None or check is not None or lane is None or provider.verdict is None:
            gate = check.gate if check is not None else Gate.NOT_SERVING_MODEL
            answer.refused = GateReason.ValueType(int(gate))
            self._answer(frame.stream, answer)
            return
        carried = parts.carriage.take(self.lane, frame.stream, candidate, lane, demand)
        carried.timer = parts.timers.after(UNSENT_S, partial(self._unsent, carried))
        answer.verdict.CopyFrom(presence.verdict_message(provider.verdict, now))
        self._answer(frame.stream, answer)

    def _answer(self, stream: int, answer: Reserved) -> None:
        self.lane.send_control(FrameKind.FRAME_KIND_RESERVED, stream, answer)

    def _send(self, carried: Carried, frame: Frame) -> None:
        """Send a request to its provider, if it is still trusted at this moment."""
        provider, now = carried.provider, self._parts.timers.now()
        verdict = provider.verdict
        if carried.sent or carried.reservation.ended:
            self._parts.meter.ignored(_LINK, "unexpected")
            return
        if (
            not provider.connected
            or provider.status != "online"
            or verdict is None
            or verdict.expires_at <= now
            or carried.cut
        ):
            self._fail(carried, FailureReason.FAILURE_REASON_DRAINING)
            return
        carried.sent = True
        if carried.timer is not None:
            carried.timer.cancel()
            carried.timer = None
        carried.lane.send_control(_REQUEST, carried.stream, frame.payload)

    def _unreserve(self, carried: Carried) -> None:
        if carried.sent:
            self._parts.carriage.release(carried)
            self._wait_for_last_word(carried)
        else:
            self._parts.carriage.drop(carried)

    def _unsent(self, carried: Carried) -> None:
        if not carried.sent:
            self._fail(carried, FailureReason.FAILURE_REASON_DEADLINE_UNREACHABLE)

    def _wait_for_last_word(self, carried: Carried) -> None:
        if carried.timer is None:
            drop = partial(self._parts.carriage.drop, carried)
            carried.timer = self._parts.timers.after(LAST_WORD_S, drop)

    def _fail(self, carried: Carried, reason: FailureReason.ValueType) -> None:
        """Tell the asker that this attempt goes no further; nobody's fault."""
        self._stop(carried)
        message = AttemptError(reason=reason)
        self.lane.send_ordered(_ERROR, carried.asker_stream, message)

    def _stop(self, carried: Carried) -> None:
        """Give the place back, then tell the provider to stop, in this order."""
        self._parts.carriage.drop(carried)
        if carried.sent:
            carried.lane.drop_stream(carried.stream)
            message = Cancel(reason=CancelReason.CANCEL_REASON_CLIENT_GONE)
            carried.lane.send_control(_CANCEL, carried.stream, message)

    def _refuse(self) -> None:
        self.refused = True
        self.lane.close("refused")


def relay(carriage: Carriage, provider: Provider, frame: Frame) -> bool:
    """Pass a frame of a provider on to the asker whose attempt it is; False where it is nobody's.

    The path of every token of a remote attempt: two look-ups, a number, an append.
    """
    carried = carriage.by_stream.get(frame.stream)
    if carried is None or carried.provider is not provider:
        return False
    frame.stream = carried.asker_stream
    kind = frame.kind
    if kind in _LAST_WORDS:
        carriage.drop(carried)
        carried.asker.send_frame(frame)
    elif not carried.asker.send_frame(frame):
        # Credits bound what waits; only an asker that grants without reading gets here.
        carriage.drop(carried)
        message = Cancel(reason=CancelReason.CANCEL_REASON_TIMEOUT)
        carried.lane.send_control(_CANCEL, carried.stream, message)
    return True
