"""The lane's side of one request: its streams, what is sent on them, and how it ends."""

from collections.abc import Iterable
from datetime import datetime
from typing import Generic, TypeAlias, final

from darkbloom.router.v1 import gateway_lane_pb2, provider_link_pb2
from darkbloom_mesh import tracing
from darkbloom_mesh.credits import CreditMeter
from google.protobuf.message import Message

from darkbloom_gateway import convert, kinds
from darkbloom_gateway.carried import AttemptT
from darkbloom_gateway.errors import ViolationFault
from darkbloom_gateway.link import RouterLink
from darkbloom_gateway.mailbox import Mailbox
from darkbloom_gateway.model import OpenedCounts, Plan
from darkbloom_gateway.prompt import SealedBody

CancelReason: TypeAlias = provider_link_pb2.CancelReason.ValueType
AbandonReason: TypeAlias = gateway_lane_pb2.AbandonReason.ValueType
DeclineReason: TypeAlias = gateway_lane_pb2.DeclineReason.ValueType


@final
class Exchange(Generic[AttemptT]):
    """One opening of a request on the lane; all sends are synchronous and never wait.

    Invariant: it ends once, by `close`, by `withdraw`, or because the router said so first.

    Attributes:
        live: attempts by stream that may still answer.
        dispatched: SEALED was sent, so that the router ends the hold.
        ended_by_router: REFUSED or ATTEMPT_FAILED came; nothing is left to cancel.
    """

    __slots__ = (
        "_granted",
        "_link",
        "_mailbox",
        "_meter",
        "_over",
        "_request_stream",
        "_streams",
        "dispatched",
        "ended_by_router",
        "live",
    )

    def __init__(self, link: RouterLink, mailbox: Mailbox, *, late: bool = False) -> None:
        """Join the lane.

        Args:
            link: the lane.
            mailbox: where its frames go.
            late: for something that the router knows already, so that it may be leaving.

        Raises:
            LaneLostError: there is no lane now.
        """
        self._link = link
        self._mailbox = mailbox
        self._request_stream = link.join(mailbox, late=late)
        self._streams = [self._request_stream]
        self._meter = CreditMeter()
        self._granted = link.initial_credit
        self._over = False
        self.live: dict[int, AttemptT] = {}
        self.dispatched = False
        self.ended_by_router = False

    @property
    def link(self) -> RouterLink:
        """The lane that it is on."""
        return self._link

    def refuse_new(self) -> None:
        """Take no new request on this lane: its router is leaving."""
        self._link.refuse_new()

    def open(self, plan: Plan, request_id: str, *, trust_floor: str, deadline: datetime) -> None:
        """Ask for a provider."""
        message = convert.open_message(
            plan,
            request_id,
            trust_floor=trust_floor,
            deadline=deadline,
            traceparent=dict(tracing.outgoing()).get(tracing.TRACEPARENT_KEY, ""),
        )
        self._send(kinds.OPEN, self._request_stream, message)

    def ask(self, message: gateway_lane_pb2.Open) -> None:
        """Ask for an offer of end-to-end mode."""
        self._send(kinds.OPEN, self._request_stream, message)

    def claim(self, message: gateway_lane_pb2.Claim) -> None:
        """Take over an offer that was made on any lane of this router."""
        self._send(kinds.CLAIM, self._request_stream, message)

    def hand_over(self) -> None:
        """Leave without a word: the router keeps the offer for whoever claims it."""
        if not self._over:
            self._over = True
            self._link.leave(self._mailbox, self._streams)

    def dispatch(self, attempt: AttemptT, body: SealedBody) -> bool:
        """Send a sealed request; False where too many bodies wait, and then nothing was sent."""
        stream = attempt.offer.stream
        if not self._link.send_body(stream, body.ciphertext):
            return False
        # Control overtakes the parts that wait, so the outside of the envelope arrives first.
        self._send(
            kinds.SEALED,
            stream,
            gateway_lane_pb2.Sealed(
                sender_key=attempt.sender_key,
                body_bytes=len(body.ciphertext),
                body_sha256=body.sha256,
                verdict_id=attempt.checked.verdict.verdict_id,
                prompt_bound=attempt.prompt_bound,
                output_bound=attempt.output_bound,
            ),
        )
        self._link.attach(stream, self._mailbox)
        self._streams.append(stream)
        self.live[stream] = attempt
        self.dispatched = True
        return True

    def credit(self, attempt: AttemptT, passed_on: int) -> None:
        """Grant credits once enough chunks were passed on to the consumer."""
        due = self._meter.consumed(passed_on)
        if not due or attempt.final:
            return
        self._granted += due
        self._send(
            kinds.CREDIT,
            attempt.offer.stream,
            provider_link_pb2.Credit(
                granted_frames=self._granted, opened=convert.opened(attempt.opened)
            ),
        )

    def report(self, attempt: AttemptT, fault: ViolationFault, opened: OpenedCounts) -> None:
        """Tell the router that a provider broke the rules; nothing more is taken from it.

        Args:
            attempt: whose.
            fault: which rule.
            opened: what was handed out of it, and may be charged.
        """
        stream = attempt.offer.stream
        self._drop(stream)
        self._send(kinds.VIOLATION, stream, convert.violation(fault, opened))
        self.live.pop(stream, None)

    def decline(self, stream: int, reason: DeclineReason) -> None:
        """Refuse an offer; the router offers another one, or awaits the one that runs."""
        self._send(kinds.DECLINE, stream, gateway_lane_pb2.Decline(reason=reason))

    def keep_only(self, streams: Iterable[int]) -> None:
        """Forget live attempts that the router has ended."""
        kept = set(streams)
        self.live = {stream: self.live[stream] for stream in self.live if stream in kept}

    def close(self, attempt: AttemptT) -> None:
        """End a request whose answer is complete and checked."""
        if self._over:
            return
        self._over = True
        self._send(
            kinds.CLOSE,
            attempt.offer.stream,
            gateway_lane_pb2.Close(opened=convert.opened(attempt.opened)),
        )
        self._link.leave(self._mailbox, self._streams)

    def withdraw(
        self, cancel: CancelReason, abandon: AbandonReason, *, delivered: bool = True
    ) -> None:
        """End it early: cancel what runs, or say that nobody is wanted any more.

        Args:
            cancel: why what runs is cancelled.
            abandon: why nobody is wanted any more.
            delivered: whether what was opened is to be paid; if not, the router is told that
                nothing was, and gives the hold back.
        """
        if self._over:
            return
        self._over = True
        for stream, attempt in self.live.items():
            self._drop(stream)
            self._send(
                kinds.CANCEL,
                stream,
                provider_link_pb2.Cancel(
                    reason=cancel,
                    opened=convert.opened(attempt.opened if delivered else OpenedCounts()),
                ),
            )
        if not self.live and not self.ended_by_router:
            self._send(
                kinds.ABANDON,
                self._request_stream,
                gateway_lane_pb2.Abandon(reason=abandon),
            )
        self._link.leave(self._mailbox, self._streams)

    def _send(self, kind: int, stream: int, message: Message) -> None:
        """Send on the lane that the streams belong to; on a later one the numbers mean others."""
        if not self._mailbox.lost:
            self._link.send(kind, stream, message)

    def _drop(self, stream: int) -> None:
        if not self._mailbox.lost:
            self._link.drop(stream)
