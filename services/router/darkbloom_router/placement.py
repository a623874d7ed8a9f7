"""Choosing one provider: the cheapest of those that pass, near-ties spread (routing section 5).

A scan reads prepared candidates only and debits nothing. Preferences narrow the pool and never
empty it. Randomness comes in as `pick`, so that a choice can be repeated.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from darkbloom_router.cost import LOAD_SHIFT
from darkbloom_router.gates import View, first_gate, floor_of, owned, owns, wants
from darkbloom_router.model import Demand, Gate, OwnerPolicy, Rules
from darkbloom_router.provider import Candidate, Provider


class Path(StrEnum):
    """How a winner came to be; a closed list."""

    NONE = "none"
    UNIQUE_MIN = "unique_min"
    TIE_QUEUE = "tie_queue"
    TIE_PENDING = "tie_pending"
    RANDOM = "random"


@dataclass(frozen=True, slots=True)
class Choice:
    """The outcome of one scan; nothing is debited yet."""

    candidate: Candidate | None
    path: Path
    eligible: int
    """Candidates that passed every gate."""
    cost_ms: float


NOBODY = Choice(None, Path.NONE, 0, 0.0)


def eligible(rows: Iterable[Candidate], view: View) -> list[Candidate]:
    """Return the candidates that pass every gate, by their prepared state."""
    demand, now = view.demand, view.now
    tokens, wanted = demand.tokens, wants(demand)
    excluded = view.excluded
    floor = max(demand.floor, view.rules.min_trust)
    exclusive = demand.policy is OwnerPolicy.EXCLUSIVE

    passing = []
    for row in rows:
        if row.shut or row.trusted_until <= now or row.room < tokens or row.lacks & wanted:
            continue
        if excluded and row.provider in excluded:
            continue
        if row.owner_only or exclusive or row.effective_level < floor:
            if (row.owner_only or exclusive) and not owns(row, demand):
                continue
            if row.effective_level < floor_of(row, view):
                continue
        passing.append(row)
    return passing


def choose(rows: Iterable[Candidate], view: View, pick: Callable[[int], int]) -> Choice:
    """Return the winner of a scan.

    Args:
        rows: Candidates of one build.
        view: The request, the rules and the time.
        pick: Returns an index below its argument, at random.
    """
    pool = eligible(rows, view)
    count = len(pool)
    while pool:
        choice = _cheapest(_narrow(pool, view.demand), view.demand, view.rules, pick, count)
        winner = choice.candidate
        if winner is None or first_gate(winner, view) is Gate.ELIGIBLE:
            return choice
        # Prepared state was older than the truth: one candidate fewer, and once more.
        pool = [row for row in pool if row is not winner]
        count -= 1
    return NOBODY


def tally(providers: Iterable[Provider], build: str, view: View) -> tuple[Counter[Gate], int]:
    """Count every provider under the first gate that it fails; also return how many pass."""
    found: Counter[Gate] = Counter()
    for provider in providers:
        found[_gate_of(provider, build, view)] += 1
    passing = found.pop(Gate.ELIGIBLE, 0)
    return found, passing


def _gate_of(provider: Provider, build: str, view: View) -> Gate:
    candidate = provider.candidates.get(build)
    if candidate is not None:
        return first_gate(candidate, view)
    demand = view.demand
    if demand.policy is OwnerPolicy.EXCLUSIVE and not owned(provider, demand):
        return Gate.ALLOWLIST
    return Gate.EXCLUDED if provider in view.excluded else Gate.NOT_SERVING_MODEL


def _narrow(pool: Sequence[Candidate], demand: Demand) -> Sequence[Candidate]:
    """Apply preferences, each skipped where it would leave nobody."""
    if demand.policy is OwnerPolicy.PREFER:
        pool = [row for row in pool if owns(row, demand)] or pool
    if avoided := demand.avoid_version:
        pool = [row for row in pool if row.provider.version != avoided] or pool
    return pool


def _cheapest(
    pool: Sequence[Candidate],
    demand: Demand,
    rules: Rules,
    pick: Callable[[int], int],
    count: int,
) -> Choice:
    prompt, output = demand.prompt_tokens, demand.output_bound
    costs = [row.fixed_ms + row.prompt_ms * prompt + row.output_ms * output for row in pool]
    least = min(costs)
    limit = least + rules.near_tie_ms
    ties = [row for row, cost in zip(pool, costs, strict=True) if cost <= limit]

    if len(ties) == 1:
        return Choice(ties[0], Path.UNIQUE_MIN, count, least)

    loads = [row.load for row in ties]
    lightest = min(loads)
    winners = [row for row, load in zip(ties, loads, strict=True) if load == lightest]
    if len(winners) > 1:
        return Choice(winners[pick(len(winners))], Path.RANDOM, count, least)
    queue = lightest >> LOAD_SHIFT
    same = sum(load >> LOAD_SHIFT == queue for load in loads)
    return Choice(winners[0], Path.TIE_PENDING if same > 1 else Path.TIE_QUEUE, count, least)
