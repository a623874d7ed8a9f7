"""Choosing one provider: the cheapest of those that pass, near-ties spread (routing sections 5, 6).

A decision asks the groups of one build, prices a sample of who is left, and puts the winner
through the whole chain once more; it debits nothing. Preferences narrow the pool and never empty
it. Randomness comes in as `pick`, so that a choice can be repeated.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from heapq import nsmallest
from itertools import islice

from darkbloom_router import cost as costs
from darkbloom_router.admission import requirement_gb
from darkbloom_router.conditions import View, late, owns, wants
from darkbloom_router.cost import LOAD_SHIFT, LONG_PROMPT_TOKENS, SURPLUS_SHARE, Cost
from darkbloom_router.fleet import Fleet
from darkbloom_router.forecast import Credence, Forecast, credence, forecast
from darkbloom_router.gates import first_gate, group_gate
from darkbloom_router.groups import sample
from darkbloom_router.hints import Hint
from darkbloom_router.model import Demand, Gate, OwnerPolicy, Rules, Selection
from darkbloom_router.provider import Candidate
from darkbloom_router.tally import Tally, agrees, only_sick, tally

ALTERNATES = 8
AUDITED = 256
"""Machines that one audit asks about at most, about 40 µs each."""
Pick = Callable[[int], int]
"""Returns an index below its argument, at random."""


class Path(StrEnum):
    """How a winner came to be; a closed list."""

    NONE = "none"
    UNIQUE_MIN = "unique_min"
    TIE_QUEUE = "tie_queue"
    TIE_PENDING = "tie_pending"
    RANDOM = "random"
    PREFIX_AFFINITY = "prefix_affinity"
    ALTERNATE = "alternate"
    """It was a runner-up of the decision whose winner failed."""
    HEDGE = "hedge"
    """It races as a second offer."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The outcome of one decision; nothing is debited yet."""

    candidate: Candidate | None
    path: Path
    priced: int
    """Candidates that were compared."""
    open: int
    """Candidates in groups that no gate rules out."""
    price_ms: float = 0.0
    hint_ms: float = 0.0
    """Credit that the winner had for a prefix read there."""
    tally: Tally = field(default_factory=Counter)
    """Who failed where; only where nobody won."""
    ranked: tuple[tuple[float, Candidate], ...] = ()
    """Everybody that was compared, with prices."""
    sick: bool = False
    """Nobody healthy was there, so breakers were left open."""

    def alternates(self, most: int = ALTERNATES) -> list[Candidate]:
        """Return who would be next, cheapest first."""
        others = (entry for entry in self.ranked if entry[1] is not self.candidate)
        return [row for _, row in nsmallest(most, others, key=lambda entry: entry[0])]

    def breakdown(self, demand: Demand, now: float, left_ms: float | None) -> tuple[Cost, Forecast]:
        """Return what the winner's prices are made of.

        Raises:
            ValueError: There is no winner.
        """
        if self.candidate is None:
            raise ValueError("nobody was chosen")
        return (
            costs.cost(self.candidate, demand, now),
            forecast(self.candidate, demand, now, left_ms),
        )


def choose(fleet: Fleet, build: str, view: View, pick: Pick, *, hint: Hint | None = None) -> Choice:
    """Return the winner of a decision, or who failed where.

    Args:
        fleet: Who is there.
        build: What is wanted.
        view: The request, the rules and the time.
        pick: Randomness.
        hint: Who read this prompt's beginning last.
    """
    fleet.advance(view.now)
    choice = _decide(fleet, build, view, pick, hint)
    if choice.candidate is not None:
        return choice
    counts, _ = tally(fleet, build, view)
    if only_sick(counts):
        choice = _decide(fleet, build, replace(view, open_sick=True), pick, hint)
        if choice.candidate is not None:
            return replace(choice, sick=True)
    return replace(choice, tally=counts)


