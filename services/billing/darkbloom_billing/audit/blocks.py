"""Recomputes the sealed chain from the events themselves."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from darkbloom_billing.audit.report import Violation
from darkbloom_billing.books.seal import GENESIS, Chain, events_between
from darkbloom_billing.store.database import Connection

_NONE: Mapping[int, str] = MappingProxyType({})
_BLOCKS = "SELECT * FROM ledger.block WHERE height >= $1 ORDER BY height"


@dataclass(slots=True)
class Sealed:
    """What is wrong with the chain, and how high it is."""

    violations: list[Violation] = field(default_factory=list)
    height: int = 0

    def blame(self, check: str, what: str) -> None:
        """Note a violation."""
        self.violations.append(Violation(check=check, what=what))


async def check_blocks(
    connection: Connection, *, after: int = 0, exported: Mapping[int, str] = _NONE
) -> Sealed:
    """Recompute the blocks above a height; compare them with exported heads, where there are any.

    `block_broken`: the chain itself; `block_events`: an event in it was changed, removed or slipped
    in; `block_not_exported`: an exported head says otherwise.
    """
    sealed = Sealed(height=after)
    previous, last = GENESIS, 0
    for row in await connection.fetch(_BLOCKS, after):
        if row["height"] == after:
            previous, last = row["hash"], row["last_event"]
            continue
        name = f"block {row['height']}"
        if row["height"] != sealed.height + 1 or row["previous"] != previous:
            sealed.blame("block_broken", name)
        chain = Chain(row["previous"])
        async for event in events_between(connection, last, row["last_event"]):
            chain.add(event)
        if (chain.first, chain.last, chain.events, chain.hash) != (
            row["first_event"],
            row["last_event"],
            row["events"],
            row["hash"],
        ):
            sealed.blame("block_events", name)
        sealed.height, previous, last = row["height"], row["hash"], row["last_event"]
    await _check_exports(connection, exported, sealed)
    return sealed


async def _check_exports(
    connection: Connection, exported: Mapping[int, str], sealed: Sealed
) -> None:
    for height, told in exported.items():
        stored = await connection.fetchval(
            "SELECT encode(hash, 'hex') FROM ledger.block WHERE height = $1", height
        )
        if stored != told:
            sealed.blame("block_not_exported", f"block {height}")
