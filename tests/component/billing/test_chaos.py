"""A short storm over every command, and that its judge can find something."""

import dataclasses
from pathlib import Path

import asyncpg
from darkbloom_billing.books import Books
from darkbloom_mesh.clock import SystemClock

from tests.chaos.actors import Outside
from tests.chaos.judgement import Judgement, judge
from tests.chaos.play import play
from tests.component.billing.test_settlements import held
from tests.component.billing.world import open_database, owner, world

_CLEAN = ("violations", "orphan_holds", "double_charges", "unpaid_jobs")


async def test_no_storm_loses_or_invents_money(tmp_path: Path) -> None:
    judgement = await play(tmp_path, seed=1, seconds=6, restarts=1, progress=lambda _text: None)
    assert judgement.wrong == ()
    assert {name: judgement.figures[name] for name in _CLEAN} == dict.fromkeys(_CLEAN, 0)
    assert judgement.figures["settled"] > 0
    assert {"hold", "extend", "settle", "release", "deposit", "grant"} <= set(judgement.kinds)


async def judged(url: str, outside: Outside) -> Judgement:
    database = await open_database(url)
    try:
        connection = await asyncpg.connect(url)
        try:
            books = Books(database, SystemClock())
            return await judge(connection, database, books, outside, SystemClock())
        finally:
            await connection.close()
    finally:
        await database.close()


async def test_the_judge_sees_what_callers_were_told_and_the_books_do_not_say(url: str) -> None:
    async with world(url, clock=SystemClock()) as w:
        await w.people(10_000)
        name = await held(w)
        await w.settle(w.settlement(name))
    told = Outside(paid={name: 800})
    assert (await judged(url, told)).wrong == ()

    assert "told 799" in (await judged(url, Outside(paid={name: 799}))).wrong[0]
    assert "told 5 for req_lost" in (await judged(url, Outside(paid={"req_lost": 5}))).wrong[0]
    assert "stripe holds 1" in (await judged(url, dataclasses.replace(told, stripe=1))).wrong[0]
    twice = await judged(url, dataclasses.replace(told, told_twice=[name]))
    assert twice.figures["double_charges"] == 1


async def test_the_judge_sees_a_hold_that_nobody_ended(url: str) -> None:
    async with world(url, clock=SystemClock()) as w:
        await w.people(10_000)
        await held(w)
    found = (await judged(url, Outside())).wrong
    assert [text.split(":")[0] for text in found] == ["pending at the end"] * 2


async def test_the_judge_sees_a_posting_that_was_falsified(url: str) -> None:
    async with world(url, clock=SystemClock()) as w:
        await w.people(10_000)
        name = await held(w)
        await w.settle(w.settlement(name))
    async with owner(url) as db:
        await db.execute("SET session_replication_role = replica")
        await db.execute("UPDATE billing.usage SET charge_micros = charge_micros + 1")
    judgement = await judged(url, Outside(paid={name: 801}))
    assert judgement.figures["double_charges"] == 1
    assert judgement.figures["violations"] > 0
