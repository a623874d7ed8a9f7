"""Images that a request names: what is fetched, what never is, and when."""

import asyncio
import base64
import json
import threading
from collections.abc import AsyncIterator, Mapping, Sequence
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from anthropic import AsyncAnthropic
from darkbloom.billing.v1.ledger_pb2 import HoldResult
from darkbloom.common.v1.error_reason_pb2 import ErrorReason
from darkbloom_edge.dialects.media import RemoteMedia
from darkbloom_edge.media import MAX_FILE_BYTES, MediaKind
from darkbloom_gateway.errors import ApiError
from darkbloom_gateway.media.fetcher import Fetcher
from darkbloom_gateway.media.network import PublicNetwork, Resolver, TooManyNamesError
from darkbloom_mesh.clock import SystemClock

from tests.component.gateway.harness import BEARER, Harness, gateway
from tests.component.gateway.neighbours import API_KEY, FakeRegistry
from tests.fakes.media_server import HOST, OTHER, PUBLIC, Internet, MediaServer, media_server
from tests.media import MP4, data_url, image_part, jpeg, png, seen

ACCOUNT = "acct_one"
PARAM = "messages[0].content[1].image_url.url"


@pytest_asyncio.fixture(loop_scope="function")
async def server(tmp_path: Path) -> AsyncIterator[MediaServer]:
    async with media_server(tmp_path) as running:
        yield running


def seeing() -> FakeRegistry:
    registry = FakeRegistry()
    registry.catalog.builds[0].capabilities.append("vision")
    return registry


@pytest_asyncio.fixture(loop_scope="function")
async def mesh(valkey_url: str, server: MediaServer) -> AsyncIterator[Harness]:
    """A gateway whose only build sees, on an internet of one server."""
    blocked = "ads.example, Bücher.example., blocked.example"
    async with gateway(valkey_url, registry=seeing(), media_blocked_hosts=blocked) as running:
        use(running, server)
        yield running


def use(mesh: Harness, server: MediaServer) -> Internet:
    """Lead a gateway to the server, and return the internet in between."""
    internet = Internet(server.port)
    fetcher = mesh.worker.stage.fetcher
    fetcher.network, fetcher.trust = internet.network(), server.trust
    return internet


def error_of(response: httpx.Response) -> tuple[int, str, str, Any]:
    error = response.json()["error"]
    return response.status_code, error["type"], error["code"], error.get("param")


REFUSED = (400, "invalid_request_error", "invalid_request_error", PARAM)


async def test_an_image_of_the_internet_arrives_as_if_it_had_been_inlined(
    mesh: Harness, server: MediaServer
) -> None:
    internet = use(mesh, server)
    url = server.file("/a.png?size=1", png(), "content-type: text/html", "set-cookie: a=b")

    inlined = await mesh.chat(messages=seen(data_url(png())))
    fetched = await mesh.chat(messages=seen(url), n=2)

    assert inlined.status_code == fetched.status_code == 200, fetched.text
    first, *others = [request.messages for request in mesh.router.seen.requests]
    # One fetch for both choices, and nothing is left of where it came from.
    assert others == [first, first]
    assert [open_.traits.requires_vision for open_ in mesh.router.seen.opens] == [True] * 3
    assert (internet.resolved, internet.called) == ([HOST], [(PUBLIC, 443)])
    (asked,) = server.asked
    names = {line.split(b":")[0].lower() for line in asked.split(b"\r\n")[1:] if line}
    assert names == {b"host", b"accept", b"accept-encoding", b"user-agent"}
    assert "media_fetch_us" in json.loads(fetched.headers["x-timing"])
    assert "media_fetch_us" not in json.loads(inlined.headers["x-timing"])
    # Nobody pays more than was held before it was known how large the file is.
    assert mesh.router.seen.opens[1].prompt_bound > mesh.router.seen.opens[0].prompt_bound


async def test_only_who_may_ask_and_can_pay_makes_us_fetch(
    mesh: Harness, server: MediaServer
) -> None:
    url = server.file("/a.png", png())
    mesh.billing.refusal = HoldResult(refusal=ErrorReason.ERROR_REASON_INSUFFICIENT_FUNDS)

    poor = await mesh.chat(messages=seen(url))
    mesh.billing.refusal = None
    text_only = await mesh.chat(messages=seen(url), tools=TOOLS, tool_choice="required")

    assert poor.status_code == 402
    assert error_of(text_only) == (*REFUSED[:3], "tool_choice")
    assert server.asked == []


TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]


