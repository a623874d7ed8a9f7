"""An operator closes inference at every gateway, over a Valkey that these tests have alone."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog
from darkbloom_gateway.end_to_end.answering import ANSWER_PATH, DECLINE_PATH
from darkbloom_gateway.end_to_end.asking import OFFERS_PATH
from darkbloom_local import stores
from redis import Redis

from tests.component.gateway.harness import BEARER, Harness, gateway
from tests.component.gateway.people import ADMIN_KEY
from tests.fakes.router import scripted

OPERATOR = {"authorization": f"Bearer {ADMIN_KEY}"}
DRAIN = "/v1/admin/drain"
INFERENCE = [
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/messages",
    "/v1/messages/count_tokens",
    "/v1/responses",
    OFFERS_PATH,
    ANSWER_PATH,
]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[tuple[ExitStack, str]]:
    """A Valkey, and what ends it before the test does: other tests' gateways share another one."""
    with ExitStack() as running:
        yield running, running.enter_context(stores.valkey(tmp_path / "valkey"))


@asynccontextmanager
async def operated(tmp_path: Path, url: str, **changes: Any) -> AsyncIterator[Harness]:
    key = tmp_path / "admin-key"
    key.write_text(ADMIN_KEY)
    async with gateway(url, admin_key_file=key, **changes) as mesh:
        yield mesh


async def drain(mesh: Harness, **body: Any) -> httpx.Response:
    return await mesh.http.post(DRAIN, json=body, headers=OPERATOR)


def assert_closed(refused: httpx.Response) -> None:
    error = refused.json()["error"]
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "3"), refused.text
    assert "draining" in error["message"]


async def test_closing_one_gateway_closes_all_until_it_is_undone(
    tmp_path: Path, store: tuple[ExitStack, str]
) -> None:
    _, url = store
    async with operated(tmp_path, url) as first, operated(tmp_path, url) as second:
        pause = asyncio.Event()
        second.router.scripts = [scripted("one", "two", pause=pause)]
        running = asyncio.ensure_future(second.chat(stream=True))
        await second.router.until(lambda: second.router.seen.sent_chunks >= 2)

        with structlog.testing.capture_logs() as logs:
            closed = await first.http.post(DRAIN, headers=OPERATOR)
        assert (closed.status_code, closed.json()) == (200, {"draining": True, "inflight": 0})
        said = [line for line in logs if line["event"] == "drain_set"]
        assert [(line["account_id"], line["draining"]) for line in said] == [("admin", True)]
        assert_closed(await first.chat())
        await second.until(lambda: second.worker.gate.draining)
        for path in INFERENCE:
            assert_closed(await second.http.post(path, json={}, headers=BEARER))

        # Everything else is open, and balancers go on sending requests here.
        seen = (await second.http.get(DRAIN, headers=OPERATOR)).json()
        assert seen == {"draining": True, "inflight": 1}
        declined = await second.http.post(DECLINE_PATH, headers=BEARER)
        assert declined.status_code == 400
        assert (await second.http.get("/v1/models", headers=BEARER)).status_code == 200
        assert (await second.http.get("/console/")).status_code == 200
        ready = await second.http.get("/readyz")
        assert (ready.status_code, ready.json()) == (
            200,
            {"draining": True, "inflight": 1, "ready": True},
        )
        assert (await second.http.get("/health")).json()["draining"] is True

        # A gateway that starts now is closed before it is ready.
        async with operated(tmp_path, url) as third:
            assert_closed(await third.chat())

        opened = await drain(first, draining=False)
        assert opened.json() == {"draining": False, "inflight": 0}
        assert (await first.chat()).status_code == 200
        await second.until(lambda: not second.worker.gate.draining)
        assert (await second.chat()).status_code == 200
        pause.set()
        assert (await running).text.endswith("data: [DONE]\n\n")


async def test_a_store_that_lost_its_memory_opens_nothing(
    tmp_path: Path, store: tuple[ExitStack, str]
) -> None:
    _, url = store
    async with operated(tmp_path, url) as mesh:
        await drain(mesh)
        with Redis.from_url(url) as valkey:
            valkey.flushall()
            await mesh.until(lambda: valkey.get("gw:drain") == b"1")
        assert_closed(await mesh.chat())


async def test_without_the_store_nothing_changes_and_it_is_said(
    tmp_path: Path, store: tuple[ExitStack, str]
) -> None:
    running, url = store
    async with operated(tmp_path, url) as mesh:
        await drain(mesh)
        running.close()

        for wanted in (True, False):
            refused = await drain(mesh, draining=wanted)
            assert refused.status_code == 503
            assert refused.json()["error"]["type"] == "service_unavailable"
            assert refused.headers["retry-after"] == "5"
        assert (await mesh.http.get(DRAIN, headers=OPERATOR)).json()["draining"] is True
        assert_closed(await mesh.chat())

    async with operated(tmp_path, url) as mesh:
        assert (await mesh.chat()).status_code == 200


async def test_a_body_that_may_mean_something_else_changes_nothing(
    tmp_path: Path, store: tuple[ExitStack, str]
) -> None:
    _, url = store
    async with operated(tmp_path, url) as mesh:
        for body, param in (
            (b'{"drain": false}', None),
            (b'{"draining": true, "force": true}', None),
            (b'{"draining": "false"}', "draining"),
            (b'{"draining": 0}', "draining"),
            (b'{"draining": null}', "draining"),
            (b"[]", None),
            (b"true", None),
            (b"{", None),
        ):
            refused = await mesh.http.post(DRAIN, content=body, headers=OPERATOR)
            error = refused.json()["error"]
            assert (refused.status_code, error["type"]) == (400, "invalid_request_error"), body
            assert error.get("param") == param
        for method in ("GET", "POST"):
            for headers in (BEARER, {}):
                refused = await mesh.http.request(method, DRAIN, headers=headers)
                assert (refused.status_code, refused.json()["error"]["type"]) == (403, "forbidden")
        assert (await mesh.chat()).status_code == 200
