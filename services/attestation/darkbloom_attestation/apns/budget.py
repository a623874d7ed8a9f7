"""How often pushes may go out, per device and in all (spec/security.md §10).

A device that is pushed too often is throttled by its system for hours, and a fleet that reconnects
at once must not make us a nuisance to Apple. Pure: time and randomness are handed in.
"""

from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import final

from darkbloom_attestation.apns.model import PushMode

SPACING_S = {PushMode.BACKGROUND: 1200.0, PushMode.ALERT: 75.0}
"""Least seconds between two series of one device."""
MAX_ATTEMPTS = 3
"""Attempts of one series; then it waits for a reconnect."""
ATTEMPT_SPACING_S = 15.0
"""Least seconds between two attempts, and as much again of jitter."""
WINDOW_S = 60.0
"""Span of the global budget."""
MAX_DEVICES = 65_536
"""Devices that are remembered; the one that was idle longest is forgotten first."""


class Refusal(StrEnum):
    """Why no push goes out now."""

    DEVICE_SPACING = "device_spacing"
    """This device had a series a short while ago."""
    ATTEMPTS_USED = "attempts_used"
    """This connection had its attempts."""
    TOO_EARLY = "too_early"
    """The next attempt of this series is not due."""
    GLOBAL = "global"
    """All devices together had their share of this minute."""


@dataclass(frozen=True, slots=True)
class Denied:
    """No push now."""

    refusal: Refusal
    retry_after_s: float | None
    """When to ask again; None: never for this connection."""


@dataclass(slots=True)
class _Device:
    series: str
    attempts: int
    began_s: float
    next_s: float


@final
@dataclass(slots=True)
class PushBudget:
    """Decides whether a push may go out, and remembers that it did.

    A series is the pushes of one connection. One that was refused costs nothing.
    """

    per_minute: int
    """Pushes of all devices in any 60 s."""
    uniform: Callable[[], float]
    """Randomness of the jitter, in [0, 1)."""
    max_devices: int = MAX_DEVICES
    _devices: OrderedDict[str, _Device] = field(default_factory=OrderedDict)
    _sent: deque[float] = field(default_factory=deque)

    def take(self, device: str, series: str, mode: PushMode, now_s: float) -> Denied | None:
        """Take one push out of the budget; None when it may go out.

        Args:
            device: stable id of the device (its identity key), not the token, which rotates.
            series: id of the connection.
            mode: how it is delivered.
            now_s: monotonic seconds.
        """
        known = self._devices.get(device)
        denied = self._check_device(known, series, mode, now_s) or self._check_all(now_s)
        if denied is not None:
            return denied

        jitter = self.uniform()
        next_s = now_s + ATTEMPT_SPACING_S * (1 + jitter)
        if known is None or known.series != series:
            self._devices[device] = _Device(series, 1, now_s, next_s)
        else:
            known.attempts += 1
            known.next_s = next_s
        self._devices.move_to_end(device)
        while len(self._devices) > self.max_devices:
            self._devices.popitem(last=False)
        self._sent.append(now_s)

        return None

    @staticmethod
    def _check_device(
        known: _Device | None, series: str, mode: PushMode, now_s: float
    ) -> Denied | None:
        if known is None:
            return None
        if known.series != series:
            wait_s = known.began_s + SPACING_S[mode] - now_s
            return Denied(Refusal.DEVICE_SPACING, wait_s) if wait_s > 0 else None
        if known.attempts >= MAX_ATTEMPTS:
            return Denied(Refusal.ATTEMPTS_USED, None)
        wait_s = known.next_s - now_s

        return Denied(Refusal.TOO_EARLY, wait_s) if wait_s > 0 else None

    def _check_all(self, now_s: float) -> Denied | None:
        while self._sent and self._sent[0] <= now_s - WINDOW_S:
            self._sent.popleft()
        if len(self._sent) < self.per_minute:
            return None
        oldest_s = self._sent[0] if self._sent else now_s

        return Denied(Refusal.GLOBAL, oldest_s + WINDOW_S - now_s)
