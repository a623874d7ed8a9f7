"""Choosing models: which there are, which fit, and what a choice takes of the memory."""

from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from darkbloom_edge.memory import (
    ACTIVATION_RESERVE_BYTES,
    MINIMUM_KV_BYTES,
    Memory,
    free_for_load,
    min_ram_gb,
    resident_bytes,
)

GIB = 1 << 30


@dataclass(frozen=True, kw_only=True, slots=True)
class Offer:
    """One model that could be served."""

    id: str
    size_bytes: int
    here: bool
    """In the store already."""

    @property
    def needs_gb(self) -> int:
        """Smallest machine that holds it alone, in GiB."""
        return min_ram_gb(self.size_bytes)


@dataclass(frozen=True, kw_only=True, slots=True)
class Shelf:
    """What is offered on a machine of so much memory."""

    offers: tuple[Offer, ...]
    physical_bytes: int
    reserve_bytes: int

    @property
    def usable_bytes(self) -> int:
        """What models and their requests may use together."""
        total = self.physical_bytes
        return free_for_load(Memory(physical=total, available=total, reserve=self.reserve_bytes))

    def needs_bytes(self, chosen: AbstractSet[str]) -> int:
        """Return what a choice takes with all of it loaded; nothing for none."""
        sizes = [resident_bytes(one.size_bytes) for one in self.offers if one.id in chosen]
        return sum(sizes) + ACTIVATION_RESERVE_BYTES + MINIMUM_KV_BYTES if sizes else 0


def make_shelf(
    stored: Iterable[tuple[str, int]],
    catalog: Iterable[tuple[str, int]],
    *,
    physical_bytes: int,
    reserve_bytes: int,
) -> Shelf:
    """Offer what is here and what the catalog has, if it fits alone: downloaded ones first.

    Args:
        stored: (id, size in bytes) in the store.
        catalog: the same of the network's catalog.
        physical_bytes: memory of the machine.
        reserve_bytes: what its owner keeps for himself.
    """
    here = dict(stored)
    found = {name: Offer(id=name, size_bytes=size, here=True) for name, size in here.items()}
    for name, size in catalog:
        found.setdefault(name, Offer(id=name, size_bytes=size, here=False))
    everything = Shelf(
        offers=tuple(found.values()), physical_bytes=physical_bytes, reserve_bytes=reserve_bytes
    )
    fitting = [
        one for one in found.values() if everything.needs_bytes({one.id}) <= everything.usable_bytes
    ]
    fitting.sort(key=lambda one: (not one.here, one.size_bytes, one.id))
    return Shelf(offers=tuple(fitting), physical_bytes=physical_bytes, reserve_bytes=reserve_bytes)


def switched(shelf: Shelf, chosen: frozenset[str], typed: str) -> frozenset[str]:
    """Return the choice after what was typed: numbers switch, `a` takes all, `n` none.

    Raises:
        ValueError: something else was typed; the text says what is wanted.
    """
    ids = [one.id for one in shelf.offers]
    for word in typed.replace(",", " ").split():
        if word.lower() == "a":
            chosen = frozenset(ids)
        elif word.lower() == "n":
            chosen = frozenset()
        elif word.isdecimal() and 0 < int(word) <= len(ids):
            chosen ^= {ids[int(word) - 1]}
        else:
            raise ValueError(f"type numbers from 1 to {len(ids)}, `a` for all or `n` for none")
    return chosen
