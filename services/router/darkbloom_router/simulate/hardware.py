"""What machines there are, and what they can do with a build."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import floor
from random import Random  # noqa: TID251 - the type; randomness is passed in

from darkbloom_router.admission import ROW_DERATING
from darkbloom_router.model import Build

FLOOR_TPS = 15.0
EFFICIENCY = 0.65
"""Share of the memory bandwidth that decoding gets."""
PREFILL_PER_DECODE = 14.0
DISK_GBS = 1.5
START_ENGINE_S = 3.0
USABLE = 0.7
"""Share of the memory that the graphics part may use."""
GB = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Chip:
    """One kind of machine."""

    family: str
    bandwidth_gbs: float
    memories_gb: tuple[int, ...]
    share: float


CHIPS = (
    Chip("M1", 68.0, (8, 16), 0.10),
    Chip("M2", 100.0, (16, 24), 0.12),
    Chip("M3 Pro", 150.0, (18, 36), 0.12),
    Chip("M4", 120.0, (16, 24, 32), 0.16),
    Chip("M4 Pro", 273.0, (24, 48, 64), 0.18),
    Chip("M1 Max", 400.0, (32, 64), 0.10),
    Chip("M4 Max", 546.0, (36, 64, 128), 0.12),
    Chip("M2 Ultra", 800.0, (64, 128, 192), 0.06),
    Chip("M3 Ultra", 819.0, (96, 256, 512), 0.04),
)


@dataclass(frozen=True, slots=True)
class Weights:
    """One size of model: gigabytes in all, and read per token."""

    size_gb: float
    active_gb: float
    kv_bytes: int


SIZES = (
    Weights(4.5, 4.5, 65_536),
    Weights(17.0, 2.2, 49_152),
    Weights(1.8, 1.8, 32_768),
    Weights(8.0, 8.0, 81_920),
    Weights(12.5, 2.6, 49_152),
    Weights(40.0, 40.0, 163_840),
    Weights(62.0, 4.0, 73_728),
)


@dataclass(frozen=True, slots=True)
class Product:
    """One build and what it is made of."""

    build: Build
    weights: Weights
    popularity: float


def catalog(builds: int, zipf: float) -> list[Product]:
    """Return the builds that are sold, by popularity."""
    shares = [1 / rank**zipf for rank in range(1, builds + 1)]
    total = sum(shares)
    found = []
    for rank, share in enumerate(shares):
        weights = SIZES[rank % len(SIZES)]
        name = f"sim/build-{rank:03d}"
        build = Build(
            build=name,
            accepted_hashes=frozenset({name}),
            min_ram_gb=int(weights.size_gb / USABLE) + 2,
            max_context=131_072,
            size_bytes=int(weights.size_gb * GB),
        )
        found.append(Product(build, weights, share / total))
    return found


def draw_chip(chance: Random, needed_gb: int) -> tuple[Chip, int]:
    """Return a kind of machine and its memory, at least so much."""
    fitting = [
        (chip, sizes)
        for chip in CHIPS
        if (sizes := [size for size in chip.memories_gb if size >= needed_gb])
    ]
    ends = list(accumulate(chip.share for chip, _ in fitting))
    [(chip, sizes)] = chance.choices(fitting, cum_weights=ends)
    return chip, chance.choice(sizes)


def solo_tps(chip: Chip, weights: Weights) -> float:
    """Return the decode rate of one row alone."""
    return min(EFFICIENCY * chip.bandwidth_gbs / weights.active_gb, 400.0)


def fair_rows(solo: float, most: int) -> int:
    """Return how many rows run at a fair pace each."""
    return max(1, min(floor((solo / FLOOR_TPS - 1) / ROW_DERATING), most))


def decode_capacity(solo: float, most: int) -> float:
    """Return the output tokens per second of a machine that runs as many rows as is fair."""
    rows = fair_rows(solo, most)
    return rows * solo / (1 + ROW_DERATING * (rows - 1))


def budget_tokens(memory_gb: int, weights: Weights) -> int:
    """Return how many tokens of cache fit beside the weights."""
    free_gb = memory_gb * USABLE - weights.size_gb
    return max(4096, min(int(free_gb * GB / weights.kv_bytes), 1 << 22))


def engine_rows(memory_gb: int) -> int:
    """Return how many rows the engine takes at once."""
    return next((rows for size, rows in ((16, 4), (36, 8), (64, 16)) if memory_gb <= size), 24)


def load_s(weights: Weights) -> float:
    """Return how long loading takes."""
    return START_ENGINE_S + weights.size_gb / DISK_GBS


def shares_of(products: Sequence[Product], providers: int) -> list[int]:
    """Return for each build how many machines have it as their first."""
    least = min(3, max(1, providers // (2 * len(products))))
    left = max(0, providers - least * len(products))
    counts = [least + int(product.popularity * left) for product in products]
    counts[0] += max(0, providers - sum(counts))
    return counts
