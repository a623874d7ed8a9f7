"""A router that was broken into: it can refuse to work, and nothing else."""

import base64
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from darkbloom_edge.signatures import P256Signer
from darkbloom_local.mesh import Mesh

from tests.mesh.harness import (
    QUICK,
    Books,
    Consumer,
    Fleet,
    provider_state,
    request_id_of,
    until,
)
from tests.mesh.hostile.mischief import Mischief

pytestmark = [pytest.mark.mesh, pytest.mark.asyncio(loop_scope="session")]


@pytest.fixture(scope="module")
def mischief(state: Path) -> Mischief:
    """What the router is asked to do."""
    return Mischief(state / "mischief")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def taken(state: Path, mischief: Mischief) -> AsyncIterator[Mesh]:
    """A mesh whose router belongs to somebody else."""
    environment = {**QUICK, "router": {**QUICK["router"], **mischief.environment}}
    programs = {"router": [sys.executable, "-m", "tests.mesh.hostile.router"]}
    async with Mesh(
        state / "mesh", environment=environment, programs=programs, durable=False
    ) as found:
        await Fleet(found).wait_routable()
        yield found


@pytest_asyncio.fixture(autouse=True, loop_scope="session")
async def good_again(taken: Mesh, mischief: Mischief) -> None:
    """Before each test the router behaves, and a provider that it has framed starts again."""
    mischief.behave()
    if not await Fleet(taken).routable():
        await taken.restart("provider")
        await Fleet(taken).wait_routable()


async def settlement_of(mischief: Mischief, request_id: str) -> list[dict[str, Any]]:
    """Return what billing answered to this request's settlements, once it has taken one."""

    async def taken() -> bool:
        return any(
            note["request_id"] == request_id and note["status"] == "SETTLEMENT_STATUS_SETTLED"
            for note in mischief.seen("settled")
        )

    await until(taken, "billing has settled")
    return [note for note in mischief.seen("settled") if note["request_id"] == request_id]


async def test_the_stand_in_is_the_real_router_while_it_behaves(
    taken: Mesh, mischief: Mischief
) -> None:
    answer = (await Consumer(taken).ask(tokens=20)).json()
    (ended,) = await settlement_of(mischief, request_id_of(answer["receipt"]))
    assert ended["status"] == "SETTLEMENT_STATUS_SETTLED"
    assert mischief.seen("request")
    await Books(taken).clean()


@pytest.mark.parametrize("order", ["swap_key", "unsigned_verdict"])
async def test_a_router_that_swaps_the_key_never_gets_a_sealed_request(
    taken: Mesh, mischief: Mischief, order: str
) -> None:
    consumer = Consumer(taken)
    before, requests = await consumer.balance(), len(mischief.seen("request"))
    offers = len(mischief.seen("offer"))

    mischief.order(order)
    answer = await consumer.ask(text="for your eyes only")
    mischief.behave()

    assert answer.status_code == 503, answer.text
    assert answer.json()["error"]["type"] == "service_unavailable"
    assert len(mischief.seen("offer")) > offers
    assert len(mischief.seen("request")) == requests
    await Books(taken).clean()
    assert await consumer.balance() == before


async def test_a_body_that_is_delivered_twice_is_opened_once(
    taken: Mesh, mischief: Mischief
) -> None:
    served = provider_state(taken)["requests_served"]

    mischief.order_once("deliver_twice")
    answer = await Consumer(taken).ask(tokens=20)

    assert answer.status_code == 200, answer.text

    async def refused() -> list[dict[str, Any]]:
        return mischief.seen("twin")

    notes = await until(refused, "the provider has answered the second delivery")
    assert [(note["kind"], note["reason"]) for note in notes] == [
        ("FRAME_KIND_ERROR", "FAILURE_REASON_SENDER_KEY_REUSED")
    ]

    async def counted() -> bool:
        return bool(provider_state(taken)["requests_served"] == served + 1)

    await until(counted, "one request was served")
    await Books(taken).clean()


async def test_a_router_that_raises_the_bounds_is_refused_by_the_provider(
    taken: Mesh, mischief: Mischief
) -> None:
    consumer = Consumer(taken)
    before = await consumer.balance()

    mischief.order("raise_bounds")
    answer = await consumer.ask(tokens=20)
    mischief.behave()

    assert answer.status_code == 502, answer.text
    assert answer.json()["error"]["type"] == "provider_error"
    assert mischief.seen("error")[-1]["reason"] == "FAILURE_REASON_HEADER_MISMATCH"
    await Books(taken).clean()
    assert await consumer.balance() == before


