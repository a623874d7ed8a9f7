"""Why a request went where it went: the router's decision records, from the database."""

from collections.abc import Iterable
from typing import Any, LiteralString

import psycopg
from psycopg.rows import dict_row

from darkbloom_local.errors import LocalError
from darkbloom_local.state import StateDir
from darkbloom_local.stores import Postgres

LAST = 20
"""Rows that are shown where no request is named."""
_ATTEMPTS: LiteralString = """
  SELECT request_id, attempt_id, number, build, provider_id, replica, path, candidates, price_ms,
         outcome, first_content_ms, duration_ms, end_time
  FROM routing.attempts WHERE %(name)s IN ('', request_id, attempt_id)
  ORDER BY end_time DESC, number DESC LIMIT %(last)s"""
_REFUSALS: LiteralString = """
  SELECT request_id, build, replica, http_status, reason, gates, could_have_served, waited_ms,
         end_time
  FROM routing.refusals WHERE %(name)s IN ('', request_id)
  ORDER BY end_time DESC LIMIT %(last)s"""


def why(state: StateDir, name: str = "") -> str:
    """Tell what the routers decided, the oldest first.

    Args:
        state: Of the running mesh.
        name: Request or attempt (`X-Inference-Job-ID`); empty shows the last ones.

    Raises:
        LocalError: No mesh runs here, it keeps no records, or none is of this name.
    """
    state.running()
    said = {"name": name, "last": LAST}
    url = Postgres(state.root / "postgres").url
    try:
        with psycopg.connect(url, row_factory=dict_row, connect_timeout=5) as connection:
            attempts = connection.execute(_ATTEMPTS, said).fetchall()
            refusals = connection.execute(_REFUSALS, said).fetchall()
    except psycopg.Error as error:
        raise LocalError("this mesh keeps no decision records") from error
    rows = sorted((*attempts, *refusals), key=lambda row: row["end_time"])
    if not rows:
        raise LocalError("nothing was recorded under this name; records are a second late")
    return "\n".join(_lines(rows[-LAST:]))


def _lines(rows: Iterable[dict[str, Any]]) -> Iterable[str]:
    for row in rows:
        when = row["end_time"].strftime("%H:%M:%S")
        if "attempt_id" in row:
            first = row["first_content_ms"]
            chosen = f"{row['path']} of {row['candidates']}, {row['price_ms']:.0f} ms"
            yield (
                f"{when} {row['request_id']} attempt {row['number']}: {row['provider_id']}"
                f" ({chosen}, {row['replica']}) {row['outcome']}, {row['duration_ms']} ms"
                + ("" if first is None else f", first content after {first} ms")
            )
        else:
            gates = ", ".join(f"{gate} {count}" for gate, count in sorted(row["gates"].items()))
            could = {True: "room was missing", False: "nobody could", None: "nobody was asked"}
            yield (
                f"{when} {row['request_id']} refused: {row['http_status']} {row['reason']}"
                f" after {row['waited_ms']} ms; {could[row['could_have_served']]}"
                + (f" ({gates})" if gates else "")
            )
