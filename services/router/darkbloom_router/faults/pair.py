"""Health of one build on one machine: cooldowns, clamp and rate (routing section 13)."""

from collections import deque
from dataclasses import dataclass, field

from darkbloom_router.faults.holds import Hold

_KEPT = 64
STRIKES, STRIKE_WINDOW_S, ERROR_HOLD_S = 2, 60.0, 300.0
LOAD_HOLD_S = 120.0
FULL_STRIKES, FULL_WINDOW_S, FULL_FIRST_S, FULL_MOST_S = 5, 60.0, 120.0, 600.0
PROBE_WINDOW_S = 30.0
CLAMP_MOST_S, CLAMP_LEAST_TOKENS = 300.0, 1024
RATE_WINDOW_S, RATE_LEAST, RATE_ABOVE, RATE_MS = 300.0, 8, 0.25, 15_000.0


@dataclass(frozen=True, slots=True)
class Strike:
    """One genuine failure of one request shape."""

    when: float
    shape: int
    flush: bool
    """Caused by a broken stream."""


@dataclass(slots=True)
class PairFaults:
    """What one build on one machine did lately."""

    strikes: deque[Strike] = field(default_factory=lambda: deque(maxlen=_KEPT))
    errors_until: dict[int, float] = field(default_factory=dict)
    """By request shape."""
    load_until: float = 0.0
    outcomes: deque[tuple[float, bool]] = field(default_factory=lambda: deque(maxlen=_KEPT))
    """When, and whether it said that it is full."""
    cooldown: Hold = field(default_factory=Hold)
    probing: bool = False
    """The cooldown has run out and nobody has been accepted since: one request at a time."""
    probe_at: float | None = None
    """When the one request was sent."""
    clamped_at: float | None = None
    clamp_seen: bool = False
    """A heartbeat since the clamp showed room: one request may find out."""
    refused_at: float = float("-inf")
    """When it last said that a deadline cannot be met."""

    def strike(
        self, shape: int, now: float, *, flush: bool = False, hold_s: float = ERROR_HOLD_S
    ) -> None:
        """Take one genuine failure; two within a minute shut the shape for five."""
        self.strikes.append(Strike(now, shape, flush))
        if self._struck(shape, now) and hold_s > 0:
            self.errors_until[shape] = now + hold_s

    def failed_load(self, now: float) -> None:
        """Take a load that a dispatch had triggered and that failed."""
        self.load_until = now + LOAD_HOLD_S

    def full(self, now: float) -> None:
        """Take a refusal for want of room: clamp at once, cool down when it repeats."""
        self.clamped_at, self.clamp_seen = now, False
        self.outcomes.append((now, True))
        if self.probing and not self.cooldown.shut(now):
            self.cooldown.trip(now, FULL_FIRST_S, FULL_MOST_S)
        elif self._full_in_a_row(now) >= FULL_STRIKES:
            self.cooldown.trip(now, FULL_FIRST_S, FULL_MOST_S)
            self.probing = True
        self.probe_at = None

    def accepted(self, now: float) -> None:
        """Take an admission: it has room after all."""
        self.outcomes.append((now, False))
        self.probe_at = None
        if self.probing and not self.cooldown.shut(now):
            self.probing = False
            self.cooldown.clear()
        if self.clamp_seen:
            self.clamped_at, self.clamp_seen = None, False

    def sent(self, now: float) -> None:
        """Note that a request is on its way: it is the probe where one is wanted."""
        if self.probes(now):
            self.probe_at = now

    def returned(self) -> None:
        """Note that a probe ended without saying anything about room."""
        self.probe_at = None

    def shows(self, tokens: float, now: float) -> None:
        """Take what a later heartbeat says about room."""
        if self.clamped_at is not None and now > self.clamped_at:
            self.clamp_seen = self.clamp_seen or tokens >= CLAMP_LEAST_TOKENS

    def probes(self, now: float) -> bool:
        """Whether only one request at a time may pass."""
        return (self.probing and not self.cooldown.shut(now)) or (
            self.clamp_seen and self.clamped(now)
        )

    def clamped(self, now: float) -> bool:
        """Whether its budget is not believed; at most five minutes."""
        return self.clamped_at is not None and now - self.clamped_at < CLAMP_MOST_S

    def cooling(self, now: float) -> bool:
        """Whether the capacity gate is shut: a sentence, or a probe that is under way."""
        if self.cooldown.shut(now):
            return True
        return self.probing and self._probe_out(now)

    def no_room(self, now: float) -> bool:
        """Whether the clamp admits nothing at this moment."""
        return self.clamped(now) and (not self.clamp_seen or self._probe_out(now))

    def error_shapes(self, now: float) -> int:
        """Return the shapes whose breaker is open, one bit each."""
        return sum(1 << shape for shape, until in self.errors_until.items() if until > now)

    def rate(self, now: float) -> float:
        """Return the share of refusals for want of room, 0 while too few or too rare to count."""
        recent = [full for when, full in self.outcomes if now - when <= RATE_WINDOW_S]
        share = sum(recent) / len(recent) if len(recent) >= RATE_LEAST else 0.0
        return share if share > RATE_ABOVE else 0.0

    def next_change(self, now: float) -> float:
        """Return when the passing of time alone changes one of the gates."""
        times = [*self.errors_until.values(), self.load_until, self.cooldown.until]
        if self.probe_at is not None:
            times.append(self.probe_at + PROBE_WINDOW_S)
        if self.clamped_at is not None:
            times.append(self.clamped_at + CLAMP_MOST_S)
        if self.outcomes:
            times.append(self.outcomes[0][0] + RATE_WINDOW_S)
        return min((when for when in times if when > now), default=float("inf"))

    def forgive_flushes(self, now: float) -> None:
        """Erase the strikes that broken streams caused, and what rested on them alone."""
        self.strikes = deque((one for one in self.strikes if not one.flush), maxlen=_KEPT)
        for shape in list(self.errors_until):
            if not self._struck(shape, now, window_s=STRIKE_WINDOW_S + ERROR_HOLD_S):
                del self.errors_until[shape]

    def merge(self, other: "PairFaults") -> None:
        """Take over what was known under another name of the same machine."""
        strikes = sorted((*self.strikes, *other.strikes), key=lambda one: one.when)
        self.strikes = deque(strikes, maxlen=_KEPT)
        for shape, until in other.errors_until.items():
            self.errors_until[shape] = max(until, self.errors_until.get(shape, 0.0))
        self.load_until = max(self.load_until, other.load_until)
        self.outcomes = deque(sorted((*self.outcomes, *other.outcomes)), maxlen=_KEPT)
        self.cooldown.merge(other.cooldown)
        self.probing = self.probing or other.probing
        if other.clamped_at is not None and other.clamped_at > (self.clamped_at or 0.0):
            self.clamped_at, self.clamp_seen = other.clamped_at, other.clamp_seen
        self.refused_at = max(self.refused_at, other.refused_at)

    @property
    def until(self) -> float:
        """When the last sentence ends."""
        clamp = 0.0 if self.clamped_at is None else self.clamped_at + CLAMP_MOST_S
        errors = max(self.errors_until.values(), default=0.0)
        return max(errors, self.load_until, self.cooldown.until, clamp)

    def _probe_out(self, now: float) -> bool:
        return self.probe_at is not None and now - self.probe_at < PROBE_WINDOW_S

    def _struck(self, shape: int, now: float, window_s: float = STRIKE_WINDOW_S) -> bool:
        recent = [one for one in self.strikes if one.shape == shape and now - one.when <= window_s]
        return len(recent) >= STRIKES

    def _full_in_a_row(self, now: float) -> int:
        count = 0
        for when, full in reversed(self.outcomes):
            if not full or now - when > FULL_WINDOW_S:
                break
            count += 1
        return count
