"""What machines say is written in as many statements for a thousand of them as for one."""

from collections.abc import Sequence
from datetime import UTC, datetime

import asyncpg
import pytest
from darkbloom_registry import rollout_rows
from darkbloom_registry.model_states import ModelStage, ModelState

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def said(provider: str, machine: str, *, done: int = 0, build: str = "org/model") -> ModelState:
    return ModelState(
        provider_id=provider,
        build=build,
        stage=ModelStage.DOWNLOADING,
        bytes_done=done,
        bytes_total=9,
        error="",
        report_time=NOW,
        machine=machine,
    )


async def written(
    connection: "asyncpg.Connection[asyncpg.Record]", states: Sequence[ModelState]
) -> int:
    """Write states; return in how many statements."""
    statements = list[str]()
    with connection.query_logger(lambda record: statements.append(record.query)):
        await rollout_rows.put_states(connection, states)
    # Loggers are called by the loop, in the order of what they log.
    await connection.execute("SELECT 1")
    return sum("registry.model_states" in statement for statement in statements)


async def test_a_thousand_machines_cost_as_many_statements_as_one(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    try:
        one = await written(connection, [said("prov", "m")])
        many = await written(connection, [said(f"prov_{n}", f"m{n}") for n in range(1000)])
        # Each connects again, and has one row still.
        again = await written(connection, [said(f"prov2_{n}", f"m{n}") for n in range(1000)])
        rows = await connection.fetchval("SELECT count(*) FROM registry.model_states")
        await connection.execute("ANALYZE registry.model_states")
        await connection.execute("SET enable_seqscan = off")
        plan = await connection.fetch(
            "EXPLAIN SELECT * FROM registry.model_states WHERE build = 'b' AND machine = 'm'"
        )
    finally:
        await connection.close()
    assert (one, many, again) == (3, 3, 3)
    assert rows == 1001
    assert any("model_states_machine" in row[0] for row in plan)


@pytest.mark.parametrize(
    ("states", "left"),
    [
        ([said("p1", "m", done=1), said("p1", "m", done=5)], {("p1", "m", 5)}),
        ([said("p1", ""), said("p2", "")], {("p1", "", 0), ("p2", "", 0)}),
        ([said("p1", "m1"), said("p2", "m2")], {("p1", "m1", 0), ("p2", "m2", 0)}),
        ([], set()),
    ],
    ids=["said twice", "unnamed", "two", "nothing"],
)
async def test_the_last_word_of_each_machine_is_kept(
    database_url: str, states: list[ModelState], left: set[tuple[str, str, int]]
) -> None:
    connection = await asyncpg.connect(database_url)
    try:
        await rollout_rows.put_states(connection, states)
        rows = await connection.fetch("SELECT * FROM registry.model_states")
    finally:
        await connection.close()
    assert {(row["provider_id"], row["machine"], row["bytes_done"]) for row in rows} == left
