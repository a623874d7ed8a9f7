"""Who fails where: every provider of the fleet under exactly one reason (routing section 2).

`tally` sums groups and looks only at candidates that no group rules out; `tally_each` asks the
whole chain of everybody. They agree, of which `agrees` makes sure now and then.
"""

from collections import Counter
from collections.abc import Iterable

from darkbloom_router.conditions import View, owned, wants
from darkbloom_router.fleet import Fleet
from darkbloom_router.gates import KINDS, SICK, Kind, first_gate, group_gate
from darkbloom_router.model import Gate, OwnerPolicy
from darkbloom_router.provider import Candidate, Provider

Tally = Counter[Gate]

_TRANSIENT = frozenset({Kind.CAPACITY, Kind.DEADLINE})


def tally(fleet: Fleet, build: str, view: View) -> tuple[Tally, int]:
    """Count every provider under the first gate that it fails; also return how many pass."""
    demand, index = view.demand, fleet.index(build)
    found: Tally = Counter()
    apart = _looked_at_alone(fleet, build, view)
    if demand.policy is OwnerPolicy.EXCLUSIVE:
        # Strangers' machines are out before anything else is asked.
        own = fleet.machines_of(demand.account_id)
        apart = []
        found[Gate.ALLOWLIST] += len(fleet) - len(own)
        for provider in own:
            found[gate_of(provider, build, view)] += 1
    elif demand.serials:
        return tally_each(fleet, build, view)
    else:
        _count_groups(found, fleet, build, view, apart)
        unlisted = [item for item in view.excluded if isinstance(item, Provider)]
        unlisted = [item for item in unlisted if item.connected and build not in item.candidates]
        found[Gate.EXCLUDED] += len(unlisted)
        found[Gate.NOT_SERVING_MODEL] += len(fleet) - index.size - len(unlisted)
    for row in apart:
        found[first_gate(row, view)] += 1
    passing = found.pop(Gate.ELIGIBLE, 0)
    return +found, passing


def tally_each(fleet: Fleet, build: str, view: View) -> tuple[Tally, int]:
    """Count the same by asking the whole chain of every provider."""
    found: Tally = Counter()
    for provider in fleet.providers.values():
        found[gate_of(provider, build, view)] += 1
    passing = found.pop(Gate.ELIGIBLE, 0)
    return found, passing


def gate_of(provider: Provider, build: str, view: View) -> Gate:
    """Return the first gate that one provider fails, whether it lists the build or not."""
    candidate = provider.candidates.get(build)
    if candidate is not None:
        return first_gate(candidate, view)
    demand = view.demand
    if demand.policy is OwnerPolicy.EXCLUSIVE and not owned(provider, demand):
        return Gate.ALLOWLIST
    if demand.serials and provider.serial not in demand.serials:
        return Gate.ALLOWLIST
    return Gate.EXCLUDED if provider in view.excluded else Gate.NOT_SERVING_MODEL


def agrees(fleet: Fleet, build: str, view: View, providers: Iterable[Provider]) -> bool:
    """Return whether both say the same of each of these providers, and each stands in its place."""
    demand, groups = view.demand, fleet.index(build).groups
    floor = max(demand.floor, view.rules.min_trust).value
    wanted = wants(demand)
    alone = set(_looked_at_alone(fleet, build, view))
    spoken_for = demand.policy is not OwnerPolicy.EXCLUSIVE and not demand.serials
    for provider in providers:
        row = provider.candidates.get(build)
        if row is None or row.group is None:
            continue
        if groups[row.group][row.row] is not row:
            return False
        if not spoken_for or row in alone:
            continue
        said = group_gate(row.group, view, floor, wanted)
        if said is not Gate.ELIGIBLE and said is not first_gate(row, view):
            return False
    return True


def only_sick(counts: Tally) -> bool:
    """Return whether breakers and ejections alone stand in the way: then they are left open."""
    transient = any(
        KINDS[gate] in _TRANSIENT or gate is Gate.OFFLINE for gate, count in counts.items() if count
    )
    return not transient and any(counts[gate] for gate in SICK)


def _count_groups(
    found: Tally, fleet: Fleet, build: str, view: View, apart: list[Candidate]
) -> None:
    """Add what the groups say of everybody but those who are looked at alone."""
    demand = view.demand
    floor = max(demand.floor, view.rules.min_trust).value
    wanted = wants(demand)
    alone = {id(row) for row in apart}
    for key, members in fleet.index(build).groups.items():
        gate = group_gate(key, view, floor, wanted)
        if gate is Gate.ELIGIBLE:
            for row in members:
                if id(row) not in alone:
                    found[first_gate(row, view)] += 1
        else:
            found[gate] += len(members) - sum(row.group == key for row in apart)


def _looked_at_alone(fleet: Fleet, build: str, view: View) -> list[Candidate]:
    """Return the candidates that their group does not speak for: the caller's own, the excluded."""
    rows = {id(row): row for row in fleet.owned(view.demand.account_id, build)}
    for provider in view.excluded:
        if isinstance(provider, Provider) and (row := provider.candidates.get(build)):
            rows[id(row)] = row
    return [row for row in rows.values() if row.group is not None]
