"""Who waits for a place: one bounded line per build, fair between accounts.

Each waiter gets a tag when he joins: the line's present tag, or the last one of his account, plus
what he asks for. Tags are served in order, so an account that asks for much waits behind others
and nobody waits for ever; one account alone is served first come, first served. A full line gives
up whoever would be served last, which need not be whoever comes last.
"""

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from math import ceil
from operator import itemgetter
from typing import Generic, TypeVar

WaiterT = TypeVar("WaiterT")
ACCOUNT_SHARE = 0.25


@dataclass(slots=True)
class _Line(Generic[WaiterT]):
    order: list[tuple[float, int]] = field(default_factory=list)
    """Tag and number of each waiter, sorted."""
    places: dict[WaiterT, tuple[float, int, str, float, float]] = field(default_factory=dict)
    """Tag, number, account, time of joining and work, by waiter, in order of arrival."""
    waiters: dict[int, WaiterT] = field(default_factory=dict)
    accounts: Counter[str] = field(default_factory=Counter)
    last_tags: dict[str, float] = field(default_factory=dict)
    tag: float = 0.0

    def next_tag(self, account: str, work: float) -> float:
        """Return the tag of somebody who joins now."""
        return max(self.tag, self.last_tags.get(account, 0.0)) + work


class Waiting(Generic[WaiterT]):
    """Lines of requests, each at most `depth` long unless said otherwise.

    A waiter stands in one line once.
    """

    def __init__(self, depth: int) -> None:
        self._depth = depth
        self._numbers = count()
        self._lines: dict[str, _Line[WaiterT]] = {}

    def join(
        self,
        build: str,
        waiter: WaiterT,
        now: float,
        account: str = "",
        work: float = 1.0,
        depth: int = 0,
    ) -> bool:
        """Stand in line; False where it is full, or the account's quarter of it is.

        Args:
            build: Which line.
            waiter: Who.
            now: Monotonic seconds.
            account: Who pays.
            work: What is asked for, divided by the account's weight.
            depth: Length of this line now; 0 is the usual one.
        """
        line = self._lines.setdefault(build, _Line())
        most = depth or self._depth
        share = share_of(most)
        if len(line.places) >= most or line.accounts[account] >= share:
            if not line.places:
                del self._lines[build]
            return False
        number = next(self._numbers)
        work = max(work, 0.0)
        tag = line.next_tag(account, work)
        line.last_tags[account] = tag
        line.accounts[account] += 1
        line.places[waiter] = (tag, number, account, now, work)
        line.waiters[number] = waiter
        insort(line.order, (tag, number))
        return True

    def leave(self, build: str, waiter: WaiterT, *, served: bool = False) -> bool:
        """Step out, from wherever in the line; False where the waiter was not in it."""
        line = self._lines.get(build)
        place = line.places.pop(waiter, None) if line else None
        if line is None or place is None:
            return False
        tag, number, account, _, work = place
        del line.order[bisect_left(line.order, (tag, number))]
        del line.waiters[number]
        line.accounts[account] -= 1
        if served:
            line.tag = max(line.tag, tag)
        elif line.last_tags.get(account) == tag:
            # He has cost the line nothing, so his account is not charged.
            line.last_tags[account] = tag - work
        if not line.accounts[account]:
            del line.accounts[account]
            if line.last_tags.get(account, 0.0) <= line.tag:
                line.last_tags.pop(account, None)
        if not line.places:
            del self._lines[build]
        return True

    def last(self, build: str, account: str, work: float, share: int) -> WaiterT | None:
        """Return who is to make room for a newcomer: who would be served after him, last of all.

        Args:
            build: Which line.
            account: Of the newcomer.
            work: What he asks for.
            share: Places that one account may have.
        """
        line = self._lines.get(build)
        if line is None or line.accounts[account] >= share:
            return None
        tag, number = line.order[-1]
        return line.waiters[number] if line.next_tag(account, max(work, 0.0)) < tag else None

    def depth(self, build: str) -> int:
        """Return how many wait for a build."""
        line = self._lines.get(build)
        return len(line.places) if line else 0

    def waits(self, build: str, account: str) -> bool:
        """Return whether an account waits for a build."""
        line = self._lines.get(build)
        return line is not None and account in line.accounts

    def oldest_age_s(self, build: str, now: float) -> float:
        """Return for how long the one who came first has waited, in seconds."""
        line = self._lines.get(build)
        return now - next(iter(line.places.values()))[3] if line else 0.0

    def first(self, build: str, owner: str = "") -> Iterator[WaiterT]:
        """Yield the waiters of a build in the order in which to serve them, as they were at first.

        Who left since is passed over. Few are looked at, however many wait.

        Args:
            build: Which line.
            owner: Account whose machine has come free: its own waiters go first.
        """
        line = self._lines.get(build)
        if line is None:
            return
        if owner and owner in line.accounts:
            yield from self.line(build, owner)
            return
        for _, number in list(line.order):
            waiter = line.waiters.get(number)
            if waiter is not None:
                yield waiter

    def line(self, build: str, owner: str = "") -> list[WaiterT]:
        """Return the waiters of a build in the order in which to serve them.

        Args:
            build: Which line.
            owner: Account whose machine has come free: its own waiters go first.
        """
        line = self._lines.get(build)
        if line is None:
            return []
        waiters = list(map(line.waiters.__getitem__, map(itemgetter(1), line.order)))
        if owner and owner in line.accounts:
            waiters.sort(key=lambda waiter: line.places[waiter][2] != owner)
        return waiters

    def builds(self) -> Iterator[str]:
        """Yield the builds that somebody waits for."""
        return iter(list(self._lines))


def share_of(depth: int) -> int:
    """Return how many places of a line one account may have."""
    return max(1, ceil(depth * ACCOUNT_SHARE))
