"""What is left of a decision when its winner has failed: the runners-up, looked at again.

A retry asks them before it looks at the whole fleet again: a storm of failures must not become a
storm of scans. Nobody is taken as he was: each passes the whole chain once more.
"""

from collections.abc import Callable
from dataclasses import replace

from darkbloom_router.conditions import View
from darkbloom_router.forecast import Credence, credence
from darkbloom_router.gates import first_gate
from darkbloom_router.model import Gate
from darkbloom_router.placement import Choice, Path
from darkbloom_router.provider import Candidate


class Plan:
    """The alternates of one decision, cheapest first; each is asked once.

    Args:
        choice: The decision. Its alternates are sorted out only if they are ever needed.
    """

    __slots__ = ("_choice", "_left")

    def __init__(self, choice: Choice) -> None:
        self._choice = choice
        self._left: list[Candidate] | None = None

    def take(self, view: View, wanted: Callable[[Candidate], bool]) -> Choice | None:
        """Return the next one who passes, or None: then the fleet is to be asked.

        Args:
            view: The request as it stands now.
            wanted: Whether a candidate may be taken at all; who may not keeps his place.
        """
        if self._left is None:
            self._left = self._choice.alternates()
        for row in list(self._left):
            if not wanted(row):
                continue
            self._left.remove(row)
            if first_gate(row, view) is Gate.ELIGIBLE:
                return replace(self._choice, candidate=row, path=Path.ALTERNATE, hint_ms=0.0)
        return None


def feasible_only(choice: Choice, view: View) -> Choice:
    """Return the cheapest whose forecast is believed to be in time; nobody where there is none.

    After two machines have said that the deadline cannot be met, a third needs evidence.
    """
    rows = sorted(choice.ranked, key=lambda entry: entry[0])
    for price, row in rows:
        in_time = credence(row, view.demand, view.now, view.left_ms) is Credence.FEASIBLE
        if in_time and first_gate(row, view) is Gate.ELIGIBLE:
            return replace(choice, candidate=row, price_ms=price, hint_ms=0.0)
    return replace(choice, candidate=None, path=Path.NONE)
