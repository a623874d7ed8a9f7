"""A provider that cheats: it is untrusted at once, and the request moves or fails cleanly."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from darkbloom_local.mesh import Mesh

from tests.mesh.harness import QUICK, Books, Consumer, Fleet, provider_state, until
from tests.mesh.hostile.mischief import PROVIDER_PROGRAM, Mischief

pytestmark = [pytest.mark.mesh, pytest.mark.asyncio(loop_scope="session")]

PROVIDERS = ("provider", "provider-2")
TEXT = "nothing but the truth"
AT_ONCE = ("plaintext", "mis_keyed", "lying_counts", "reordered")
"""Seen with the first chunk, when nothing has been handed out."""
LATER = ("replayed", "strange_terminal")
"""Seen after a good chunk."""


@pytest.fixture(scope="module")
def mischief(state: Path) -> Mischief:
    """What the providers are asked to do."""
    return Mischief(state / "mischief")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def cheats(state: Path, mischief: Mischief) -> AsyncIterator[Mesh]:
    """A mesh with two providers, each of which may cheat."""
    environment = {**QUICK, **dict.fromkeys(PROVIDERS, mischief.environment)}
    async with Mesh(
        state / "mesh",
        environment=environment,
        programs=dict.fromkeys(PROVIDERS, PROVIDER_PROGRAM),
        durable=False,
    ) as found:
        await found.start_provider("provider-2")
        yield found


@pytest_asyncio.fixture(autouse=True, loop_scope="session")
async def trusted(cheats: Mesh, mischief: Mischief) -> None:
    """Before each test both providers behave and are trusted; who was not, starts again."""
    mischief.behave()
    untrusted = [name for name in PROVIDERS if not await _online(cheats, name)]
    async with asyncio.TaskGroup() as tasks:
        for name in untrusted:
            tasks.create_task(cheats.restart(name))
    await Fleet(cheats).wait_routable(2)


async def _online(mesh: Mesh, name: str) -> bool:
    provider = (await Fleet(mesh).providers()).get(mesh.ready(name)["provider_id"])
    return provider is not None and provider.status == "online"


async def untrusted_one(mesh: Mesh) -> str:
    """Return the provider that lost its trust, once it is exactly one and knows why."""

    async def found() -> str | None:
        fallen = [name for name in PROVIDERS if not await _online(mesh, name)]
        return fallen[0] if len(fallen) == 1 else None

    name = str(await until(found, "one provider is untrusted"))

    async def told() -> bool:
        return provider_state(mesh, name)["trust_status"] == "untrusted"

    await until(told, "the provider knows")
    assert provider_state(mesh, name)["trust_reason"] == "violation"
    explained = await Fleet(mesh).explain(mesh.ready(name)["provider_id"])
    assert not explained.eligible
    assert "untrusted" in explained.evidence
    return name


@pytest.mark.parametrize("cheat", AT_ONCE)
async def test_a_cheat_with_the_first_chunk_moves_the_request_and_costs_the_trust(
    cheats: Mesh, mischief: Mischief, cheat: str
) -> None:
    consumer, books = Consumer(cheats), Books(cheats)
    before, earned = await consumer.balance(), await books.earned()

    mischief.order_once(cheat)
    answer = await consumer.ask(text=TEXT)

    cheater = await untrusted_one(cheats)
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-provider-id"] != cheats.ready(cheater)["provider_id"]
    body = answer.json()
    assert body["choices"][0]["message"]["content"] == TEXT
    assert (await consumer.verify(body["receipt"], answer=TEXT)).ok
    row = await consumer.usage(answer.headers["x-inference-job-id"])
    assert await consumer.balance() == before - row["cost_micro_usd"]
    assert await books.earned() == earned + row["cost_micro_usd"]
    await books.clean()


@pytest.mark.parametrize("cheat", AT_ONCE[:2])
async def test_where_everybody_cheats_the_request_fails_and_costs_nothing(
    cheats: Mesh, mischief: Mischief, cheat: str
) -> None:
    consumer, books = Consumer(cheats), Books(cheats)
    before = await consumer.balance()

    mischief.order(cheat)
    answer = await consumer.ask(text=TEXT)

    assert answer.status_code == 502, answer.text
    assert answer.json()["error"]["type"] == "provider_error"
    refused = await consumer.ask(text=TEXT)
    assert refused.status_code in (429, 503)
    await books.clean()
    assert await consumer.balance() == before


@pytest.mark.parametrize("cheat", LATER)
async def test_a_cheat_after_a_good_chunk_never_becomes_an_answer(
    cheats: Mesh, mischief: Mischief, cheat: str
) -> None:
    consumer, books = Consumer(cheats), Books(cheats)
    earned = await books.earned()

    mischief.order_once(cheat)
    async with consumer.streaming(text=TEXT, interval_s=0.1) as reading:
        stream = await reading.rest()

    cheater = await untrusted_one(cheats)
    assert stream.provider_id == cheats.ready(cheater)["provider_id"]
    assert stream.done == 0
    assert stream.error is not None
    assert stream.error["type"] == "provider_error"
    assert TEXT.startswith(stream.text)
    assert not any("receipt" in event for event in stream.events)

    row = await consumer.usage(stream.job_id)
    assert row["completion_tokens"] == stream.words
    assert await books.earned() == earned + row["cost_micro_usd"]
    await books.clean()


async def test_a_wrong_signature_under_a_whole_answer_is_a_502(
    cheats: Mesh, mischief: Mischief
) -> None:
    mischief.order_once("strange_terminal")
    answer = await Consumer(cheats).ask(text=TEXT)
    assert answer.status_code == 502, answer.text
    assert answer.json()["error"]["type"] == "provider_error"
    await untrusted_one(cheats)
    await Books(cheats).clean()


async def test_more_tokens_than_the_text_can_have_are_not_believed(cheats: Mesh) -> None:
    consumer, books = Consumer(cheats), Books(cheats)
    before = await consumer.balance()
    answer = await consumer.ask(text=TEXT, inflate_tokens=5000)
    assert answer.status_code == 502, answer.text
    await books.clean()
    assert await consumer.balance() == before
