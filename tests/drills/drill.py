"""What a drill is, and what it says when it ends.

A drill is a module in `tests/drills/plays` with one `DRILL` (or a tuple `DRILLS`):

    async def play(stage: Stage) -> Outcome:
        async with stage.mesh(routers=2) as mesh:
            ...
        return Outcome(recovery_s=1.5, unexpected=found)

    DRILL = Drill(
        name="pod-kill",
        claim="any room may be killed: what had not begun is answered, what had begun is paid",
        runbooks=("room-down",),
        expected="answers that had begun on the killed room break, and are paid for what came",
        play=play,
    )

Modules are found by themselves; nobody has to list them.
"""

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.drills.needs import Need

if TYPE_CHECKING:
    from tests.drills.stage import Stage

NOTHING = "nothing"
"""What `expected` says where nothing may be lost; the runner then holds the drill to it."""
MICROS_PER_CENT = 10_000
_KEBAB = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a drill lost, and how long it took to be well again."""

    recovery_s: float
    """Seconds from the break until everything was as before."""
    lost_requests: int = 0
    """Requests that did not end with a whole answer after all that a good client does by itself."""
    lost_micros: int = 0
    """Micro-USD that anybody has too much or too little of, for ever."""
    unexpected: Sequence[str] = ()
    """Each deviation from what the drill documents, in words."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Further figures, as JSON takes them."""

    @property
    def lost_cents(self) -> int | float:
        """The loss of money in cents; whole where it is whole."""
        whole, rest = divmod(self.lost_micros, MICROS_PER_CENT)
        return whole if rest == 0 else self.lost_micros / MICROS_PER_CENT


@dataclass(frozen=True, kw_only=True)
class Drill:
    """One thing that breaks.

    Raises:
        ValueError: The name is not kebab-case, no runbook is named, or money may be lost where
            nothing may.
    """

    name: str
    """kebab-case."""
    claim: str
    """What holds while it breaks, in one line."""
    runbooks: tuple[str, ...]
    """Runbooks that it exercises: file names in docs/operations/runbooks, without `.md`."""
    play: "Callable[[Stage], Awaitable[Outcome]]"
    """Breaks it, mends it, counts."""
    expected: str = NOTHING
    """What is lost by design, as the runbook says: `nothing`, or the item."""
    allowed_micros: int = 0
    """The most money that the documented loss may cost, in micro-USD."""
    needs: tuple[Need, ...] = ()
    """What the machine must have; where something is missing the drill is skipped by name."""
    light: bool = False
    """Runs within `make check`: takes seconds, and no other test tells the same."""
    limit_s: float = 120.0
    """A drill that takes longer has failed."""

    def __post_init__(self) -> None:
        if not _KEBAB.fullmatch(self.name):
            raise ValueError(f"{self.name!r} is not kebab-case")
        if not self.runbooks:
            raise ValueError(f"{self.name} names no runbook")
        if self.allowed_micros and self.expected == NOTHING:
            raise ValueError(f"{self.name} documents no loss that could cost money")

    def missing(self) -> str:
        """Return what the machine lacks for it; empty where nothing."""
        return "; ".join(filter(None, (need.missing() for need in self.needs)))

    def judged(self, outcome: Outcome) -> list[str]:
        """Return what is unexpected: what the play said, and any loss that is not allowed."""
        found = list(outcome.unexpected)
        if self.expected == NOTHING and outcome.lost_requests:
            found.append(f"{outcome.lost_requests} requests lost")
        if outcome.lost_micros > self.allowed_micros:
            found.append(f"{outcome.lost_cents} cents lost")
        return found

    def result(self, outcome: Outcome) -> dict[str, Any]:
        """Return the drill's part of the last line."""
        return {
            "lost_requests": outcome.lost_requests,
            "lost_cents": outcome.lost_cents,
            "recovery_s": round(outcome.recovery_s, 2),
            "expected": self.expected,
            "unexpected": self.judged(outcome),
            **({"facts": dict(outcome.facts)} if outcome.facts else {}),
        }
