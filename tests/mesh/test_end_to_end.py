"""End-to-end mode over real processes: the gateway carries what it cannot read."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest
import redis.asyncio as redis
from darkbloom_edge.verify import verify_receipt
from darkbloom_local.mesh import Mesh
from darkbloom_local.models import SCRIPTED
from darkbloom_local.seeds import CONSUMER

from tests.end_to_end_client import Offered, Prompt, Sealing, post, read_offer
from tests.mesh.harness import Books, Consumer, running_on, script, until
from tests.mesh.second_gateway import second_gateway

pytestmark = [pytest.mark.mesh, pytest.mark.asyncio(loop_scope="session")]


def asking(**fields: Any) -> Prompt:
    return Prompt({"model": "scripted", "messages": script(**fields), "stream": True})


async def offered(consumer: Consumer, prompt: Prompt, **changes: Any) -> Offered:
    answer = await consumer.post(prompt.ask(**changes), path="/v1/offers")
    assert answer.status_code == 200, answer.text
    verdict_keys, gateway_keys = await consumer.keys()
    return read_offer(answer.json(), prompt, verdict_keys=verdict_keys, gateway_keys=gateway_keys)


async def test_an_answer_that_only_its_owner_can_open_is_whole_proved_and_paid(
    mesh: Mesh, consumer: Consumer, books: Books
) -> None:
    before = await consumer.balance()
    prompt = asking(text="nobody between us reads this")
    offer = await offered(consumer, prompt)
    assert offer.said.build == SCRIPTED
    sealing = Sealing(prompt, offer)
    async with consumer.client() as http:
        response = await post(http, sealing)

    assert response.status_code == 200, response.text
    assert sealing.text == "nobody between us reads this"
    receipt, terminal = sealing.receipt()
    verdict_keys, gateway_keys = await consumer.keys()
    report = verify_receipt(receipt, verdict_keys=verdict_keys, gateway_keys=gateway_keys)
    assert report.ok, report
    usage = await consumer.usage(response.headers["x-inference-job-id"])
    assert usage["prompt_tokens"] == terminal.prompt_tokens
    assert usage["completion_tokens"] == terminal.completion_tokens == 5
    assert usage["cost_micro_usd"] <= offer.said.hold_micro_usd
    await books.clean()
    assert before - await consumer.balance() == usage["cost_micro_usd"]


async def test_an_offer_of_one_gateway_is_answered_by_another(
    mesh: Mesh, consumer: Consumer, books: Books
) -> None:
    async with second_gateway(mesh) as elsewhere:
        prompt = asking(tokens=300)
        headers = {"authorization": f"Bearer {consumer.api_key}"}
        async with httpx.AsyncClient(base_url=elsewhere, headers=headers, timeout=30) as http:
            await until(lambda: _ready(http), "the second gateway is ready")
            sealing = Sealing(prompt, await offered(consumer, prompt))
            response = await post(http, sealing)
            assert response.status_code == 200, response.text
            # Many more chunks than credits: they were granted by the worker that claimed.
            assert len(sealing.text.split()) == 300
            sealing.receipt()

            again = await post(http, Sealing(prompt, sealing.offered))
            assert (again.status_code, again.json()["error"]["type"]) == (410, "offer_expired")
            assert again.headers["x-darkbloom-retry"] == "new-offer"
    await books.quiet()


async def _ready(http: httpx.AsyncClient) -> bool:
    return (await http.get("/readyz")).status_code == 200


async def test_a_declined_offer_is_over_and_costs_nothing(
    mesh: Mesh, consumer: Consumer, books: Books
) -> None:
    prompt = asking(text="unsaid")
    offer = await offered(consumer, prompt)
    headers = {"x-darkbloom-offer": offer.said.offer_id}
    async with consumer.client() as http:
        assert (await http.post("/v1/offers/decline", headers=headers)).status_code == 204
        assert (await http.post("/v1/offers/decline", headers=headers)).status_code == 410
        assert (await post(http, Sealing(prompt, offer))).status_code == 410
    await books.quiet()


async def test_an_offer_that_nobody_uses_gives_its_money_back(
    consumer: Consumer, books: Books
) -> None:
    await offered(consumer, asking(text="unsaid"))
    assert await books.held() > 0
    await books.quiet()


async def test_nine_offers_are_one_too_many(mesh: Mesh, consumer: Consumer, books: Books) -> None:
    # Eight that other workers have made a moment ago, and that live for longer than any machine
    # needs for the ninth.
    store = redis.Redis.from_url(mesh.redis_url)
    key, far = f"offers:{CONSUMER}", (await _store_seconds(store) + 600) * 1000
    try:
        await store.zadd(key, {f"slot_{number}": far for number in range(8)})
        # An offer of the story before may still be about to end the whole set.
        await store.persist(key)

        async def turned_away() -> httpx.Response | None:
            # A worker that waits half a second for the store counts its own: ask again then.
            answer = await consumer.post(asking(text="unsaid").ask(), path="/v1/offers")
            return None if answer.status_code == 200 else answer

        refused = await until(turned_away, "the ninth offer is refused")
        assert (refused.status_code, refused.json()["error"]["code"]) == (
            429,
            "too_many_open_offers",
        )
        assert refused.headers["retry-after"] == "2"
        await store.zrem(key, "slot_0")
        await offered(consumer, asking(text="unsaid"))
    finally:
        await store.delete(key)
        await store.aclose()
    await books.quiet()


async def _store_seconds(store: redis.Redis) -> int:
    seconds, _ = await store.time()
    return int(seconds)


async def test_who_hangs_up_pays_for_what_was_passed_on(
    mesh: Mesh, consumer: Consumer, books: Books
) -> None:
    prompt = asking(tokens=500, interval_s=0.02)
    offer = await offered(consumer, prompt)
    sealing = Sealing(prompt, offer)
    async with (
        consumer.client() as http,
        http.stream(
            "POST", "/v1/offers/answer", content=sealing.content, headers=sealing.headers
        ) as response,
    ):
        async for data in response.aiter_raw():
            sealing.feed(data)
            if len(sealing.deltas) > 3:
                break
    usage = await consumer.usage(offer.said.attempt_id)
    assert 3 <= usage["completion_tokens"] < 500
    assert 0 < usage["prompt_tokens"] < offer.said.prompt_bound
    await until(lambda: _idle(mesh), "the engine stops")
    await books.clean()


async def _idle(mesh: Mesh) -> bool:
    return running_on(mesh) == 0


@pytest.mark.parametrize(
    ("spoil", "status"),
    [
        (lambda body: {**body, "nonce": "AA=="}, 400),
        (lambda body: {**body, "prompt": "hello"}, 400),
        (lambda body: {**body, "model": "nobody/knows"}, 404),
        (lambda body: {**body, "trust_floor": "hardware"}, 503),
        (lambda body: {**body, "exclude": ["prov_" + "0" * 32]}, 200),
    ],
    ids=["nonce", "field", "model", "floor", "exclude"],
)
async def test_what_is_asked_is_checked(
    consumer: Consumer, spoil: Callable[[dict[str, Any]], dict[str, Any]], status: int
) -> None:
    answer = await consumer.post(spoil(asking(text="x").ask()), path="/v1/offers")
    assert answer.status_code == status, answer.text


async def test_a_body_that_does_not_open_is_told_with_whom_not_to_try_again(
    consumer: Consumer, books: Books
) -> None:
    prompt = asking(text="unsaid")
    offer = await offered(consumer, prompt)
    async with consumer.client() as http:
        answer = await post(http, Sealing(prompt, offer, prompt_bound=offer.said.prompt_bound + 1))
    assert answer.status_code >= 400
    assert answer.headers.get("x-darkbloom-retry", "new-offer") == "new-offer"
    await books.quiet()


async def test_more_ciphertext_than_was_asked_for_is_refused(
    consumer: Consumer, books: Books
) -> None:
    prompt = asking(text="long " * 50)
    offer = await offered(consumer, prompt, body_bytes=100)
    async with consumer.client() as http:
        answer = await post(http, Sealing(prompt, offer))
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "offer_exceeded")
    await books.quiet()
