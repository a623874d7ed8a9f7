"""One place that was taken on a machine, and how it is given back exactly once."""

from dataclasses import dataclass

from darkbloom_router.cost import service_ms
from darkbloom_router.provider import Candidate


@dataclass(slots=True, eq=False)
class Reservation:
    """A debit of `fleet.Fleet`; `ended` once it was credited.

    Invariant: what was added to the machine's books is what `credit` takes off, whatever the
    machine reported in between.
    """

    candidate: Candidate
    tokens: int
    prompt_tokens: int = 0
    """Prompt that nobody has read yet; 0 from the first content on."""
    reading_ms: float = 0.0
    writing_ms: float = 0.0
    ended: bool = False
    counted: bool = False
    """Whether the index of its build counts it among the running ones."""
    started: bool = False
    """Whether it is in use: before that, a lease may end it."""
    expires_at: float = float("inf")

    @property
    def service_ms(self) -> float:
        """Work that is still promised."""
        return self.reading_ms + self.writing_ms

    def price(self) -> None:
        """Fix the work that this place stands for."""
        prompt = self.prompt_tokens
        output = max(0, self.tokens - prompt)
        self.reading_ms, self.writing_ms = service_ms(self.candidate, prompt, output)
