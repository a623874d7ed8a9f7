"""Fleets for unit tests: providers that pass every gate until a test changes one thing."""

from typing import Any

from darkbloom_router.fleet import Fleet
from darkbloom_router.model import (
    Admission,
    Build,
    CapacityReport,
    Catalog,
    Demand,
    Hardware,
    ModelFacts,
    Privacy,
    Rules,
    Signed,
    SlotReport,
    SlotState,
    TrustLevel,
    Verdict,
)
from darkbloom_router.provider import Candidate, Provider

BUILD = "org/small"
HASH = "ab" * 32
SIGNED = Signed(document=b"{}", signature=b"s")
CATALOG = Catalog(
    generation=1, builds={BUILD: Build(build=BUILD, accepted_hashes=frozenset({HASH}))}
)
FACTS = ModelFacts(build=BUILD, weight_hash=HASH, size_bytes=1_000_000_000, vision=True)
DEMAND = Demand(build=BUILD, prompt_tokens=100, output_bound=200, account_id="consumer")
NOW = 100.0


def verdict(**changes: Any) -> Verdict:
    values = {
        "verdict_id": "ver_1",
        "signed": SIGNED,
        "level": TrustLevel.HARDWARE,
        "admission": Admission.PUBLIC,
        "expires_at": NOW + 900,
        "expires_unix": 0.0,
        **changes,
    }
    return Verdict(**values)


def capacity(sequence: int = 1, **changes: Any) -> CapacityReport:
    slot = SlotReport(
        build=BUILD,
        **{
            "state": SlotState.IDLE,
            "max_concurrency": 8,
            "budget_max": 10_000,
            "decode_tps": 50.0,
            "prefill_tps": 1000.0,
            **changes,
        },
    )
    return CapacityReport(sequence=sequence, slots={BUILD: slot}, total_memory_gb=64.0)


def provider(name: str = "one", **changes: Any) -> Provider:
    made = Provider(
        provider_id=f"prov_{name}",
        identity_key=b"\x04" + name.encode().ljust(64, b"."),
        encryption_key=b"K" * 32,
        hardware=Hardware(memory_gb=64.0, memory_bandwidth_gbs=400.0),
        privacy=Privacy(inprocess=True, sealed_chunks=True, sip=True),
        backend="mlx-lm",
        version="1.0.0",
        account_id="owner",
        runtime_verified=True,
        verdict=verdict(),
        passed_at=NOW - 10,
        capacity=capacity(),
    )
    for key, value in changes.items():
        setattr(made, key, value)
    return made


def fleet(*providers: Provider, rules: Rules | None = None, facts: ModelFacts = FACTS) -> Fleet:
    made = Fleet(rules or Rules())
    made.advance(NOW)
    made.set_catalog(CATALOG)
    for item in providers:
        made.join(item, [facts])
    return made


def candidate(
    rules: Rules | None = None, facts: ModelFacts = FACTS, **changes: Any
) -> tuple[Candidate, Fleet]:
    made = fleet(provider(**changes), rules=rules, facts=facts)
    [row] = made.rows(BUILD)
    return row, made
