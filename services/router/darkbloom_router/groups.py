"""Candidates of one build, in groups that share everything a request can be refused for as a whole.

A gate that looks at a provider's state is judged when that state changes, and its verdict is part
of the key of the group in which the candidate stands. So a decision asks each gate once per group,
not once per provider, and a tally is a sum over groups.
"""

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, NamedTuple

from darkbloom_router.model import Gate, TrustLevel

if TYPE_CHECKING:
    from darkbloom_router.provider import Candidate


_TRANSIENT = frozenset(
    gate.value
    for gate in (Gate.CAPACITY_COOLDOWN, Gate.OFFLINE, Gate.NO_HEADROOM, Gate.FREE_MEMORY)
)
"""With one of these somewhere, breakers are not left open."""
_TOP = TrustLevel.HARDWARE.value


class GroupKey(NamedTuple):
    """What all members of a group have in common."""

    gate: int
    """First gate that state alone shuts; 0 is none."""
    gate_sick: int
    """The same with breaker and ejection left out."""
    level: int
    """Trust level as the floor sees it."""
    owner_only: bool
    lacks: int
    """Abilities that are missing, as `Lack` bits."""
    cooling: int
    """Request shapes whose breaker is open, one bit each."""


class BuildIndex:
    """The groups of one build; every candidate stands in exactly one."""

    def __init__(self) -> None:
        self.groups: dict[GroupKey, list[Candidate]] = {}
        self.size = 0
        self.active = 0
        """Attempts that run, over all candidates."""

    def __iter__(self) -> Iterator["Candidate"]:
        """Yield every candidate."""
        for members in self.groups.values():
            yield from members

    def roomiest(self, wanted: Collection[int] = (0,), level: int = 0) -> float:
        """Return the most tokens that a stranger still gets; below 0 where he gets nothing.

        Machines behind a breaker count where nobody is merely full: then they are asked after all.

        Args:
            wanted: Abilities of those who ask, as sets of `Lack` bits.
            level: Least trust level that any of them takes.
        """
        groups = {
            key: rows
            for key, rows in self.groups.items()
            if not key.owner_only
            and key.level >= level
            and any(not key.cooling >> want & 1 and not key.lacks & want for want in wanted)
        }
        merely_full = any(key.gate in _TRANSIENT and key.level == _TOP for key in groups)
        return max(
            (
                row.room
                for key, rows in groups.items()
                if not (key.gate if merely_full else key.gate_sick)
                for row in rows
            ),
            default=-1.0,
        )

    def place(self, candidate: "Candidate", key: GroupKey) -> None:
        """Put a candidate into its group; from another one, in constant time."""
        if candidate.group == key:
            return
        self.remove(candidate)
        members = self.groups.setdefault(key, [])
        candidate.group, candidate.row = key, len(members)
        members.append(candidate)
        self.size += 1

    def remove(self, candidate: "Candidate") -> None:
        """Take a candidate out: the last of its group takes its place."""
        key = candidate.group
        if key is None:
            return
        members = self.groups[key]
        last = members.pop()
        if last is not candidate:
            members[candidate.row] = last
            last.row = candidate.row
        if not members:
            del self.groups[key]
        candidate.group, candidate.row = None, -1
        self.size -= 1


def sample(pools: list[list["Candidate"]], offset: int, stride: int) -> list["Candidate"]:
    """Return every `stride`-th candidate of the pools laid end to end, from an offset.

    With a random offset every candidate is as likely as any other, for one draw.
    """
    found: list[Candidate] = []
    for pool in pools:
        found += pool[offset::stride]
        offset = (offset - len(pool)) % stride
    return found
