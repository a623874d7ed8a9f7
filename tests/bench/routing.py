"""How long a routing decision takes: the router's own policy over a made-up fleet, no sockets.

    python -m tests.bench.routing --providers 100000 --builds 200

Providers are spread over builds by Zipf's law; each decision debits a place, now and then places
are given back and heartbeats come in, so that what a decision reads keeps changing. The last line
is one JSON object.
"""

import argparse
import gc
import json
import resource
import sys
from collections import deque
from itertools import accumulate
from random import Random  # noqa: TID251 - a fleet that can be made again, nothing secret
from time import perf_counter, thread_time
from typing import Any

from darkbloom_router.conditions import View
from darkbloom_router.fleet import Fleet
from darkbloom_router.model import (
    Admission,
    Beat,
    Build,
    CapacityReport,
    Catalog,
    Demand,
    Hardware,
    ModelFacts,
    Privacy,
    Rules,
    Selection,
    Signed,
    SlotReport,
    SlotState,
    TrustLevel,
    Verdict,
)
from darkbloom_router.placement import choose
from darkbloom_router.provider import Provider

HASH = "ab" * 32
CHIPS = (("M1", 16, 68), ("M2", 24, 100), ("M3", 36, 150), ("M4", 64, 546), ("M4", 128, 546))
WARM_UP = 200


def made_fleet(providers: int, builds: int, rules: Rules, rng: Random) -> tuple[Fleet, list[str]]:
    """Return a fleet in which every provider serves one build."""
    names = [f"org/model-{index}" for index in range(builds)]
    fleet = Fleet(rules)
    hashes = frozenset({HASH})
    fleet.set_catalog(
        Catalog(builds={name: Build(build=name, accepted_hashes=hashes) for name in names})
    )
    weights = list(accumulate(1 / (rank + 1) for rank in range(builds)))
    verdict = Verdict(
        verdict_id="ver_1",
        signed=Signed(document=b"{}", signature=b"s"),
        level=TrustLevel.HARDWARE,
        admission=Admission.PUBLIC,
        expires_at=1e9,
        expires_unix=0.0,
    )
    for index in range(providers):
        [name] = rng.choices(names, cum_weights=weights)
        family, memory_gb, bandwidth = rng.choice(CHIPS)
        provider = Provider(
            provider_id=f"prov_{index}",
            identity_key=b"\x04" + index.to_bytes(64, "big"),
            encryption_key=b"K" * 32,
            hardware=Hardware(
                chip_family=family, memory_gb=memory_gb, memory_bandwidth_gbs=bandwidth
            ),
            privacy=Privacy(inprocess=True, sealed_chunks=True, sip=True),
            backend="mlx-lm",
            version="1.0.0",
            account_id=f"acct_{index % 5000}",
            runtime_verified=True,
            verdict=verdict,
            passed_at=1e8,
        )
        fleet.join(provider, [ModelFacts(build=name, weight_hash=HASH, size_bytes=4_000_000_000)])
        fleet.beat(provider, beat(name, 1, rng), 0.0)
    return fleet, names


def beat(build: str, sequence: int, rng: Random) -> Beat:
    """Return a heartbeat of an idle machine."""
    slot = SlotReport(
        build=build,
        state=SlotState.IDLE,
        max_concurrency=8,
        budget_max=200_000,
        kv_bytes_per_token=100_000,
        decode_tps=rng.uniform(20, 90),
        prefill_tps=rng.uniform(200, 1500),
    )
    capacity = CapacityReport(sequence=sequence, slots={build: slot}, total_memory_gb=64.0)
    return Beat(pressure=rng.random() / 2, capacity=capacity)


def measure(
    fleet: Fleet, names: list[str], decisions: int, load: float, rng: Random
) -> list[float]:
    """Return the seconds that each decision took: choosing and debiting."""
    weights = list(accumulate(1 / (rank + 1) for rank in range(len(names))))
    everybody = list(fleet.providers.values())
    taken: deque[Any] = deque()
    spent, now = [], 0.0
    for turn in range(decisions + WARM_UP):
        now += 0.001
        [build] = rng.choices(names, cum_weights=weights)
        demand = Demand(
            build=build,
            prompt_tokens=rng.randrange(50, 4000),
            output_bound=rng.choice((256, 1024, 4096)),
            account_id="consumer",
        )
        view = View(demand, fleet.rules, now, deadline=now + 60)
        # Processor time of this thread: the machine's other work is not what is measured.
        started = thread_time()
        choice = choose(fleet, build, view, rng.randrange)
        if choice.candidate is not None:
            taken.append(fleet.debit(choice.candidate, demand.tokens, demand.prompt_tokens))
        seconds = thread_time() - started
        if turn >= WARM_UP:
            spent.append(seconds)
        while len(taken) > load * len(everybody):
            fleet.credit(taken.popleft())
        provider = rng.choice(everybody)
        known = provider.capacity.sequence if provider.capacity else 0
        fleet.beat(provider, beat(next(iter(provider.candidates)), known + 1, rng), now)
    return spent


def main() -> int:
    """Measure, print, and compare with the targets."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--providers", type=int, default=1000)
    parser.add_argument("--builds", type=int, default=1)
    parser.add_argument("--decisions", type=int, default=5000)
    parser.add_argument("--load", type=float, default=0.5, help="running attempts per provider")
    parser.add_argument("--selection", choices=list(Selection), default=Selection.COST)
    parser.add_argument("--sample", type=int, default=128)
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()

    rng = Random(arguments.seed)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    rules = Rules(selection=Selection(arguments.selection), sample=arguments.sample)
    started = perf_counter()
    fleet, names = made_fleet(arguments.providers, arguments.builds, rules, rng)
    joined_s = perf_counter() - started
    grown_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    # As the room does once it is up: what lives long is not looked through again and again.
    gc.collect()
    gc.freeze()

    spent = sorted(measure(fleet, names, arguments.decisions, arguments.load, rng))
    at = {name: spent[int(len(spent) * share)] * 1000 for name, share in QUANTILES.items()}
    row = {
        "providers": arguments.providers,
        "builds": arguments.builds,
        "largest_build": max(fleet.index(name).size for name in names),
        **{f"decision_{name}_ms": round(value, 4) for name, value in at.items()},
        "memory_per_provider_bytes": round(grown_kb * 1024 / arguments.providers),
        "join_us": round(joined_s / arguments.providers * 1e6, 1),
    }
    sys.stdout.write(json.dumps(row) + "\n")
    return 0


QUANTILES = {"p50": 0.5, "p99": 0.99, "p999": 0.999}

if __name__ == "__main__":
    sys.exit(main())
