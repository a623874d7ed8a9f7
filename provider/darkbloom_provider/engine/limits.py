"""How much one engine takes on."""

import dataclasses
from typing import Final

MAX_CONCURRENCY: Final = 32
"""Most rows of one build that generate at once."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class EngineLimits:
    """What an engine of real models takes on."""

    kv_budget_bytes: int
    """KV memory for all builds together."""
    max_concurrency: int = 4
    """Rows of one build that generate at once; more than `MAX_CONCURRENCY` counts as that."""
    max_waiting: int = 64
    """Rows of one build that wait for that."""
