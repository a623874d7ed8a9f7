"""What is kept of an attempt and of a refusal: counts, times and closed words."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptRow:
    """One attempt: how its provider was chosen, how far it came, how it ended.

    Each piece of evidence is its own: none implies that anything was delivered.
    """

    attempt_id: str
    request_id: str
    number: int
    build: str
    provider_id: str
    hedge: bool
    remote: bool
    """Another replica holds the provider's stream."""
    path: str
    candidates: int
    price_ms: float
    runner_up: str
    """Provider that was next; empty where there was none."""
    runner_up_ms: float | None
    breakdown: Mapping[str, float]
    """Milliseconds by cause; they sum to the cost."""
    outcome: str
    write_submitted: bool
    write_completed: bool
    provider_accepted: bool
    provider_complete_observed: bool
    queue_ms: int
    first_content_ms: int | None
    duration_ms: int
    end_unix: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusalRow:
    """One request that nobody served."""

    request_id: str
    build: str
    http_status: int
    reason: str
    attempts: int
    gates: Mapping[str, int]
    """How many providers each gate took out."""
    could_have_served: bool | None
    """Whether somebody would have, but for room or time; None where nobody looked."""
    waited_ms: int
    end_unix: float


Row = AttemptRow | RefusalRow
