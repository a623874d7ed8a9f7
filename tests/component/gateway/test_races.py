"""Two providers race for one request: the consumer sees one answer and knows who was told."""

import asyncio

import pytest
from darkbloom.router.v1 import gateway_lane_pb2 as lane_pb

from tests.component.gateway.harness import Harness
from tests.component.gateway.neighbours import PRICE
from tests.fakes.router import Script, scripted


def said(response: object) -> str:
    content: str = response.json()["choices"][0]["message"]["content"]  # type: ignore[attr-defined]
    return content


@pytest.mark.parametrize("stream", [False, True])
async def test_the_second_answers_where_the_first_is_silent(mesh: Harness, stream: bool) -> None:
    mesh.router.scripts = [Script(silent=True, hedge=scripted("from the second"))]
    response = await mesh.chat(stream=stream)
    assert response.status_code == 200
    assert "from the second" in response.text
    assert [header.sealed_to for header in mesh.router.seen.headers] == [1, 2]
    assert len({header.receipt_key for header in mesh.router.seen.headers}) == 2
    # One opening, one hold, one end: the loser costs nothing.
    await mesh.billing.until(lambda: mesh.billing.receipts)
    await mesh.router.until(lambda: mesh.router.seen.closes)
    assert len(mesh.router.seen.closes) == 1
    assert len(mesh.billing.holds) == 1
    assert not mesh.billing.releases
    [record] = mesh.billing.records
    assert record.sealed_to is None


async def test_a_first_that_wins_after_all_says_who_else_was_told(mesh: Harness) -> None:
    mesh.router.scripts = [scripted("from the first", hedge=Script(silent=True))]
    response = await mesh.chat()
    assert said(response) == "from the first"
    await mesh.billing.until(lambda: mesh.billing.receipts)
    [record] = mesh.billing.records
    # Its own terminal was signed when it was the only one.
    assert record.sealed_to == 2


async def test_a_second_that_is_not_trusted_does_not_hurt_the_first(mesh: Harness) -> None:
    mesh.router.scripts = [scripted("from the first", hedge=Script(forged_verdict=True))]
    assert said(await mesh.chat()) == "from the first"
    await mesh.router.until(lambda: mesh.router.seen.declines)
    assert mesh.router.seen.declines == [lane_pb.DECLINE_REASON_VERDICT]
    assert len(mesh.router.seen.headers) == 1


async def test_the_hold_covers_the_dearer_of_the_two(mesh: Harness) -> None:
    dear = type(PRICE)()
    dear.CopyFrom(PRICE)
    dear.price_id, dear.output_micros = "pri_dear", PRICE.output_micros * 2
    mesh.router.scripts = [scripted("from the first", hedge=Script(silent=True, price=dear))]
    assert said(await mesh.chat()) == "from the first"
    assert len(mesh.router.seen.headers) == 2
    assert len(mesh.billing.holds) == 1
    assert len(mesh.billing.extensions) == 1


async def test_a_second_that_lies_is_reported_and_the_first_is_awaited(mesh: Harness) -> None:
    lie = Script(preamble_text="content where none may be", silent=False)
    released = asyncio.Event()
    mesh.router.scripts = [scripted("from the first", hedge=lie, pause=released)]
    asking = asyncio.ensure_future(mesh.chat())
    await mesh.router.until(lambda: len(mesh.router.seen.headers) == 2)
    released.set()
    assert said(await asking) == "from the first"


async def test_a_consumer_who_leaves_cancels_both(mesh: Harness) -> None:
    mesh.router.scripts = [Script(silent=True, hedge=Script(silent=True))]
    asking = asyncio.ensure_future(mesh.chat())
    await mesh.router.until(lambda: len(mesh.router.seen.headers) == 2)
    asking.cancel()
    await mesh.router.until(lambda: len(mesh.router.seen.cancels) == 2)
    assert not mesh.router.seen.abandons
