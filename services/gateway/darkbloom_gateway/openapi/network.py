"""What strangers read of the network: figures and leaders."""

from collections.abc import Mapping

from darkbloom_edge.dialects.schemas.parts import (
    COUNT,
    NUMBER,
    STRING,
    Schema,
    array,
    mapping,
    nullable,
    obj,
    words,
)

from darkbloom_gateway.openapi.amounts import MICROS
from darkbloom_gateway.openapi.operation import (
    Access,
    Key,
    Operation,
    answer,
)
from darkbloom_gateway.openapi.people import TIME

_WORK: Mapping[str, Schema] = {
    "earnings_micro_usd": MICROS,
    "work_earnings_micro_usd": MICROS,
    "reward_earnings_micro_usd": MICROS,
    "tokens": COUNT,
    "jobs": COUNT,
}
_WINDOW = words("24h", "7d", "30d", "all")

TABLE: Mapping[Key, Operation] = {
    ("GET", "/v1/stats"): Operation(
        tag="Network",
        access=Access.NOBODY_ASKED,
        answers=answer(
            obj(
                {
                    "total_requests": COUNT,
                    "total_prompt_tokens": COUNT,
                    "total_completion_tokens": COUNT,
                    "total_tokens": COUNT,
                    "avg_tokens_per_request": COUNT,
                    "active_providers": COUNT,
                    "total_gpu_cores": COUNT,
                    "total_cpu_cores": COUNT,
                    "total_memory_gb": NUMBER,
                    "total_bandwidth_gbs": NUMBER,
                    "network_capacity_tps": NUMBER,
                    "providers": array(
                        obj(
                            {
                                "id": STRING,
                                "chip": STRING,
                                "chip_family": STRING,
                                "chip_tier": STRING,
                                "machine_model": STRING,
                                "memory_gb": NUMBER,
                                "gpu_cores": COUNT,
                                "cpu_cores": COUNT,
                                "memory_bandwidth_gbs": NUMBER,
                                "status": STRING,
                                "trust_level": STRING,
                                "decode_tps": NUMBER,
                                "models": array(STRING),
                                "current_model": nullable(STRING),
                            }
                        )
                    ),
                    "models": array(obj({"id": STRING, "providers": COUNT})),
                    "verification_counts": mapping(COUNT),
                    "time_series": array(
                        obj(
                            {
                                "minute": TIME,
                                "requests": COUNT,
                                "prompt_tokens": COUNT,
                                "completion_tokens": COUNT,
                            }
                        )
                    ),
                    "snapshot_at": TIME,
                }
            )
        ),
        name="network_stats",
    ),
    ("GET", "/v1/leaderboard"): Operation(
        tag="Network",
        access=Access.NOBODY_ASKED,
        answers=answer(
            obj(
                {
                    "metric": words("earnings", "tokens", "jobs"),
                    "window": _WINDOW,
                    "entries": array(obj({"rank": COUNT, "pseudonym": STRING, **_WORK})),
                    "updated_at": TIME,
                }
            )
        ),
    ),
    ("GET", "/v1/network/totals"): Operation(
        tag="Network",
        access=Access.NOBODY_ASKED,
        answers=answer(
            obj({"window": _WINDOW, **_WORK, "active_accounts": COUNT, "updated_at": TIME})
        ),
    ),
}