async def test_a_fetch_that_fails_is_400_and_gives_the_hold_back(
    mesh: Harness, server: MediaServer
) -> None:
    internet = use(mesh, server)
    internet.names |= {"near.example": ["10.0.0.1"], "both.example": [PUBLIC, "127.0.0.1"]}
    internet.names["sub.ads.example"] = [PUBLIC]
    server.file("/gone", b"")
    urls = [
        f"https://{HOST}/missing.png",
        server.file("/text.png", b"<html>no picture</html>"),
        server.file("/zipped.png", png(), "content-encoding: gzip"),
        server.redirect("/near", "https://near.example/a.png"),
        server.redirect("/metadata", "https://169.254.169.254/latest"),
        server.redirect("/plain", "http://pictures.example/a.png"),
        server.redirect("/round", "/round"),
        "https://near.example/a.png",
        "https://both.example/a.png",
        "https://nobody.example/a.png",
        "https://sub.ads.example/a.png",
        "https://sub.ads.example。/a.png",
        "https://bücher.example/a.png",
        "https://[v1.é:x]/a.png",
        "https://10.0.0.1/a.png",
        "https://[::ffff:127.0.0.1]/a.png",
        "https://user:pass@pictures.example/a.png",
        "https://pictures.example:8443/a.png",
        "https://localhost/a.png",
    ]
    internet.names |= {name: [name] for name in ("10.0.0.1", "::ffff:127.0.0.1")}
    internet.names |= {"169.254.169.254": ["169.254.169.254"], "localhost": ["127.0.0.1"]}

    for url in urls:
        response = await mesh.chat(messages=seen(url))
        assert error_of(response) == REFUSED, url
        assert url not in response.text
        assert "pictures" not in response.text

    assert {address for address, _ in internet.called} == {PUBLIC}
    await mesh.billing.until(lambda: len(mesh.billing.releases) == len(urls))
    assert mesh.router.seen.opens == []


async def test_redirects_are_followed_and_every_hop_is_resolved_once(
    mesh: Harness, server: MediaServer
) -> None:
    internet = use(mesh, server)
    server.file("/end.jpg", jpeg())
    server.redirect("/2", f"https://{OTHER}/end.jpg")
    url = server.redirect("/1", "/2#x")

    assert (await mesh.chat(messages=seen(url))).status_code == 200
    assert internet.resolved == [HOST, HOST, OTHER]


async def test_the_switch_turns_fetching_off_and_text_builds_see_nothing(
    valkey_url: str, server: MediaServer
) -> None:
    url = server.file("/a.png", png())
    async with gateway(valkey_url, registry=seeing(), remote_media=False) as off:
        use(off, server)
        assert error_of(await off.chat(messages=seen(url))) == REFUSED
        inlined = await off.chat(messages=seen(data_url(png())))
        assert inlined.status_code == 200
    async with gateway(valkey_url) as blind:
        use(blind, server)
        for one in (url, data_url(png())):
            assert error_of(await blind.chat(messages=seen(one))) == (*REFUSED[:3], "messages")
    assert server.asked == []


async def test_who_leaves_ends_the_fetch(mesh: Harness, server: MediaServer) -> None:
    body = {"model": "tiny", "messages": seen(f"https://{HOST}/stall")}
    with pytest.raises(httpx.ReadTimeout):
        await mesh.http.post("/v1/chat/completions", json=body, headers=BEARER, timeout=0.5)

    assert len(server.asked) == 1
    await mesh.billing.until(lambda: mesh.billing.releases)
    assert mesh.router.seen.opens == []


def fetcher(server: MediaServer, **limits: Any) -> Fetcher:
    return Fetcher(Internet(server.port).network(), enabled=True, trust=server.trust, **limits)


async def fetch(server: MediaServer, *files: RemoteMedia) -> list[Mapping[str, Any]]:
    return await fetcher(server).fetch(files, ACCOUNT)


def wanted(url: str, kind: MediaKind = MediaKind.IMAGE) -> RemoteMedia:
    return RemoteMedia(kind, "p", url)


