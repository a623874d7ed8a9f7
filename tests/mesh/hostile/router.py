"""The real router, broken into: it does whatever its new owner gains by.

Everything stays real but what goes over its lanes and into its settlements. It is patched where
those leave the process, so that nothing of its own logic has to be copied here.
"""

import base64
import json
import sys
from collections.abc import Callable, Sequence
from typing import Any

import darkbloom_mesh.lane
from darkbloom.billing.v1 import ledger_pb2
from darkbloom.billing.v1 import ledger_service_pb2_grpc as ledger_grpc
from darkbloom.common.v1.frame_pb2 import Frame, FrameKind
from darkbloom.router.v1.gateway_lane_pb2 import Offer
from darkbloom.router.v1.provider_link_pb2 import AttemptError, FailureReason, InferenceRequest
from darkbloom_edge.envelope import new_key_pair
from google.protobuf.message import Message

from tests.mesh.hostile.mischief import Mischief

mischief = Mischief()
OWN_KEY = new_key_pair().public
"""A key of which the owner of this router has the other half."""
TWIN = 1 << 62
"""Added to the number of a stream whose body is delivered a second time."""


class HostileLane(darkbloom_mesh.lane.Lane):
    """The router's lanes, seen and changed by somebody else."""

    def __init__(
        self, call: Any, *, on_frames: Callable[[Sequence[Frame]], None], **others: Any
    ) -> None:
        self._parts: dict[int, list[Frame]] = {}
        self._asked: dict[int, InferenceRequest] = {}

        def overhear(frames: Sequence[Frame]) -> None:
            on_frames([self._heard(frame) for frame in frames if not self._of_twin(frame)])

        super().__init__(call, on_frames=overhear, **others)

    def send_control(self, kind: int, stream: int, message: Message | bytes) -> None:
        """Send a control frame, or a lie in its place."""
        if isinstance(message, Offer):
            message = _offer(message)
        if isinstance(message, InferenceRequest):
            if mischief.wanted("raise_bounds"):
                message.output_bound *= 2
            mischief.note("request", attempt_id=message.attempt_id)
            self._asked[stream] = message
        super().send_control(kind, stream, message)

    def send_frame(self, frame: Frame) -> bool:
        """Relay a frame, or a lie in its place."""
        if frame.kind == FrameKind.FRAME_KIND_CHUNK and mischief.wanted("inflate_chunks"):
            frame.tokens += 1000
        return super().send_frame(frame)

    def send_body_part(self, frame: Frame) -> bool:
        """Relay a part of a sealed request, and perhaps the whole of it once more."""
        sent = super().send_body_part(frame)
        asked, parts = self._asked.get(frame.stream), self._parts.setdefault(frame.stream, [])
        parts.append(Frame(kind=frame.kind, sequence=frame.sequence, payload=frame.payload))
        whole = asked is not None and sum(len(p.payload) for p in parts) >= asked.body_bytes
        if whole and asked is not None and mischief.wanted("deliver_twice"):
            twin = frame.stream ^ TWIN
            super().send_control(FrameKind.FRAME_KIND_REQUEST, twin, asked)
            for part in parts:
                part.stream = twin
                super().send_body_part(part)
        return sent

    def _of_twin(self, frame: Frame) -> bool:
        """Note what a provider says to a second delivery; the router never asked for it."""
        if frame.stream ^ TWIN not in self._asked or frame.stream in self._asked:
            return False
        reason = ""
        if frame.kind == FrameKind.FRAME_KIND_ERROR:
            reason = FailureReason.Name(AttemptError.FromString(frame.payload).reason)
        mischief.note("twin", kind=FrameKind.Name(frame.kind), reason=reason)
        return True

    def _heard(self, frame: Frame) -> Frame:
        if frame.kind == FrameKind.FRAME_KIND_ERROR:
            error = AttemptError.FromString(frame.payload)
            mischief.note("error", reason=FailureReason.Name(error.reason))
        return frame


def _offer(offer: Offer) -> Offer:
    """Offer a provider under a verdict that names our own key."""
    if mischief.wanted("swap_key"):
        verdict = json.loads(offer.verdict.document)
        verdict["encryption_key"] = base64.b64encode(OWN_KEY).decode()
        offer.verdict.document = json.dumps(verdict, sort_keys=True, separators=(",", ":")).encode()
        mischief.note("offer")
    if mischief.wanted("unsigned_verdict"):
        offer.verdict.signature = bytes(64)
        mischief.note("offer")
    return offer


class HostileLedger(ledger_grpc.LedgerServiceStub):
    """Billing as this router's owner would like to use it."""

    def __init__(self, channel: Any) -> None:
        super().__init__(channel)
        honest = self.SettleHolds

        def settle(request: Any, **options: Any) -> Any:
            for settlement in request.settlements:
                _settle(settlement)
            return _Noted(honest(request, **options))

        self.SettleHolds = settle


class _Noted:
    """A call whose answer is noted."""

    def __init__(self, call: Any) -> None:
        self._call = call

    def __await__(self) -> Any:
        answer = yield from self._call.__await__()
        for result in answer.results:
            mischief.note(
                "settled",
                request_id=result.request_id,
                status=ledger_pb2.SettlementStatus.Name(result.status),
                rejection=result.rejection,
            )
        return answer


def _settle(settlement: ledger_pb2.Settlement) -> None:
    if mischief.wanted("inflate_opened"):
        settlement.opened.prompt_tokens *= 1000
        settlement.opened.completion_tokens *= 1000
    if mischief.wanted("hide_terminal"):
        settlement.ClearField("terminal")
        settlement.opened.completion_tokens *= 10
    if mischief.wanted("deflate"):
        settlement.ClearField("terminal")
        settlement.opened.completion_tokens //= 10
    if mischief.wanted("inflate_terminal"):
        terminal = json.loads(settlement.terminal.document)
        terminal["completion_tokens"] *= 10
        settlement.terminal.document = _canonical(terminal)
    if mischief.wanted("other_payee"):
        verdict = json.loads(settlement.verdict.document)
        verdict["identity_key"] = mischief.seen("payee")[-1]["identity_key"]
        settlement.verdict.document = _canonical(verdict)
    if mischief.wanted("other_verdict"):
        stolen = mischief.seen("verdict")[-1]
        settlement.verdict.document = base64.b64decode(stolen["document"])
        settlement.verdict.signature = base64.b64decode(stolen["signature"])
        settlement.verdict.key_id = stolen["key_id"]
    if mischief.wanted("other_request"):
        settlement.attempt_id = "att_" + "0" * 32


def _canonical(document: dict[str, Any]) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def main() -> int:
    """Patch what leaves the process, then run the real router."""
    darkbloom_mesh.lane.Lane = HostileLane  # type: ignore[misc]
    ledger_grpc.LedgerServiceStub = HostileLedger  # type: ignore[misc]
    from darkbloom_mesh.config import main_config
    from darkbloom_mesh.serve import run
    from darkbloom_router import app
    from darkbloom_router.config import RouterConfig

    config = main_config(RouterConfig, "router")
    return run(lambda: app.serve(config))


if __name__ == "__main__":
    sys.exit(main())
