"""What is told of machines and builds."""

from darkbloom_router.holdings import Held, count
from darkbloom_router.model import Build, Catalog, SlotState

from tests.unit.router.fleets import BUILD, HASH, capacity, fleet, provider