def audit(fleet: Fleet, build: str, view: View, turn: int = 0) -> bool:
    """Return whether groups and prepared numbers say of machines what the whole chain says.

    Everything else waits meanwhile, so a large fleet is looked at in parts, one at a time.

    Args:
        fleet: Who is there.
        build: What is wanted.
        view: The request, the rules and the time.
        turn: Which part; as many turns in a row as there are parts look at everybody.
    """
    fleet.advance(view.now)
    parts = max(1, -(-len(fleet) // AUDITED))
    providers = list(islice(fleet.providers.values(), turn % parts, None, parts))
    if not agrees(fleet, build, view, providers):
        return False
    pools, own = _pools(fleet, build, view)
    groups, shown, owned = fleet.index(build).groups, set(map(id, pools)), set(own)
    rows = [row for provider in providers if (row := provider.candidates.get(build)) is not None]
    offered = [
        row for row in rows if row in owned or (row.group and id(groups[row.group]) in shown)
    ]
    found = set(_passing(offered, view))
    return all((row in found) == (first_gate(row, view) is Gate.ELIGIBLE) for row in rows)


def _decide(fleet: Fleet, build: str, view: View, pick: Pick, hint: Hint | None) -> Choice:
    pools, own = _pools(fleet, build, view)
    total = sum(map(len, pools))
    limit = view.rules.sample
    stride = -(-total // limit) if 0 < limit < total else 1
    rows = sample(pools, pick(stride) if stride > 1 else 0, stride)

    hinted = _hinted(fleet, build, hint)
    extra = [row for row in (hinted, *own) if row is not None]
    passing = _passing(_with(rows, extra), view)
    if not passing and stride > 1:
        passing = _passing(_with(sample(pools, 0, 1), extra), view)

    while passing:
        choice = _best(fleet, passing, view, pick, hint, hinted, total)
        winner = choice.candidate
        if winner is None or first_gate(winner, view) is Gate.ELIGIBLE:
            return choice
        # Prepared state was older than the truth: one candidate fewer, and once more.
        passing = [row for row in passing if row is not winner]
    return Choice(None, Path.NONE, 0, total)


def _pools(fleet: Fleet, build: str, view: View) -> tuple[list[list[Candidate]], list[Candidate]]:
    """Return the groups that no gate rules out, and the caller's own machines, which may do more.

    Own machines have passed the whole chain already.
    """
    demand = view.demand
    own = fleet.owned(demand.account_id, build)
    own = [row for row in own if first_gate(row, view) is Gate.ELIGIBLE]
    if demand.policy is OwnerPolicy.EXCLUSIVE:
        return [], own
    floor = max(demand.floor, view.rules.min_trust).value
    wanted = wants(demand)
    pools = [
        members
        for key, members in fleet.index(build).groups.items()
        if group_gate(key, view, floor, wanted) is Gate.ELIGIBLE
    ]
    return pools, own


def _passing(rows: Sequence[Candidate], view: View) -> list[Candidate]:
    """Return who also passes the gates that no group can answer for."""
    tokens, excluded = view.demand.tokens, view.excluded
    passing = [row for row in rows if row.room >= tokens]
    if excluded:
        passing = [row for row in passing if row.provider not in excluded]
    if serials := view.demand.serials:
        passing = [row for row in passing if row.provider.serial in serials]
    if view.rules.ttft_ceiling:
        passing = [row for row in passing if not late(row, view)]
    return passing


def _hinted(fleet: Fleet, build: str, hint: Hint | None) -> Candidate | None:
    holder = fleet.by_identity(hint.identity) if hint else None
    return holder.candidates.get(build) if holder else None


def _with(rows: list[Candidate], extra: list[Candidate]) -> list[Candidate]:
    if not extra:
        return rows
    known = set(map(id, rows))
    return rows + [row for row in extra if id(row) not in known]


def _narrow(fleet: Fleet, pool: list[Candidate], view: View) -> list[Candidate]:
    """Apply preferences, each skipped where it would leave nobody."""
    demand, rules = view.demand, view.rules
    if demand.policy is OwnerPolicy.PREFER:
        pool = [row for row in pool if owns(row, demand)] or pool
    if rules.selection is Selection.FIRST_CONTENT and view.deadline is not None:
        pool = _believed(pool, view)
    if avoided := demand.avoid_version:
        pool = [row for row in pool if row.provider.version != avoided] or pool
    if rules.selection is Selection.FIRST_CONTENT and rules.min_decode_tps > 0:
        pool = [row for row in pool if row.projected_tps >= rules.min_decode_tps] or pool
    if fleet.reserve_gb > 0 and pool:
        needed = requirement_gb(pool[0])
        if needed < fleet.reserve_gb:
            pool = [row for row in pool if row.provider.memory_gb < fleet.reserve_gb] or pool
    return pool


def _believed(pool: list[Candidate], view: View) -> list[Candidate]:
    """Prefer who will be in time by credible evidence, then who is not known to be late."""
    demand, now, left_ms = view.demand, view.now, view.left_ms
    classes: dict[Credence, list[Candidate]] = {}
    for row in pool:
        classes.setdefault(credence(row, demand, now, left_ms), []).append(row)
    for best in (Credence.FEASIBLE, Credence.UNKNOWN, Credence.LATE):
        if found := classes.get(best):
            return found
    return pool


def _prices(pool: Sequence[Candidate], demand: Demand, rules: Rules) -> list[float]:
    prompt, output = demand.prompt_tokens, demand.output_bound
    if rules.selection is not Selection.COST or prompt >= LONG_PROMPT_TOKENS:
        return [row.rank_ms + row.prompt_ms * prompt + row.output_ms * output for row in pool]
    prices = []
    for row in pool:
        price = row.rank_ms + row.prompt_ms * prompt + row.output_ms * output
        surplus, most = row.surplus_ms, price * SURPLUS_SHARE
        prices.append(price + (min(most, surplus)))
    return prices


def _best(
    fleet: Fleet,
    passing: list[Candidate],
    view: View,
    pick: Pick,
    hint: Hint | None,
    hinted: Candidate | None,
    total: int,
) -> Choice:
    rules, count = view.rules, len(passing)
    pool = _narrow(fleet, passing, view)
    prices = _prices(pool, view.demand, rules)
    credit = 0.0
    if hint is not None and hinted in pool:
        place = pool.index(hinted)
        credit = hint.credit_ms(hinted.prompt_ms, prices[place])
        prices[place] -= credit
    ranked = tuple(zip(prices, pool, strict=True))
    least = min(prices)
    limit = least + rules.tie_ms
    ties = [row for price, row in ranked if price <= limit]

    if credit and hinted in ties:
        # A soft hint decides among near-equals; a busy holder has lost by its price already.
        return Choice(hinted, Path.PREFIX_AFFINITY, count, total, least, credit, ranked=ranked)
    if len(ties) == 1:
        return Choice(ties[0], Path.UNIQUE_MIN, count, total, least, ranked=ranked)

    by_cost = rules.selection is Selection.COST
    loads = [row.load if by_cost else row.provider.service_ms for row in ties]
    lightest = min(loads)
    winners = [row for row, load in zip(ties, loads, strict=True) if load == lightest]
    if len(winners) > 1:
        # Among equals, one whose stream is here: another replica's costs a hop each way, and CPU
        # at both for every frame.
        winners = [row for row in winners if not row.provider.remote] or winners
        winner = winners[pick(len(winners))]
        return Choice(winner, Path.RANDOM, count, total, least, ranked=ranked)
    path = Path.TIE_PENDING
    if by_cost:
        queue = winners[0].load >> LOAD_SHIFT
        same = sum(row.load >> LOAD_SHIFT == queue for row in ties)
        path = Path.TIE_PENDING if same > 1 else Path.TIE_QUEUE
    return Choice(winners[0], path, count, total, least, ranked=ranked)
