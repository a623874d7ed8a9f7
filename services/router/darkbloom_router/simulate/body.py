"""What a machine is, whatever it says of itself."""

from dataclasses import dataclass

from darkbloom_router.simulate import hardware
from darkbloom_router.simulate.hardware import Chip, Product


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """One machine: its parts, its disk, its network and its character."""

    name: str
    chip: Chip
    memory_gb: int
    products: tuple[Product, ...]
    """Builds on its disk, its first one first."""
    net_s: float
    """To the router, one way."""
    lies: bool
    sick: bool
    slow_beats: bool

    @property
    def rows(self) -> int:
        """Rows that the engine takes at once."""
        return hardware.engine_rows(self.memory_gb)

    @property
    def capacity_tps(self) -> float:
        """Output tokens per second of its first build at a fair pace."""
        solo = hardware.solo_tps(self.chip, self.products[0].weights)
        return hardware.decode_capacity(solo, self.rows)
