"""A sentence that grows with each repetition."""

from dataclasses import dataclass


@dataclass(slots=True)
class Hold:
    """Shut until a moment; each trip doubles the time, up to a limit."""

    until: float = 0.0
    trips: int = 0

    def trip(self, now: float, first_s: float, most_s: float) -> None:
        """Shut it; does nothing while it is shut, so that one outage counts once."""
        if self.shut(now):
            return
        self.until = now + min(first_s * 2.0**self.trips, most_s)
        self.trips = min(self.trips + 1, 16)

    def shut(self, now: float) -> bool:
        """Whether it is shut."""
        return self.until > now

    def heal(self, now: float) -> None:
        """Forget the trips after a success; a sentence that runs is served to its end."""
        if not self.shut(now):
            self.trips = 0

    def clear(self) -> None:
        """Open it and forget."""
        self.until, self.trips = 0.0, 0

    def merge(self, other: "Hold") -> None:
        """Take the longer sentence and the higher count of two."""
        self.until = max(self.until, other.until)
        self.trips = max(self.trips, other.trips)
