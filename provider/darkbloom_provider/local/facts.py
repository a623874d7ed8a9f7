"""What the local endpoint says of the machine: models, properties, metrics."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from darkbloom_edge.strict_json import canonical_json

from darkbloom_provider.engine.interface import SlotState
from darkbloom_provider.shift import Kitchen

_GAUGES = (
    ("darkbloom_local_running", "rows that are being generated", "num_running"),
    ("darkbloom_local_waiting", "requests that wait for a row", "num_waiting"),
    (
        "darkbloom_local_token_budget_used",
        "tokens whose memory is reserved",
        "active_token_budget_used",
    ),
    ("darkbloom_local_token_budget", "tokens whose memory fits", "active_token_budget_max"),
    ("darkbloom_local_decode_tps", "tokens per second of one row", "observed_decode_tps"),
)


def models(kitchen: Kitchen, started: datetime) -> bytes:
    """Return OpenAI's list of models; every verified build, in memory or not."""
    return canonical_json(
        {
            "object": "list",
            "data": [
                {
                    "id": model.id,
                    "object": "model",
                    "created": int(started.timestamp()),
                    "owned_by": "local",
                    "loaded": kitchen.loads.warm(model.id),
                    "quantization": model.quantization,
                    "size_bytes": model.size_bytes,
                }
                for model in kitchen.inventory.models
            ],
        }
    )


def properties(kitchen: Kitchen, version: str) -> bytes:
    """Return what the server is, in the spirit of llama.cpp's `/props`."""
    slots = kitchen.engine.slots()
    return canonical_json(
        {
            "version": version,
            "total_slots": sum(slot.max_concurrency for slot in slots),
            "models": [
                {
                    "id": slot.model,
                    "state": slot.state.value,
                    "running": slot.num_running,
                    "waiting": slot.num_waiting,
                    "max_concurrency": slot.max_concurrency,
                    "token_budget_used": slot.active_token_budget_used,
                    "token_budget": slot.active_token_budget_max,
                }
                for slot in slots
            ],
        }
    )


def metrics(slots: Iterable[SlotState], guests: int) -> bytes:
    """Return the slots in Prometheus' text format."""
    listed = list(slots)
    lines = [
        "# HELP darkbloom_local_requests local requests under way",
        "# TYPE darkbloom_local_requests gauge",
        f"darkbloom_local_requests {guests}",
    ]
    for name, text, attribute in _GAUGES:
        lines += [f"# HELP {name} {text}", f"# TYPE {name} gauge"]
        lines += [
            f'{name}{{model="{_label(slot.model)}"}} {getattr(slot, attribute)}' for slot in listed
        ]
    return ("\n".join(lines) + "\n").encode()


def _label(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
