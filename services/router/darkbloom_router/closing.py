"""The money of ended attempts: what is settled, when, and who is told.

An attempt settles once the edge has said its last word and the provider's terminal is there, or
when 30 s have passed after a break, with what the edge opened alone. A terminal is acknowledged
only after billing has committed: a provider that hears nothing keeps it and sends it again.
"""

import json
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from darkbloom.common.v1.frame_pb2 import FrameKind
from darkbloom.router.v1.provider_link_pb2 import Disposition, Terminal, TerminalAck

from darkbloom_router import convert
from darkbloom_router.attempts import Attempt, Attempts, Phase, Request
from darkbloom_router.meter import Meter
from darkbloom_router.model import Opened, Signed
from darkbloom_router.provider import Provider
from darkbloom_router.replicas.lane import ProviderLane
from darkbloom_router.settlement import Cause, End, Free, Order, Settle, SettlementDesk
from darkbloom_router.timers import Timers

_REMEMBERED = 8192
_TERMINAL_ACK = FrameKind.FRAME_KIND_TERMINAL_ACK
_WAITING_LATE = 4096
_MAX_TERMINAL_BYTES = 64 * 1024
_MAX_ID = 64

_DISPOSITIONS = {
    End.SETTLED: Disposition.DISPOSITION_SETTLED,
    End.RELEASED: Disposition.DISPOSITION_RELEASED,
    End.REPLAYED: Disposition.DISPOSITION_SETTLED,
    End.LATE: Disposition.DISPOSITION_LATE,
    End.UNKNOWN: Disposition.DISPOSITION_LATE,
    End.REJECTED: Disposition.DISPOSITION_REJECTED,
}


