"""One gateway worker's lane: hello, welcome, frames, and what its loss means."""

from collections.abc import Sequence

import structlog
from darkbloom.common.v1.frame_pb2 import Frame, FrameKind
from darkbloom.router.v1.gateway_lane_pb2 import LaneHello, LaneWelcome
from darkbloom.router.v1.provider_link_pb2 import GoAway
from darkbloom_mesh.clock import Clock
from darkbloom_mesh.errors import MeshError
from darkbloom_mesh.lane import Lane, LaneCall, LaneEnd
from google.protobuf.message import DecodeError

from darkbloom_router import convert
from darkbloom_router.attempts import MAX_PREFIX, GatewayLink
from darkbloom_router.errors import HandshakeError, LinkOverloadedError
from darkbloom_router.losses import Losses
from darkbloom_router.meter import Meter
from darkbloom_router.timers import Timers
from darkbloom_router.uplink import Uplink

_log = structlog.get_logger()
_MAX_LANES = 1024
_HELLO_S = 10.0
_MAX_NAME = 128


class GatewayLanes:
    """All gateway lanes of this replica."""

    def __init__(
        self,
        uplink: Uplink,
        losses: Losses,
        timers: Timers,
        clock: Clock,
        meter: Meter,
        *,
        replica: str,
        initial_credit: int,
    ) -> None:
        self._uplink = uplink
        self._losses = losses
        self._timers = timers
        self._clock = clock
        self._meter = meter
        self._replica = replica
        self._initial_credit = initial_credit
        self._links: dict[int, GatewayLink] = {}
        self._open: set[Lane] = set()
        self._parked: list[_Session] = []
        self._prefix = 0
        self.admits = False
        """Whether requests are taken; a new replica has to meet the others first."""

    def __len__(self) -> int:
        return len(self._links)

    async def serve(self, call: LaneCall) -> None:
        """Live through one lane.

        Raises:
            HandshakeError: The first frame was missing, late or another one than LANE_HELLO.
            LinkOverloadedError: No more lanes fit.
        """
        if len(self._open) >= _MAX_LANES:
            raise LinkOverloadedError("too many gateway lanes are open")
        session = _Session(self, call, self._clock)
        self._open.add(session.lane)
        self._meter.lane_opened("gateway")
        timer = self._timers.after(_HELLO_S, session.timed_out)
        end = LaneEnd("failed", clean=False)
        try:
            end = await session.lane.run()
        finally:
            timer.cancel()
            self._open.discard(session.lane)
            if session in self._parked:
                self._parked.remove(session)
            stats = session.lane.stats
            self._meter.lane_closed("gateway", end.reason, stats.frames_in, stats.frames_out)
            if session.link is not None:
                self._lost(session.link, end)
        if session.refusal is not None:
            raise session.refusal

    def admit(self) -> None:
        """Welcome whoever has waited for that, and from now on everybody at once."""
        self.admits = True
        parked, self._parked = self._parked, []
        for session in parked:
            session.greet()

    def park(self, session: "_Session") -> None:
        """Let a lane wait for its welcome."""
        self._parked.append(session)

    def welcome(self, lane: Lane, hello: LaneHello) -> GatewayLink:
        """Number a lane and answer its hello."""
        while True:
            self._prefix = self._prefix % (MAX_PREFIX - 1) + 1
            if self._prefix not in self._links:
                break
        link = GatewayLink(lane, hello.gateway[:_MAX_NAME], hello.worker, self._prefix)
        self._links[link.prefix] = link
        lane.send_control(
            FrameKind.FRAME_KIND_LANE_WELCOME,
            0,
            LaneWelcome(
                replica=self._replica, prefix=link.prefix, initial_credit=self._initial_credit
            ),
        )
        _log.info("gateway_lane_open", gateway=link.name, worker=link.worker, prefix=link.prefix)
        return link

    def take(self, link: GatewayLink, frames: Sequence[Frame]) -> None:
        """Take frames of requests and attempts."""
        take = self._uplink.take
        for frame in frames:
            if frame.stream:
                take(link, frame)
            elif frame.kind == FrameKind.FRAME_KIND_SETTLE_OPENED:
                self._uplink.rescue(frame)
            else:
                self._meter.ignored("gateway", "unexpected")

    def go_away(self, reason: str, grace_s: float) -> None:
        """Ask every gateway to send new requests elsewhere."""
        message = GoAway(reason=reason, grace=convert.duration(grace_s))
        for link in self._links.values():
            link.lane.send_control(FrameKind.FRAME_KIND_GO_AWAY, 0, message)

    def close(self, reason: str) -> None:
        """End every lane after what waits has been written."""
        for lane in list(self._open):
            lane.close(reason)

    def _lost(self, link: GatewayLink, end: LaneEnd) -> None:
        self._links.pop(link.prefix, None)
        self._losses.gateway(link)
        _log.info("gateway_lane_closed", gateway=link.name, worker=link.worker, reason=end.reason)


class _Session:
    """One call until it ends."""

    def __init__(self, lanes: GatewayLanes, call: LaneCall, clock: Clock) -> None:
        self.lane = Lane(call, on_frames=self._receive, name="gateway", clock=clock)
        self.link: GatewayLink | None = None
        self.refusal: MeshError | None = None
        self._hello: LaneHello | None = None
        self._lanes = lanes

    def timed_out(self) -> None:
        if self._hello is None:
            self._refuse()

    def greet(self) -> None:
        """Welcome the gateway, which has said hello before."""
        if self._hello is not None:
            self.link = self._lanes.welcome(self.lane, self._hello)

    def _receive(self, frames: Sequence[Frame]) -> None:
        if self._hello is None:
            frames = self._handshake(frames)
        if self.link is not None:
            self._lanes.take(self.link, frames)

    def _handshake(self, frames: Sequence[Frame]) -> Sequence[Frame]:
        first, rest = frames[0], frames[1:]
        if first.kind != FrameKind.FRAME_KIND_LANE_HELLO or first.stream:
            self._refuse()
            return ()
        try:
            self._hello = LaneHello.FromString(first.payload)
        except DecodeError:
            self._refuse()
            return ()
        if self._lanes.admits:
            self.greet()
        else:
            # Nothing follows a hello before its welcome.
            self._lanes.park(self)
        return rest

    def _refuse(self) -> None:
        self.refusal = HandshakeError("the first frame must be a lane hello, in time and readable")
        self.lane.close("refused")
