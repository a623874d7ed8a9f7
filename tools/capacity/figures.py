"""What was measured or decided, each with its source; everything else is computed from these."""

from dataclasses import dataclass

HOURS_A_MONTH = 730
DAYS_A_MONTH = HOURS_A_MONTH / 24
GIB = 1 << 30


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Figures of `docs/benchmarks.md` and of the simulator; what nobody has measured says so.

    Processor times are of two shared cores, the dearer one where there are several.
    """

    requests_a_second: float = 0.231
    """Of one provider at load 0.7, simulated; in the tables each fleet's own."""
    output_tokens: float = 249.0
    """Mean answer of the simulator's traffic."""
    prompt_bytes: float = 4_780.0
    """Mean prompt of the simulator's traffic, some 1,200 tokens of 4 bytes."""
    answer_s: float = 17.9
    """How long a request is open, seconds, simulated at load 0.7; in the tables at each load."""
    told_rest: float = 0.201
    """How often each other router is told of a provider a second where nobody asks, simulated."""
    told_a_request: float = 2.43
    """How often more for each request that it serves, simulated."""
    tell_us: float = 16.4
    """Processor time of telling one other router once, `python -m tests.bench.mirrors`."""
    hear_us: float = 83.6
    """Processor time of hearing it there: the mirror is judged and priced again."""
    mirror_bytes: float = 7_033.0
    """Memory of a provider that another router holds."""
    event_bytes: float = 205.0
    """One event of a streamed answer; a token is one event where the consumer keeps up."""
    gateway_ms: float = 2.6
    """Processor time of a whole answer at the gateway, 1,000 agents."""
    gateway_chunk_us: float = 25.0
    """Processor time of one chunk at the gateway: 40,000 a second and core."""
    router_ms: float = 2.3
    """Processor time of a whole answer at all routers it passes, 1,000 agents, two replicas."""
    router_chunk_us: float = 12.0
    """Processor time of one chunk at the router, half of the gateway's; assumed."""
    router_rest_cores: float = 0.12 / 1_000
    """A core's share that a provider costs its own router at rest."""
    billing_ms: float = 0.9
    """Processor time of a whole answer at billing."""
    challenge_ms: float = 5.0
    """Processor time of one challenge and its verdict at attestation; assumed."""
    challenge_s: float = 300.0
    """Between two challenges of one provider."""
    postgres_ms: float = 0.65
    """Processor time of PostgreSQL for a whole answer: hold, settlement, receipt."""
    kept_bytes: float = 6_000.0
    """Rows and indexes of one request that stay for ever: ledger, usage, earning, countersign."""
    proof_bytes: float = 3_550.0
    """Rows and indexes of its archived receipt, which go after `proof_days`."""
    wal_bytes: float = 13_500.0
    """Written ahead for one request, without page images and compression."""
    valkey_bytes: float = 600.0
    """Presence and lease of one provider; assumed."""


@dataclass(frozen=True, kw_only=True)
class Decided:
    """What `deploy/kustomize` sets; a test compares."""

    busy: float = 0.6
    """Share of a core that a pod is planned to use: below the 70 % at which KEDA adds one."""
    least: int = 3
    """Replicas of each room at least, one in each zone."""
    streams_of_a_gateway: int = 300
    """Open answers that a gateway is scaled for."""
    providers_of_a_router: int = 500
    """Provider streams that a router is scaled for."""
    cell: int = 15_000
    """Providers of a cell at most; fewer where its routers, each of which hears of each change of
    each of them, have no cores for what they are asked.
    """
    gateways: int = 160
    """Gateways of a cell at most, as autoscaled."""
    routers: int = 40
    """Routers of a cell at most, as autoscaled."""
    postgres_instances: int = 3
    """Primary and two standbys."""
    proof_days: int = 90
    """`DARKBLOOM_BILLING_RECEIPT_DAYS`."""
    months: int = 12
    """How much history the storage holds that is priced."""


@dataclass(frozen=True, kw_only=True)
class Room:
    """What one pod asks for."""

    cores: float
    """Request."""
    gib: float
    """Request and limit."""


ROOMS = {
    "gateway": Room(cores=1.0, gib=1.0),
    "router": Room(cores=1.0, gib=1.0),
    "billing": Room(cores=0.5, gib=0.5),
    "attestation": Room(cores=0.5, gib=0.5),
    "registry": Room(cores=0.25, gib=0.5),
}
"""Requests of the base, by room."""


@dataclass(frozen=True, kw_only=True)
class Prices:
    """USD; a middle of what large clouds ask on demand in 2026, taken as an assumption."""

    core_hour: float = 0.035
    """A core for an hour."""
    gib_hour: float = 0.004
    """A GiB of memory for an hour."""
    disk_gib_month: float = 0.10
    """A GiB of replicated SSD for a month."""
    archive_gib_month: float = 0.02
    """A GiB in an object store for a month."""
    egress_gib: float = 0.05
    """A GiB to the internet; what comes in is free."""
    balancer_month: float = 25.0
    """A network load balancer for a month; two are needed, consumers' and providers'."""
    control_plane_month: float = 75.0
    """A managed control plane for a month."""
