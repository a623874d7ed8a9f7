"""Decision records as somebody asks for them: one request, one attempt, or the last ones."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from darkbloom_mesh.postgres import Database

from darkbloom_router import taxonomy

MAX_ROWS = 1000
_REQUESTS = """
SELECT request_id FROM routing.attempts WHERE attempt_id = $1 OR request_id = $1
UNION SELECT request_id FROM routing.refusals WHERE request_id = $1"""
_ATTEMPTS = """
SELECT request_id, attempt_id, number, replica, build, provider_id, hedge, remote, path, candidates,
  price_ms, runner_up, runner_up_ms, breakdown, outcome, write_submitted, write_completed,
  provider_accepted, provider_complete_observed, queue_ms, first_content_ms, duration_ms, end_time
FROM routing.attempts
WHERE ($1 = '' OR request_id = $1) AND ($2 = '' OR build = $2)
ORDER BY end_time DESC, number DESC LIMIT $3"""
_REFUSALS = """
SELECT request_id, replica, build, http_status, reason, attempts, gates, could_have_served,
  waited_ms, end_time
FROM routing.refusals
WHERE ($1 = '' OR request_id = $1) AND ($2 = '' OR build = $2) ORDER BY end_time DESC LIMIT $3"""
_JSON = frozenset({"breakdown", "gates"})

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Found:
    """What is known of one request or of the last ones, the oldest first."""

    attempts: Sequence[Row]
    refusals: Sequence[Row]

    def __bool__(self) -> bool:
        return bool(self.attempts or self.refusals)


async def find(database: Database, name: str = "", *, build: str = "", limit: int = 20) -> Found:
    """Read the records of a request.

    Args:
        database: Where they are kept.
        name: Request or attempt (`X-Inference-Job-ID`); empty for the last ones.
        build: Only of this build; empty for all.
        limit: Most rows of each kind, `MAX_ROWS` at most.

    Raises:
        StoreUnavailableError: The database cannot be reached.
    """
    rows = min(limit, MAX_ROWS)
    async with database.acquire() as connection:
        request = await connection.fetchval(_REQUESTS, name) if name else ""
        if request is None:
            return Found((), ())
        attempts = await connection.fetch(_ATTEMPTS, request, build, rows)
        refusals = await connection.fetch(_REFUSALS, request, build, rows)
    return Found(
        [_judged(dict(row)) for row in reversed(attempts)],
        [_plain(dict(row)) for row in reversed(refusals)],
    )


def _judged(row: dict[str, Any]) -> Row:
    """Add what the outcome's word means."""
    found = taxonomy.ending(
        row["outcome"],
        accepted=row["provider_accepted"],
        committed=row["first_content_ms"] is not None,
    )
    words = {
        "final_status": found.final_status.value,
        "error_class": found.error_class.value,
        "error_reason": found.error_reason.value,
    }
    return {**_plain(row), **words}


def _plain(row: dict[str, Any]) -> Row:
    parsed = {
        name: orjson.loads(value) if name in _JSON and isinstance(value, str) else value
        for name, value in row.items()
    }
    return {**parsed, "end_time": row["end_time"].isoformat()}
