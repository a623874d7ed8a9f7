"""Which builds a machine holds in memory, and who makes room for another one."""

from dataclasses import dataclass, field

from darkbloom_router.simulate import hardware
from darkbloom_router.simulate.body import Body
from darkbloom_router.simulate.engine import Row
from darkbloom_router.simulate.hardware import Product

_LONG_AGO = -1e12


@dataclass(slots=True, eq=False)
class Resident:
    """A build in memory."""

    product: Product
    solo_tps: float
    budget: int
    used: int = 0
    rows: int = 0
    loaded: bool = True
    touched_at: float = 0.0
    stepped_at: float = _LONG_AGO
    measured_tps: float = 0.0
    waits: list[Row] = field(default_factory=list)
    """Rows that came before the weights."""


class Memory:
    """The builds that one machine holds.

    Args:
        body: The machine.
    """

    def __init__(self, body: Body) -> None:
        self.residents: dict[str, Resident] = {}
        self._body = body

    def clear(self) -> None:
        """Lose everything."""
        self.residents.clear()

    def find(self, build: str) -> Resident | None:
        """Return a build that is here, loaded or on its way."""
        return self.residents.get(build)

    def settle_in(self, product: Product, now: float, *, loaded: bool = True) -> Resident:
        """Hold a build from now on."""
        weights = product.weights
        resident = self.residents[product.build.build] = Resident(
            product=product,
            solo_tps=hardware.solo_tps(self._body.chip, weights),
            budget=hardware.budget_tokens(self._body.memory_gb, weights),
            loaded=loaded,
            touched_at=now,
        )
        return resident

    def begin(self, build: str, now: float) -> Resident | None:
        """Make room for a build of the disk, idle ones go first; None where there is none."""
        product = next((one for one in self._body.products if one.build.build == build), None)
        if product is None:
            return None
        usable_gb = self._body.memory_gb * hardware.USABLE
        held = sorted(self.residents.values(), key=lambda one: one.touched_at)
        free_gb = usable_gb - sum(one.product.weights.size_gb for one in held)
        for one in held:
            if free_gb >= product.weights.size_gb:
                break
            if not one.rows and one.loaded:
                free_gb += one.product.weights.size_gb
                del self.residents[one.product.build.build]
        if free_gb < product.weights.size_gb:
            return None
        return self.settle_in(product, now, loaded=False)
