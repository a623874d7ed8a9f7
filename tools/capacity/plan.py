"""Pods, stores and cost of a mesh of one size."""

from dataclasses import dataclass
from math import ceil

from tools.capacity.figures import (
    DAYS_A_MONTH,
    GIB,
    HOURS_A_MONTH,
    ROOMS,
    Decided,
    Measured,
    Prices,
)

LOAD = 0.7
"""Offered tokens over decode capacity in the simulator's runs that the figures come from."""
_SECONDS_A_DAY = 86_400
_SYSTEM_GIB = 10.0
_LEAST_CORES = 2
_GIB_A_CORE = 2
_VALKEY_CORES = 0.5
_LEAST_VALKEY_GIB = 0.5


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a mesh asks for; everything of all its cells."""

    providers: int
    """Machines connected."""
    requests: float
    """Requests a second."""
    cells: int
    """Meshes that share the fleet."""
    pods: dict[str, int]
    """Replicas of each room."""
    mirrors: float
    """Share of a core that each router spends on hearing and telling of mirrored providers."""
    mirror_mib: float
    """Memory of the mirrors at each router."""
    told: float
    """What each router hears a second."""
    instances: int
    """PostgreSQL servers."""
    postgres_cores: int
    """Cores of each of them."""
    postgres_gib: int
    """Memory of each of them."""
    wal_mib: float
    """Written ahead a second."""
    growth_gib: float
    """By which history grows in a month, once."""
    disk_gib: float
    """Storage that PostgreSQL needs once, for the months that are kept."""
    valkey_gib: float
    """Memory of Valkey."""
    egress_gib: float
    """To consumers and providers in a month."""

    @property
    def cores(self) -> float:
        """Cores that rooms ask for."""
        return sum(ROOMS[room].cores * count for room, count in self.pods.items())

    @property
    def gib(self) -> float:
        """Memory that rooms ask for."""
        return sum(ROOMS[room].gib * count for room, count in self.pods.items())


@dataclass(frozen=True, kw_only=True)
class Routers:
    """The routers of one cell."""

    count: int
    told: float
    """What each of them hears a second."""
    mirrors: float
    """Share of a core that hearing and telling costs each of them."""


def routers(members: float, asked: float, measured: Measured, decided: Decided) -> Routers | None:
    """Return how many routers a cell needs; None where no number that is allowed suffices.

    What requests cost is shared among routers. What mirrors cost is not: each hears of every
    change of every provider that another one holds.

    Args:
        members: Providers of the cell.
        asked: Requests a second of one provider.
        measured: What things cost.
        decided: What `deploy/` sets.
    """
    a_request = measured.router_ms / 1e3 + measured.output_tokens * measured.router_chunk_us / 1e6
    shared = members * (asked * a_request + measured.router_rest_cores)
    changes = members * (measured.told_rest + asked * measured.told_a_request)
    least = max(decided.least, ceil(members / decided.providers_of_a_router))
    for count in range(least, decided.routers + 1):
        told = changes * (count - 1) / count
        mirrors = told * (measured.tell_us + measured.hear_us) / 1e6
        if shared / count + mirrors <= ROOMS["router"].cores * decided.busy:
            return Routers(count=count, told=told, mirrors=mirrors)
    return None


def split(
    providers: int, asked: float, measured: Measured, decided: Decided
) -> tuple[int, Routers]:
    """Return the fewest cells in which a fleet is served, and the routers of each.

    Raises:
        ValueError: Not even a provider alone is.
    """
    for cells in range(ceil(providers / decided.cell), providers + 1):
        found = routers(providers / cells, asked, measured, decided)
        if found is not None:
            return cells, found
    raise ValueError(f"no router has a core for {asked:g} requests a second of a provider")


def plan(providers: int, load: float, measured: Measured, decided: Decided) -> Plan:
    """Return what a fleet asks for.

    Args:
        providers: Machines connected.
        load: Offered tokens over decode capacity.
        measured: What things cost.
        decided: What `deploy/` sets.

    Raises:
        ValueError: One provider is asked for more than a router can do.
    """
    asked = measured.requests_a_second * load / LOAD
    cells, cell_routers = split(providers, asked, measured, decided)
    members = providers / cells
    each = members * asked
    chunks = each * measured.output_tokens
    busy = {
        "gateway": each * measured.gateway_ms / 1e3 + chunks * measured.gateway_chunk_us / 1e6,
        "billing": each * measured.billing_ms / 1e3,
        "attestation": members / measured.challenge_s * measured.challenge_ms / 1e3,
        "registry": 0.0,
    }
    streams = {"gateway": each * measured.answer_s / decided.streams_of_a_gateway}

    def pods(room: str) -> int:
        if room == "router":
            return cells * cell_routers.count
        by_cores = busy[room] / (ROOMS[room].cores * decided.busy)
        return cells * max(decided.least, ceil(by_cores), ceil(streams.get(room, 0.0)))

    requests = each * cells
    postgres = max(_LEAST_CORES, _even(each * measured.postgres_ms / 1e3 / decided.busy))
    daily = requests * _SECONDS_A_DAY / GIB
    growth = daily * DAYS_A_MONTH * measured.kept_bytes
    proofs = daily * decided.proof_days * measured.proof_bytes
    valkey = max(_LEAST_VALKEY_GIB, _half(2 * members * measured.valkey_bytes / GIB))
    leaving = measured.output_tokens * measured.event_bytes + measured.prompt_bytes
    return Plan(
        providers=providers,
        requests=requests,
        cells=cells,
        pods={room: pods(room) for room in ROOMS},
        mirrors=cell_routers.mirrors,
        mirror_mib=members * measured.mirror_bytes / (1 << 20),
        told=cell_routers.told,
        instances=cells * decided.postgres_instances,
        postgres_cores=postgres,
        postgres_gib=_GIB_A_CORE * postgres,
        wal_mib=requests * measured.wal_bytes / (1 << 20),
        growth_gib=growth,
        disk_gib=growth * decided.months + proofs + cells * _SYSTEM_GIB,
        valkey_gib=cells * valkey,
        egress_gib=daily * DAYS_A_MONTH * leaving,
    )


def cost(found: Plan, prices: Prices, decided: Decided) -> dict[str, float]:
    """Return USD a month, by what it is for.

    Args:
        found: What is asked for.
        prices: What each unit costs.
        decided: How many copies of the storage there are.
    """
    core, gib = prices.core_hour * HOURS_A_MONTH, prices.gib_hour * HOURS_A_MONTH
    server = found.postgres_cores * core + found.postgres_gib * gib
    # Nightly base backups share what has not changed; one whole copy and the log beside it.
    archive = 2 * found.disk_gib * prices.archive_gib_month
    return {
        "rooms": found.cores * core + found.gib * gib,
        "PostgreSQL servers": found.instances * server,
        "storage": found.disk_gib * decided.postgres_instances * prices.disk_gib_month,
        "backups": archive,
        "Valkey": found.cells * _VALKEY_CORES * core + found.valkey_gib * gib,
        "traffic out": found.egress_gib * prices.egress_gib,
        "balancers, control plane": found.cells
        * (2 * prices.balancer_month + prices.control_plane_month),
    }


def _even(cores: float) -> int:
    return 2 * ceil(cores / 2)


def _half(gib: float) -> float:
    return ceil(2 * gib) / 2
