"""`docs/reference/machines.md`: what a machine of so much memory can serve."""

from __future__ import annotations

from darkbloom_edge.memory import (
    GIB,
    Memory,
    fits,
    hard_cap,
    kv_budget_bytes,
    min_ram_gb,
    resident_bytes,
)

from tools.reference.markdown import NOTE, table

SIZES = (8, 16, 18, 24, 32, 36, 48, 64, 96, 128, 192, 256, 512)
"""Sizes that Macs with Apple silicon are sold with."""
RESERVE_GB = 4
"""`memory_reserve_gb`, unless the owner says otherwise."""
MODELS = (
    ("SmolLM2 135M, 4 bit", 9),
    ("3B, 4 bit", 170),
    ("8B, 4 bit", 450),
    ("14B, 4 bit", 800),
    ("32B, 4 bit", 1800),
    ("70B, 4 bit", 4000),
    ("120B, 4 bit", 6500),
)
"""Name and weights on disk, in hundredths of GiB; round figures, the catalog has the true ones."""
_HUNDREDTH = 100


def page() -> str:
    """Return the page."""
    return (
        "# Machines and models\n\n"
        f"{NOTE}\n\n"
        "Computed by the rule that agents and registry use ([memory.md](../memory.md)). Sizes in GiB. Weights are round figures for their class; the catalog has each model's own.\n\n"
        "## What fits\n\n"
        f'An otherwise idle machine whose owner keeps the usual {RESERVE_GB} GiB for himself. "KV" is what then remains for requests that run at the same time.\n\n'
        + table(
            ("Memory", "Hard cap", *(name for name, _ in MODELS)),
            [(str(size), _gib(hard_cap(size * GIB)), *_row(size)) for size in SIZES],
        )
        + "## The smallest machine\n\n"
        "The smallest whole number of GiB whose hard cap holds the model; `min_ram_gb` of the catalog. The owner's reserve comes on top where it is larger than what the cap leaves.\n\n"
        + table(
            ("Model", "Weights on disk", "In memory", "Smallest machine"),
            [
                (
                    name,
                    f"{hundredths / _HUNDREDTH:.2f}",
                    _gib(resident_bytes(_bytes(hundredths))),
                    str(min_ram_gb(_bytes(hundredths))),
                )
                for name, hundredths in MODELS
            ],
        ).rstrip("\n")
        + "\n"
    )


def _row(size: int) -> list[str]:
    physical = size * GIB
    memory = Memory(physical=physical, available=physical, reserve=RESERVE_GB * GIB)
    return [
        f"yes, KV {_gib(kv_budget_bytes(physical, resident_bytes(_bytes(hundredths))))}"
        if fits(_bytes(hundredths), memory)
        else "no"
        for _, hundredths in MODELS
    ]


def _bytes(hundredths: int) -> int:
    return hundredths * GIB // _HUNDREDTH


def _gib(size: int) -> str:
    return f"{size / GIB:.1f}"
