"""What is simulated: every number of a run in one place."""

from dataclasses import dataclass

from darkbloom_router.model import Selection


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One run; the same scenario gives the same result."""

    providers: int = 1000
    minutes: float = 30.0
    """How long requests arrive; what runs then is let run to its end."""
    churn: float = 0.05
    """Share of the fleet that disconnects per ten minutes."""
    load: float = 0.7
    """Offered output tokens, as a share of what the fleet decodes."""
    seed: int = 7
    builds: int = 1
    zipf: float = 1.0
    shift_minutes: float = 0.0
    """In how long demand moves on from each build to the next; 0 is never."""
    selection: Selection = Selection.COST
    full_scan: bool = False
    """Every decision prices everybody, not a sample."""
    warm_pool: bool = True
    every_beat: bool = False
    """Heartbeats that say nothing new are computed through as well; the result is the same."""

    cold: float = 0.1
    """Share of machines that hold nothing in memory at first."""
    liars: float = 0.02
    """Share of machines that promise four times what they have."""
    sick: float = 0.005
    """Share of machines on which requests often hang."""
    sick_stalls: float = 0.3
    stalls: float = 0.0003
    """Share of requests that hang on a healthy machine."""
    breaks: float = 0.0001
    """Share of requests whose engine fails in the middle of the answer."""
    slow_beats: float = 0.02
    """Share of machines whose heartbeats come late."""
    abrupt: float = 0.7
    """Share of disconnects without a word."""

    burst: float = 1.3
    """Rate in a burst, as a multiple of the mean."""
    burst_share: float = 0.2
    """Share of the time that is burst."""
    accounts: int = 200
    deadline_s: float = 120.0
    """Time to the first content that gateways grant."""

    @property
    def duration_s(self) -> float:
        """How long requests arrive, in seconds."""
        return self.minutes * 60

    @property
    def decided_s(self) -> float:
        """When everybody has been answered or refused: then answers run, and nobody is chosen."""
        return self.duration_s + self.deadline_s
