"""Cancels that were sent, and providers that do not hear them (routing section 12).

A stopped attempt is forgotten first and cancelled second. Whatever still comes on its stream is a
zombie: it is worth nothing to anybody and costs the provider a place, so the cancel is sent again,
at a growing distance. What is remembered is bounded and forgets.
"""

from collections import Counter, OrderedDict
from dataclasses import dataclass

import structlog
from darkbloom.common.v1.frame_pb2 import FrameKind
from darkbloom.router.v1.provider_link_pb2 import Cancel, CancelReason

from darkbloom_router.meter import Meter
from darkbloom_router.provider import Provider
from darkbloom_router.replicas.lane import ProviderLane
from darkbloom_router.timers import Timers

MAX_TRACKED = 4096
MAX_PER_PROVIDER = 256
IDLE_S = 300.0
RESEND_S = (1.0, 3.0, 10.0, 30.0)
"""Between a cancel and the next; the last one repeats."""
_WARN_EVERY_S = 10.0
_log = structlog.get_logger()


@dataclass(slots=True)
class _Sent:
    """One cancel."""

    cause: str
    payload: Cancel
    first_at: float
    sent_at: float
    seen_at: float
    resent: int = 0


class Cancels:
    """Sends cancels, and sends them again while their streams live on.

    Args:
        timers: What time it is.
        meter: Counters.
    """

    def __init__(self, timers: Timers, meter: Meter) -> None:
        self._timers = timers
        self._meter = meter
        self._sent: OrderedDict[tuple[str, int], _Sent] = OrderedDict()
        self._of_provider: Counter[str] = Counter()
        self._warned: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._sent)

    def send(
        self, provider: Provider, lane: ProviderLane, stream: int, reason: CancelReason.ValueType
    ) -> None:
        """Cancel a stream whose record has been removed by the caller just now."""
        self._send(provider, lane, stream, Cancel(reason=reason), cause_of(reason))

    def stray(self, provider: Provider, lane: ProviderLane, stream: int) -> None:
        """Take a frame of a stream that nobody knows: it was cancelled, or it must be now."""
        now = self._timers.now()
        known = self._find(provider, stream, now)
        if known is None:
            # Nothing here ever opened it, or it was forgotten long ago.
            cancel = Cancel(reason=CancelReason.CANCEL_REASON_UNSPECIFIED)
            self._send(provider, lane, stream, cancel, "stray")
            return
        known.seen_at = now
        wait_s = RESEND_S[min(known.resent, len(RESEND_S) - 1)]
        if now - known.sent_at < wait_s:
            return
        known.resent += 1
        known.sent_at = now
        lane.send_control(FrameKind.FRAME_KIND_CANCEL, stream, known.payload)
        self._meter.cancelled(known.cause, "resent")
        self._warn(provider, known, now)

    def ended(self, provider: Provider, stream: int) -> None:
        """Take the last word of a stream: it has stopped."""
        known = self._forget((provider.provider_id, stream))
        if known is not None:
            self._meter.stopped(known.cause, self._timers.now() - known.first_at)

    def gone(self, provider: Provider) -> None:
        """Forget a lost connection; nothing of it lives on."""
        if self._of_provider[provider.provider_id]:
            for key in [key for key in self._sent if key[0] == provider.provider_id]:
                self._forget(key)
        self._warned.pop(provider.provider_id, None)

    def _send(
        self, provider: Provider, lane: ProviderLane, stream: int, message: Cancel, cause: str
    ) -> None:
        now, key = self._timers.now(), (provider.provider_id, stream)
        self._forget(key)
        if self._of_provider[provider.provider_id] >= MAX_PER_PROVIDER:
            # One that invents streams must not make us forget the cancels of others.
            self._forget(next(key for key in self._sent if key[0] == provider.provider_id))
        self._sent[key] = _Sent(cause, message, now, now, now)
        self._of_provider[provider.provider_id] += 1
        if len(self._sent) > MAX_TRACKED:
            self._forget(next(iter(self._sent)))
        lane.send_control(FrameKind.FRAME_KIND_CANCEL, stream, message)
        self._meter.cancelled(cause, "sent")

    def _find(self, provider: Provider, stream: int, now: float) -> _Sent | None:
        key = (provider.provider_id, stream)
        known = self._sent.get(key)
        if known is not None and now - known.seen_at > IDLE_S:
            self._forget(key)
            return None
        return known

    def _forget(self, key: tuple[str, int]) -> _Sent | None:
        known = self._sent.pop(key, None)
        if known is not None:
            self._of_provider[key[0]] -= 1
            if not self._of_provider[key[0]]:
                del self._of_provider[key[0]]
        return known

    def _warn(self, provider: Provider, known: _Sent, now: float) -> None:
        last = self._warned.get(provider.provider_id, float("-inf"))
        if now - last < _WARN_EVERY_S:
            return
        self._warned[provider.provider_id] = now
        self._warned.move_to_end(provider.provider_id)
        if len(self._warned) > MAX_TRACKED:
            self._warned.popitem(last=False)
        _log.warning(
            "cancel_not_heard",
            provider=provider.provider_id,
            cause=known.cause,
            resent=known.resent,
            seconds=round(now - known.first_at, 1),
        )


def cause_of(reason: CancelReason.ValueType) -> str:
    """Return the closed word of a reason to cancel."""
    return CancelReason.Name(reason).removeprefix("CANCEL_REASON_").lower()
