"""Gateways: they open requests, seal what is offered, and close what has been answered."""

from functools import partial

from darkbloom.common.v1.frame_pb2 import Frame, FrameKind
from darkbloom.router.v1.gateway_lane_pb2 import Close, Offer, Open, OwnerPolicy, Refused, Sealed
from darkbloom.router.v1.provider_link_pb2 import Opened
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from darkbloom_router.attempts import PREFIX_SHIFT, GatewayLink
from darkbloom_router.refusals import Reason
from darkbloom_router.simulate.core import Core
from darkbloom_router.simulate.lanes import SimulatedLane
from darkbloom_router.simulate.ledger import Asked, Fate, Ledger

SEAL_S = 0.0015
"""From an offer to the sealed request, there and back."""
_BODY_BYTES = 4096
_LIVE_PER_LANE = 4000
_KEY = b"k" * 32
_OFFER = FrameKind.FRAME_KIND_OFFER
_REFUSED = FrameKind.FRAME_KIND_REFUSED
_COMMITTED = FrameKind.FRAME_KIND_COMMITTED
_FAILED = FrameKind.FRAME_KIND_ATTEMPT_FAILED
_FINAL = FrameKind.FRAME_KIND_CHUNK_FINAL


class Edge:
    """All gateways.

    Args:
        core: The router.
        ledger: Where ends are counted.
        lanes: How many gateway workers there are.
    """

    def __init__(self, core: Core, ledger: Ledger, lanes: int) -> None:
        self.live: dict[str, Asked] = {}
        self._core = core
        self._ledger = ledger
        self._streams: dict[int, Asked] = {}
        self._attempts: dict[int, tuple[Asked, GatewayLink]] = {}
        self._epoch = core.clock.now().timestamp()
        self._count = 0
        self._links: list[GatewayLink] = []
        for prefix in range(1, lanes + 1):
            link = GatewayLink(lane=SimulatedLane(_nothing, self._data), prefix=prefix)
            link.lane = SimulatedLane(partial(self._control, link), self._data)
            self._links.append(link)

    def ask(self, asked: Asked, account: str) -> None:
        """Send one request."""
        self._count += 1
        link = self._links[self._count % len(self._links)]
        stream = asked.stream = link.prefix << PREFIX_SHIFT | self._count
        self.live[asked.request_id] = self._streams[stream] = asked
        due = self._epoch + asked.deadline
        message = Open(
            request_id=asked.request_id,
            build=asked.build,
            prompt_tokens_estimate=asked.prompt,
            prompt_bound=asked.prompt,
            output_bound=asked.bound,
            account_id=account,
            owner_policy=OwnerPolicy.OWNER_POLICY_PUBLIC,
            trust_floor="hardware",
            deadline_time=Timestamp(seconds=int(due), nanos=int(due % 1 * 1e9)),
        )
        self._ledger.opened(asked)
        self._core.carried.gateway_in += 1
        self._core.dispatcher.open(link, stream, message)

    def attempt_over(self, stream: int) -> None:
        """Note that a machine has stopped working on an attempt."""
        found = self._attempts.get(stream)
        if found is not None:
            found[0].live.discard(stream)

    def _control(self, link: GatewayLink, kind: int, stream: int, message: Message | bytes) -> None:
        self._core.carried.gateway_out += 1
        if kind == _OFFER and isinstance(message, Offer):
            self._offered(link, self._streams[stream], message)
        elif kind == _REFUSED and isinstance(message, Refused):
            asked = self._streams[stream]
            reason = Reason(message.reason).name.lower()
            self._ledger.refused(asked, message.http_status, reason, self._core.timers.now())
            self._forget(asked)
        elif kind == _COMMITTED:
            self._ledger.began(self._attempts[stream][0], self._core.timers.now())
        elif kind == _FAILED:
            asked, _ = self._attempts[stream]
            if asked.fate is Fate.OPEN:
                self._ledger.broke(asked)
                self._forget(asked, stream)
                self._close(stream, asked.output // 2)

    def _offered(self, link: GatewayLink, asked: Asked, offer: Offer) -> None:
        stream = offer.attempt_stream
        if asked.live:
            self._ledger.hedges += 1
        asked.live.add(stream)
        asked.tried.append(stream)
        self._attempts[stream] = (asked, link)
        self._core.timers.after(SEAL_S, partial(self._seal, stream, offer.attempt_id))

    def _seal(self, stream: int, attempt_id: str) -> None:
        asked, link = self._attempts.get(stream, (None, None))
        attempt = self._core.attempts.by_id(attempt_id)
        if asked is None or link is None:
            return
        if attempt is None:
            asked.live.discard(stream)
            return
        sealed = Sealed(
            sender_key=_KEY,
            body_bytes=_BODY_BYTES,
            body_sha256=_KEY,
            verdict_id=attempt.verdict.verdict_id,
            prompt_bound=asked.prompt,
            output_bound=asked.bound,
        )
        self._take(link, stream, FrameKind.FRAME_KIND_SEALED, sealed)

    def _data(self, frame: Frame) -> None:
        self._core.carried.gateway_out += 1
        if frame.kind != _FINAL:
            return
        asked, _ = self._attempts[frame.stream]
        if asked.fate is Fate.OPEN:
            attempt = self._core.attempts.by_stream[frame.stream]
            self._ledger.completed(asked, attempt.provider.serial, self._core.timers.now())
            self._forget(asked, frame.stream)
            # After the terminal that follows at once.
            self._core.timers.after(SEAL_S, partial(self._close, frame.stream, asked.output))

    def _close(self, stream: int, tokens: int) -> None:
        asked, link = self._attempts.pop(stream)
        opened = Opened(frames=2, prompt_tokens=asked.prompt, completion_tokens=tokens)
        self._take(link, stream, FrameKind.FRAME_KIND_CLOSE, Close(opened=opened))

    def _take(self, link: GatewayLink, stream: int, kind: int, message: Message) -> None:
        frame = Frame(stream=stream, kind=kind, payload=message.SerializeToString())
        self._core.carried.gateway_in += 1
        self._core.uplink.take(link, frame)

    def _forget(self, asked: Asked, kept: int = 0) -> None:
        """Forget a request, and its attempts but the one that is still to be closed."""
        self.live.pop(asked.request_id, None)
        self._streams.pop(asked.stream, None)
        for stream in asked.tried:
            if stream != kept:
                self._attempts.pop(stream, None)


def _nothing(_kind: int, _stream: int, _message: Message | bytes) -> None:
    """Nobody listens yet."""