class Closing:
    """Attempts whose frames are over and whose money is not.

    Args:
        attempts: Where live and parked attempts are looked up.
        desk: The line to billing.
        timers: Deadlines.
        meter: Counters.
        lane_of: The present lane of a provider's identity, if it is connected.
        gone: Called when an attempt is over, whatever its money does.
        elsewhere: Shows a terminal that nobody here knows to other replicas.
        delay_s: How long a broken attempt waits for its terminal.
        lease_s: Life of a hold: after it, nothing can be settled any more.
    """

    def __init__(
        self,
        attempts: Attempts,
        desk: SettlementDesk,
        timers: Timers,
        meter: Meter,
        *,
        lane_of: Callable[[Provider], ProviderLane | None],
        gone: Callable[[Attempt], None],
        elsewhere: Callable[[Provider, Signed], None],
        delay_s: float,
        lease_s: float,
    ) -> None:
        self._attempts = attempts
        self._desk = desk
        self._timers = timers
        self._meter = meter
        self._lane_of = lane_of
        self._gone = gone
        self._elsewhere = elsewhere
        self._delay_s = delay_s
        self._lease_s = lease_s
        self._settling: dict[str, Attempt] = {}
        self._ended: OrderedDict[str, Disposition.ValueType] = OrderedDict()
        self._late: dict[str, Provider] = {}
        """Who sent a terminal again that proves nothing here, by attempt."""

    def holds(self) -> set[str]:
        """Return the requests whose holds wait for the end of an attempt."""
        open_ones = (*self._attempts.by_stream.values(), *self._settling.values())
        return {one.request.request_id for one in open_ones if not one.request.demand.free}

    def open_for(self, provider: Provider) -> bool:
        """Return whether money of this provider is still open."""
        return bool(self._attempts.of_provider(provider)) or any(
            attempt.provider is provider for attempt in self._settling.values()
        )

    def forget(self, attempt: Attempt) -> None:
        """End an attempt that delivered nothing: its terminal, if one comes, moves no money."""
        self._drop(attempt)
        self._remember(attempt.attempt_id, Disposition.DISPOSITION_RELEASED)
        if attempt.terminal is not None:
            self._acknowledge(attempt.provider, attempt.attempt_id)

    def park(self, attempt: Attempt) -> None:
        """Keep an attempt until it can be settled: last word and terminal, or the delay."""
        attempt.phase = Phase.PARKED
        self._await_rest(attempt)

    def check(self, attempt: Attempt) -> None:
        """Settle when nothing more is to come."""
        if attempt.opened_final and (attempt.terminal is not None or attempt.disowned):
            self._settle(attempt)

    def terminal(self, attempt: Attempt, terminal: Signed) -> None:
        """Take the provider's terminal; the first one counts."""
        if attempt.terminal is None:
            attempt.terminal = terminal
        self._await_rest(attempt)

    def prove(self, attempt: Attempt) -> None:
        """Show the edge a terminal that has overtaken its stream, once nothing else is to come.

        A provider that moves sends what nobody has acknowledged again on its new stream, while the
        old one still carries the same answer.
        """
        if attempt.terminal is None or attempt.proven or not (attempt.live and attempt.final):
            return
        attempt.proven = True
        message = Terminal(terminal=convert.signed_document(attempt.terminal))
        lane = attempt.request.gateway.lane
        lane.send_ordered(FrameKind.FRAME_KIND_TERMINAL, attempt.stream, message)

    def stray_terminal(self, provider: Provider, terminal: Signed) -> None:
        """Take a terminal that came on a stream nobody knows: re-sent after a break, or doubled."""
        attempt_id = _attempt_id(terminal.document)
        if attempt_id is None:
            self._meter.ignored("provider", "terminal_malformed")
            return
        attempt = self._attempts.by_id(attempt_id) or self._settling.get(attempt_id)
        if attempt is not None:
            if attempt.provider.identity_key == provider.identity_key:
                self._resent(attempt, terminal)
            return
        if attempt_id in self._ended:
            self._acknowledge(provider, attempt_id)
            return
        if provider.remote:
            # Its holder asks everybody, and gives the answer if nobody knows.
            return
        self._elsewhere(provider, terminal)
        # Nothing here proves what was delivered, so it settles nothing; once the hold must have
        # ended the provider may forget it.
        if len(self._late) < _WAITING_LATE and attempt_id not in self._late:
            self._late[attempt_id] = provider
            self._timers.after(self._lease_s, partial(self._too_late, provider, attempt_id))

    def free(self, request: Request, cause: Cause) -> None:
        """Give the money of a request back; nothing of it was delivered."""
        if request.demand.free:
            return
        self._desk.submit(Free(request_id=request.request_id, cause=cause), _nothing)

    def rescue(self, order: Settle) -> None:
        """Hand in an answer of a lost replica, unless it is one of ours: then we know more.

        But not where the lane was lost before the first credit of a promised answer.
        """
        known = self._attempts.by_id(order.attempt_id) or self._settling.get(order.attempt_id)
        if known is not None and known.unheard and known.request.request_id == order.request_id:
            known.opened = order.opened
            if known.phase is Phase.PARKED:
                known.opened_final = True
                self._await_rest(known)
        if known is None and order.attempt_id not in self._ended:
            self._desk.submit(order, partial(self._rescued, order.attempt_id))

    def _rescued(self, attempt_id: str, end: End) -> None:
        if attempt_id not in self._ended:
            self._remember(attempt_id, _DISPOSITIONS[end])
        waiting = self._late.pop(attempt_id, None)
        if waiting is not None:
            self._acknowledge(waiting, attempt_id)

    def hurry(self) -> None:
        """Settle every parked attempt with what is known: the process is about to end."""
        for attempt in list(self._attempts.by_stream.values()):
            if attempt.phase is Phase.PARKED:
                self._settle(attempt)

    async def flush(self) -> None:
        """Wait until billing has answered everything."""
        await self._desk.flush()

    def _resent(self, attempt: Attempt, terminal: Signed) -> None:
        if attempt.phase is Phase.DONE:
            attempt.terminal = attempt.terminal or terminal
        else:
            self.terminal(attempt, terminal)
            self.prove(attempt)

    def _overdue(self, attempt: Attempt) -> None:
        if attempt.terminal is None:
            self._meter.no_terminal(attempt.candidate.build.build)
        self._settle(attempt)

    def _await_rest(self, attempt: Attempt) -> None:
        """Settle, or give what is missing its time."""
        self.check(attempt)
        if attempt.phase is not Phase.DONE:
            attempt.arm(self._timers, self._delay_s, self._overdue)

    def _settle(self, attempt: Attempt) -> None:
        if attempt.phase is Phase.DONE:
            return
        self._drop(attempt)
        if attempt.request.demand.free:
            # Nobody pays and nobody is paid: the provider may forget it.
            self._remember(attempt.attempt_id, Disposition.DISPOSITION_RELEASED)
            if attempt.terminal is not None:
                self._acknowledge(attempt.provider, attempt.attempt_id)
            return
        self._settling[attempt.attempt_id] = attempt
        self._submit(attempt, self._order(attempt))

    def _order(self, attempt: Attempt) -> Order:
        request_id = attempt.request.request_id
        if attempt.opened.frames == 0:
            return Free(request_id=request_id, cause=Cause.NOTHING_OPENED)
        return Settle(
            request_id=request_id,
            attempt_id=attempt.attempt_id,
            verdict=attempt.verdict.signed,
            terminal=None if attempt.disowned else attempt.terminal,
            opened=_payable(attempt),
            price_id=attempt.price_id,
            traceparent=attempt.request.traceparent,
        )

    def _submit(self, attempt: Attempt, order: Order) -> None:
        if not self._desk.submit(order, partial(self._done, attempt, order)):
            self._settling.pop(attempt.attempt_id, None)

    def _done(self, attempt: Attempt, order: Order, end: End) -> None:
        if end is End.REJECTED and isinstance(order, Settle):
            # What the edge opened was checked by the edge; it stands without the terminal. If even
            # that is refused, the consumer gets the money back now and not when the lease ends.
            attempt.disowned = True
            again = (
                self._order(attempt)
                if order.terminal
                else Free(request_id=order.request_id, cause=Cause.REFUSED)
            )
            self._remember(attempt.attempt_id, Disposition.DISPOSITION_REJECTED)
            self._submit(attempt, again)
            return
        self._settling.pop(attempt.attempt_id, None)
        if attempt.attempt_id not in self._ended:
            freed = end is End.REPLAYED and isinstance(order, Free)
            self._remember(attempt.attempt_id, _DISPOSITIONS[End.RELEASED if freed else end])
        if attempt.terminal is not None:
            self._acknowledge(attempt.provider, attempt.attempt_id)

    def _drop(self, attempt: Attempt) -> None:
        attempt.phase = Phase.DONE
        if attempt.timer is not None:
            attempt.timer.cancel()
        self._attempts.remove(attempt)
        self._gone(attempt)

    def _remember(self, attempt_id: str, disposition: Disposition.ValueType) -> None:
        self._ended[attempt_id] = disposition
        if len(self._ended) > _REMEMBERED:
            self._ended.popitem(last=False)

    def _too_late(self, provider: Provider, attempt_id: str) -> None:
        if self._late.pop(attempt_id, None) is None:
            return
        if attempt_id not in self._ended:
            self._remember(attempt_id, Disposition.DISPOSITION_LATE)
        self._acknowledge(provider, attempt_id)

    def _acknowledge(self, provider: Provider, attempt_id: str) -> None:
        lane = self._lane_of(provider)
        if lane is not None:
            ack = TerminalAck(attempt_id=attempt_id, disposition=self._ended[attempt_id])
            lane.send_control(_TERMINAL_ACK, 0, ack)


def _attempt_id(document: bytes) -> str | None:
    """Read the attempt id of a terminal that nobody has checked; None where there is none."""
    if len(document) > _MAX_TERMINAL_BYTES:
        return None
    try:
        fields = json.loads(document)
    except (ValueError, RecursionError):
        return None
    found = fields.get("attempt_id") if isinstance(fields, dict) else None
    return found if isinstance(found, str) and len(found) <= _MAX_ID else None


def _payable(attempt: Attempt) -> Opened:
    """Return what may be paid of what the edge has said.

    A consumer who leaves a promised answer is charged up to his bound, as far as a signed terminal
    goes. Without one nobody has counted the prompt, and whoever withholds it must not earn by that:
    then the consumer's own number counts.
    """
    opened, request = attempt.opened, attempt.request
    if not request.promised or (attempt.terminal is not None and not attempt.disowned):
        return opened
    most = request.demand.prompt_tokens
    return replace(opened, prompt_tokens=min(opened.prompt_tokens, most))


def _nothing(_end: End) -> None:
    """Nobody waits for this end."""
