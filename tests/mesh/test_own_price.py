"""A provider's own price: held for, paid, refused where nobody can afford it, taken back."""

from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio
from darkbloom_local.mesh import Mesh
from darkbloom_local.models import SCRIPTED
from darkbloom_local.seeds import PROVIDER

from tests.mesh.harness import Books, Consumer, request_id_of, script, until

pytestmark = [pytest.mark.mesh, pytest.mark.asyncio(loop_scope="session")]

PLATFORM_OUTPUT = 400_000
OWN = {"model": SCRIPTED, "input_price": 100_000, "output_price": 1_600_000}
TOKENS = 1000
PLATFORM_CHARGE = TOKENS * PLATFORM_OUTPUT // 1_000_000
OWN_CHARGE = 4 * PLATFORM_CHARGE


@pytest_asyncio.fixture(loop_scope="session")
async def owner(mesh: Mesh) -> AsyncIterator[httpx.AsyncClient]:
    """The provider's owner; whatever a story set is taken back."""
    secret, _ = await Books(mesh).new_account(PROVIDER)
    async with Consumer(mesh, secret).client() as http:
        yield http
        await http.request("DELETE", "/v1/pricing", json={"model": SCRIPTED})


async def charged(consumer: Consumer, books: Books) -> int:
    """Ask once; what the consumer paid, which is what the provider earned."""
    body = {"model": SCRIPTED, "messages": script(tokens=TOKENS), "max_tokens": 2 * TOKENS}
    response = await consumer.post(body)
    assert response.status_code == 200, response.text
    row = await consumer.usage(response.headers["x-inference-job-id"])
    assert await books.earning(request_id_of(response.json()["receipt"])) == row["cost_micro_usd"]
    return int(row["cost_micro_usd"])


async def test_a_dearer_price_is_held_for_paid_and_taken_back(
    mesh: Mesh, owner: httpx.AsyncClient, consumer: Consumer, books: Books
) -> None:
    assert await charged(consumer, books) == PLATFORM_CHARGE

    too_high = await owner.put("/v1/pricing", json={**OWN, "output_price": 1_600_001})
    assert (too_high.status_code, too_high.json()["error"]["code"]) == (400, "price_too_high")
    assert (await owner.put("/v1/pricing", json=OWN)).json()["status"] == "updated"

    async def dearer() -> bool:
        return await charged(consumer, books) == OWN_CHARGE

    await until(dearer, "offers at the provider's own price")
    public = (await consumer.get("/v1/pricing")).json()["prices"]
    (row,) = [row for row in public if row["model"] == SCRIPTED]
    assert row["output_price"] == PLATFORM_OUTPUT

    # Enough for the platform's price, too little for the only provider's.
    secret, _ = await books.new_account(grant_micros=2_000)
    poor = Consumer(mesh, secret)
    body = {"model": SCRIPTED, "messages": script(tokens=1), "max_tokens": 2 * TOKENS}
    response = await poor.post(body)
    refusal = response.json()["error"]
    assert (response.status_code, refusal["type"], refusal["code"]) == (
        402,
        "provider_error",
        "provider_error",
    )
    assert "insufficient funds for provider price" in refusal["message"]

    async def free_again() -> bool:
        return await poor.balance() == 2_000

    await until(free_again, "the refused request gives its hold back")

    gone = await owner.request("DELETE", "/v1/pricing", json={"model": SCRIPTED})
    assert gone.json() == {"status": "deleted", "model": SCRIPTED}

    async def platform() -> bool:
        return await charged(consumer, books) == PLATFORM_CHARGE

    await until(platform, "offers at the platform's price again")
    await books.clean()


async def test_what_was_asked_and_earned_shows_in_statements_sums_and_boards(
    owner: httpx.AsyncClient, consumer: Consumer, books: Books
) -> None:
    before = (await owner.get("/v1/provider/earnings-summary")).json()["lifetime_jobs"]
    charge = await charged(consumer, books)
    statement = (await consumer.get("/v1/payments/ledger?limit=20")).json()["entries"]
    refund = next(entry for entry in statement if entry["type"] == "refund")
    assert refund["settled_micro_usd"] == charge
    rows = (await consumer.get("/v1/payments/usage?format=csv")).text.splitlines()
    assert str(charge) in rows[1].split(",")

    async def counted() -> bool:
        return bool(
            (await owner.get("/v1/provider/earnings-summary")).json()["lifetime_jobs"] > before
        )

    await until(counted, "the job is counted")
    (machine,) = (await owner.get("/v1/provider/earnings-summary")).json()["machines"]
    earned = await owner.get("/v1/me/earnings", params={"machine": machine["machine_key"]})
    assert earned.json()["earnings"][0]["amount_micro_usd"] == charge

    async def computed() -> bool:
        return (await consumer.get("/v1/leaderboard?metric=jobs&window=24h")).status_code == 200

    await until(computed, "boards are computed")
    board = await consumer.get("/v1/leaderboard?metric=jobs&window=24h")
    assert PROVIDER not in board.text