async def test_a_router_that_inflates_what_was_opened_changes_no_charge(
    taken: Mesh, mischief: Mischief
) -> None:
    consumer = Consumer(taken)
    mischief.order("inflate_opened")
    answer = await consumer.ask(tokens=1000, delta_tokens=100)
    row = await consumer.usage(answer.headers["x-inference-job-id"])
    assert (row["completion_tokens"], row["cost_micro_usd"]) == (1000, 400)
    mischief.behave()
    await Books(taken).clean()


@pytest.mark.parametrize(
    ("order", "rejection"),
    [
        ("inflate_terminal", "terminal_signature"),
        ("other_payee", "verdict_signature"),
        ("other_request", "ids"),
        ("other_verdict", "terminal_signature"),
    ],
)
async def test_a_settlement_that_was_tampered_with_is_rejected_and_the_truth_still_pays(
    taken: Mesh, mischief: Mischief, order: str, rejection: str
) -> None:
    consumer, books = Consumer(taken), Books(taken)
    if order == "other_payee":
        key = base64.b64encode(P256Signer.generate().public).decode()
        mischief.note("payee", identity_key=key)
    if order == "other_verdict":
        await _steal_a_verdict(taken, mischief)
    before, earned = await consumer.balance(), await books.earned()

    mischief.order_once(order)
    answer = await consumer.ask(tokens=1000, delta_tokens=100)

    assert answer.status_code == 200, answer.text
    request_id = request_id_of(answer.json()["receipt"])
    first, *_ = await settlement_of(mischief, request_id)
    assert (first["status"], first["rejection"]) == ("SETTLEMENT_STATUS_REJECTED", rejection)
    row = await consumer.usage(answer.headers["x-inference-job-id"])
    assert (row["completion_tokens"], row["cost_micro_usd"]) == (1000, 400)
    assert await consumer.balance() == before - 400
    assert await books.earning(request_id) == 400
    assert await books.earned() == earned + 400
    await books.clean()


async def _steal_a_verdict(mesh: Mesh, mischief: Mischief) -> None:
    """Let a second provider in for a moment, and keep its verdict, which is still in force."""
    await mesh.start_provider("provider-2")
    await Fleet(mesh).wait_routable(2)
    other = (await Fleet(mesh).providers())[mesh.ready("provider-2")["provider_id"]]
    mischief.note(
        "verdict",
        document=base64.b64encode(other.verdict.document).decode(),
        signature=base64.b64encode(other.verdict.signature).decode(),
        key_id=other.verdict.key_id,
    )
    assert await mesh.stop("provider-2") == 0
    await Fleet(mesh).wait_routable(1)


async def test_a_router_that_inflates_counts_on_their_way_is_caught_by_the_gateway(
    taken: Mesh, mischief: Mischief
) -> None:
    consumer = Consumer(taken)
    before = await consumer.balance()

    mischief.order_once("inflate_chunks")
    answer = await consumer.ask(tokens=20)

    assert answer.status_code == 502, answer.text
    assert answer.json()["error"]["type"] == "provider_error"
    await Books(taken).clean()
    assert await consumer.balance() == before


@pytest.mark.parametrize(
    ("order", "charged", "finding"),
    [
        ("hide_terminal", 10_000, "receipts_exceeded"),
        ("deflate", 100, "receipts_unpaid"),
        ("other_verdict", 1000, "receipts_differ"),
    ],
)
async def test_what_a_router_says_of_a_break_that_never_was_is_found_by_the_audit(
    taken: Mesh, mischief: Mischief, order: str, charged: int, finding: str
) -> None:
    """Without a terminal its word stands up to the hold, but the gateway's signed record does not.

    Kept last: it leaves findings in the books.
    """
    consumer, books = Consumer(taken), Books(taken)
    if order == "other_verdict" and not mischief.seen("verdict"):
        await _steal_a_verdict(taken, mischief)
    before = (await taken.audit())["findings"]

    mischief.order(order)
    answer = await consumer.ask(tokens=1000, delta_tokens=100)
    row = await consumer.usage(answer.headers["x-inference-job-id"])
    mischief.behave()

    assert row["completion_tokens"] == charged

    async def found() -> bool:
        return bool((await taken.audit())["findings"][finding] == before[finding] + 1)

    await until(found, f"the audit reports {finding}")
    await books.clean()
