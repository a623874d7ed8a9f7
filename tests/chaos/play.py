"""One run: two replicas of billing, writers, the storm, calm, judgement."""

import asyncio
import random  # noqa: TID251 - seeded: the same commands each time
from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import asyncpg
from darkbloom_billing.books import Books, Budget
from darkbloom_billing.model import CapReset
from darkbloom_billing.store.caps import PostgresCaps
from darkbloom_edge.signatures import Ed25519Signer, P256Signer, to_base64
from darkbloom_mesh.clock import SystemClock
from darkbloom_mesh.config import Secret
from darkbloom_mesh.migrate import migrate

from tests.chaos.actors import KEY_LIMIT, Actor, Outside, Stage
from tests.chaos.answers import answered
from tests.chaos.judgement import Judgement, judge
from tests.chaos.storm import Storm, storm
from tests.component.billing.world import CONSUMER, World, open_database, signing_key, world

_WRITERS = 16
_REPLICAS = 2
_CONSUMERS = 6
_PROVIDERS = 3
_START_MICROS = 300_000
_CALM_S = 30.0
# Everything that takes minutes or days in production, in fractions of a second.
_HASTE = {
    "hold_lease_s": 1.0,
    "sweep_period_s": 0.25,
    "maturation_s": 0.3,
    "maturation_period_s": 0.2,
    "audit_period_s": 2.0,
    "rollup_period_s": 0.5,
}


async def play(
    home: Path, *, seed: int, seconds: float, restarts: int, progress: Callable[[str], None]
) -> Judgement:
    """Run once.

    Args:
        home: Directory for the database.
        seed: Of every dice; the storm makes each run different all the same.
        seconds: How long writers write and connections break.
        restarts: How often the whole database falls.
        progress: Told what happens.
    """
    dice = random.Random(seed)
    with storm(home) as weather:
        await weather.ready()
        await asyncio.to_thread(
            migrate, Secret(weather.url), package="darkbloom_billing", schema="billing"
        )
        async with AsyncExitStack() as stack:
            stage = await _set(stack, weather)
            progress("writers write, connections break")
            loop = asyncio.get_running_loop()
            end = loop.time() + seconds
            async with asyncio.TaskGroup() as group:
                for number in range(_WRITERS):
                    actor = Actor(stage, number, random.Random(dice.random()))
                    group.create_task(actor.act(lambda: loop.time() >= end))
                storming = random.Random(dice.random())
                group.create_task(weather.rage(storming, seconds, restarts=restarts))
            progress(f"calm: {weather.cut} connections cut, {weather.restarts} restarts")
            await _calm(stage, weather.url, dice)
            return await _judged(stage, weather.url)


async def _set(stack: AsyncExitStack, weather: Storm) -> Stage:
    """Start replicas and fill the stage with people, money, prices and limited keys."""
    clock = SystemClock()
    verdicts, receipts = Ed25519Signer.generate(), Ed25519Signer.generate()
    worlds: list[World] = []
    for _ in range(_REPLICAS):
        w = await stack.enter_async_context(
            world(weather.url, clock=clock, verdict_keys=(to_base64(verdicts.public),), **_HASTE)
        )
        w.verdicts, w.receipts = verdicts, receipts
        w.attestation.receipt_keys.append(signing_key(receipts))
        worlds.append(w)

    database = await open_database(weather.url)
    stack.push_async_callback(database.close)
    books, caps = Books(database, clock), PostgresCaps(database)
    first = worlds[0]
    await first.people(_START_MICROS)
    base = await first.price("row_0", 15_000_000, 15_000_000)
    consumers = [CONSUMER, *(f"acct_c{n}" for n in range(1, _CONSUMERS))]
    providers = {P256Signer.generate(): f"acct_p{n}" for n in range(_PROVIDERS)}
    for name in (*consumers[1:], *providers.values()):
        await books.open_account(name, name)
    for machine, name in providers.items():
        await first.link(machine, name)
    # One consumer is related to one provider: promotional money may not pass between them.
    for name in (consumers[1], next(iter(providers.values()))):
        await books.add_fingerprint(name, "card", b"f" * 32)

    keys = {CONSUMER: await first.key(b"limited", limit=KEY_LIMIT)}
    await caps.set_cap(keys[CONSUMER], KEY_LIMIT, CapReset.DAILY, now=clock.now())
    await books.fund_equity("eq_start", 10_000_000, operator="ann")
    for budget in Budget:
        await books.fund_budget(f"b_{budget}", budget, 500_000, operators=("ann", "ben"))
    for name in consumers[1:]:
        await books.grant(f"start_{name}", name, _START_MICROS // 10)
    return Stage(
        worlds=tuple(worlds),
        books=books,
        caps=caps,
        outside=Outside(),
        consumers=consumers,
        providers=providers,
        keys=keys,
        prices=[base],
    )


async def _calm(stage: Stage, url: str, dice: random.Random) -> None:
    """Let evidence for every withdrawal come in, and the sweeper end what nobody ended."""
    last = Actor(stage, _WRITERS, dice)
    while stage.outside.unknown:
        await last.learn()
    connection = await asyncpg.connect(url)
    try:
        async with asyncio.timeout(_CALM_S):
            while await connection.fetchval("SELECT count(*), pg_sleep(0.1) FROM billing.lease"):
                pass
    finally:
        await connection.close()


async def _judged(stage: Stage, url: str) -> Judgement:
    connection = await asyncpg.connect(url)
    database = await open_database(url)
    try:
        return await answered(
            partial(judge, connection, database, stage.books, stage.outside, SystemClock())
        )
    finally:
        await database.close()
        await connection.close()