async def test_a_file_may_be_8_mib_and_all_of_them_10(server: MediaServer) -> None:
    fits = server.file("/fits.png", png() + b"\0" * (MAX_FILE_BYTES - len(png())))
    over = server.file("/over.png", png() + b"\0" * MAX_FILE_BYTES)
    # One that does not say its length, and one that lies about it.
    server.answers["/long.png"] = b"HTTP/1.1 200 OK\r\n\r\n" + png() + b"\0" * MAX_FILE_BYTES
    third = server.file("/third.png", png() + b"\0" * (MAX_FILE_BYTES // 3))
    server.answers["/cut.png"] = b"HTTP/1.1 200 OK\r\ncontent-length: 900\r\n\r\n" + png()

    assert len(await fetch(server, wanted(fits))) == 1
    for urls in ([over], [f"https://{HOST}/long.png"], [third] * 4, [f"https://{HOST}/cut.png"]):
        with pytest.raises(ApiError) as refused:
            await fetch(server, *map(wanted, urls))
        assert (refused.value.http_status, refused.value.param) == (400, "p")


async def test_each_file_is_of_the_kind_that_was_asked_for(server: MediaServer) -> None:
    film, image = server.file("/a.mp4", MP4), server.file("/a.png", png())

    parts = await fetch(server, wanted(film, MediaKind.VIDEO), wanted(image))

    assert [part["media_type"] for part in parts] == ["video/mp4", "image/png"]
    with pytest.raises(ApiError, match="is no image"):
        await fetch(server, wanted(film))


async def test_a_server_that_is_not_who_it_says_is_not_believed(server: MediaServer) -> None:
    server.file("/a.png", png())
    internet = Internet(server.port, {"impostor.example": [PUBLIC]})
    careful = Fetcher(internet.network(), enabled=True, trust=server.trust)

    with pytest.raises(ApiError, match="could not be fetched"):
        await careful.fetch([wanted("https://impostor.example/a.png")], ACCOUNT)
    assert server.asked == []


async def test_several_images_keep_their_places(mesh: Harness, server: MediaServer) -> None:
    first, second = server.file("/1", png()), server.file("/2", jpeg())
    content = [image_part(first), image_part(data_url(png())), image_part(second)]

    assert (await mesh.chat(messages=[{"role": "user", "content": content}])).status_code == 200

    (request,) = mesh.router.seen.requests
    kinds = [part["media_type"] for part in request.messages[0]["content"]]
    assert kinds == ["image/png", "image/png", "image/jpeg"]


async def test_a_server_that_stalls_is_given_up_and_holds_its_place_no_longer(
    server: MediaServer,
) -> None:
    stalled, image = wanted(f"https://{HOST}/stall"), wanted(server.file("/a.png", png()))
    for limits in ({"file_s": 0.2}, {"total_s": 0.2}):
        hurried = fetcher(server, places=1, **limits)
        with pytest.raises(ApiError, match="in time") as late:
            await hurried.fetch([stalled], ACCOUNT)
        assert (late.value.http_status, late.value.param) == (400, "p")
    assert len(await fetch(server, image)) == 1


async def test_where_all_places_are_taken_the_gateway_is_busy(server: MediaServer) -> None:
    full = fetcher(server, places=0, file_s=0.05)

    with pytest.raises(ApiError) as refused:
        await full.fetch([wanted(f"https://{HOST}/a.png")], ACCOUNT)

    assert (refused.value.http_status, refused.value.retry_after_s) == (503, 1)
    assert server.asked == []


async def test_an_account_that_names_slow_servers_leaves_places_to_others(
    server: MediaServer,
) -> None:
    both = fetcher(server, places=3, share=2)
    slow = [wanted(f"https://{HOST}/stall")] * 6
    waiting = asyncio.ensure_future(both.fetch(slow, "acct_slow"))
    async with asyncio.timeout(30):
        await server.until(2)
    image = wanted(server.file("/a.png", png()))

    assert len(await both.fetch([image] * 3, ACCOUNT)) == 3

    assert sum(b"/stall" in head for head in server.asked) == 2
    waiting.cancel()
    await asyncio.wait({waiting})


async def test_lookups_that_nobody_answers_hold_up_nobody_for_long() -> None:
    silent = threading.Event()

    def look_up(name: str) -> list[str]:
        silent.wait(30)
        return [f"{name} is at {PUBLIC}"]

    names = Resolver(2, look_up)
    careful = Fetcher(PublicNetwork(names), enabled=True, file_s=0.2)
    slow = [wanted(f"https://{name}.example/") for name in "ab"]
    try:
        for one in slow:
            with pytest.raises(ApiError, match="in time"):
                await careful.fetch([one], ACCOUNT)
        # Both threads still ask, although nobody waits for them.
        with pytest.raises(ApiError) as refused:
            await careful.fetch([wanted("https://c.example/")], "acct_two")
        assert (refused.value.http_status, refused.value.retry_after_s) == (503, 1)

        silent.set()
        async with asyncio.timeout(30):
            while not (found := await looked_up(names)):
                await SystemClock().sleep(0.01)
        assert found == [f"d.example is at {PUBLIC}"]
    finally:
        silent.set()
        await names.close()


async def looked_up(names: Resolver) -> Sequence[str]:
    try:
        return await names("d.example")
    except TooManyNamesError:
        return []


async def test_a_public_network_of_ours_is_not_called(server: MediaServer) -> None:
    internet = Internet(server.port)
    network = PublicNetwork(internet.resolve, internet, blocked=[ip_network("93.184.216.0/24")])
    careful = Fetcher(network, enabled=True, trust=server.trust)

    with pytest.raises(ApiError, match="not asked"):
        await careful.fetch([wanted(server.file("/a.png", png()))], ACCOUNT)
    assert internet.called == []


async def test_every_stock_sdk_shows_an_image(mesh: Harness) -> None:
    text = base64.b64encode(png()).decode()
    async with mesh.sdk() as client:
        said = await client.responses.create(
            model="tiny",
            input=[
                {
                    "role": "user",
                    "content": [
                        {"type": "input_text", "text": "what is this?"},
                        {"type": "input_image", "image_url": data_url(png()), "detail": "auto"},
                    ],
                }
            ],
        )
    async with AsyncAnthropic(api_key=API_KEY, base_url=mesh.url, max_retries=0) as anthropic:
        source: Any = {"type": "base64", "media_type": "image/png", "data": text}
        message = await anthropic.messages.create(
            model="tiny",
            max_tokens=9,
            messages=[
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "what is this?"},
                        {"type": "image", "source": source},
                    ],
                }
            ],
        )

    assert said.output_text == "Hello world"
    assert message.content[0].type == "text"
    first, second = [request.messages for request in mesh.router.seen.requests]
    assert first == second
    assert first[0]["content"][1]["media_type"] == "image/png"
