"""`python -m darkbloom_router why`: what the routers decided about a request, and how it ended."""

import asyncio
import sys
from collections.abc import Iterator

import orjson
from darkbloom_mesh.config import Secret
from darkbloom_mesh.errors import MeshError
from darkbloom_mesh.postgres import Database

from darkbloom_router.records.reading import Found, Row, find

_INDENTED = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE
_COULD = {True: "room or time was missing", False: "nobody could", None: "nobody was asked"}


def why(url: Secret | None, name: str, *, build: str, limit: int, as_json: bool) -> int:
    """Print the records of a request.

    Args:
        url: Of the database; None where no records are kept.
        name: Request or attempt; empty for the last ones.
        build: Only of this build; empty for all.
        limit: Most rows of each kind.
        as_json: One JSON document instead of lines.

    Returns:
        The exit code: 0 found, 1 nothing under this name, 2 no store.
    """
    if url is None:
        sys.stderr.write("no records are kept: DARKBLOOM_ROUTER_DATABASE_URL is unset\n")
        return 2
    try:
        found = asyncio.run(_read(url, name, build=build, limit=limit))
    except MeshError as error:
        sys.stderr.write(f"the records cannot be read: {error.message}\n")
        return 2
    if as_json:
        document = {"name": name, "attempts": found.attempts, "refusals": found.refusals}
        sys.stdout.write(orjson.dumps(document, option=_INDENTED).decode())
    elif found:
        sys.stdout.writelines(f"{line}\n" for line in lines(found))
    else:
        sys.stderr.write("nothing is recorded under this name; records come a second late\n")
    return 0 if found else 1


async def _read(url: Secret, name: str, *, build: str, limit: int) -> Found:
    database = await Database.connect(url.reveal())
    try:
        return await find(database, name, build=build, limit=limit)
    finally:
        await database.close()


def lines(found: Found) -> Iterator[str]:
    """Tell what was found, a line per row, the oldest first."""
    for row in sorted((*found.attempts, *found.refusals), key=lambda row: row["end_time"]):
        yield _attempt(row) if "attempt_id" in row else _refusal(row)


def _attempt(row: Row) -> str:
    first, judged = row["first_content_ms"], row["error_class"]
    return (
        f"{row['end_time']} {row['request_id']} attempt {row['number']} on {row['provider_id']}"
        f" by {row['replica']} ({row['path']} of {row['candidates']}, {row['price_ms']:.0f} ms):"
        f" {row['final_status']}"
        + (f", {judged} ({row['outcome']})" if judged else "")
        + ("" if first is None else f", first content after {first} ms")
        + f", {row['duration_ms']} ms in all"
    )


def _refusal(row: Row) -> str:
    gates = ", ".join(f"{gate} {count}" for gate, count in sorted(row["gates"].items()))
    return (
        f"{row['end_time']} {row['request_id']} refused by {row['replica']}:"
        f" {row['http_status']} {row['reason']} after {row['attempts']} attempts and"
        f" {row['waited_ms']} ms; {_COULD[row['could_have_served']]}"
        + (f" ({gates})" if gates else "")
    )
