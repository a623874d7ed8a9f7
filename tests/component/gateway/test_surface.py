import asyncio
import contextlib

from tests.component.gateway.harness import BEARER, Harness, gateway
from tests.component.gateway.neighbours import BUILD


async def test_models_are_listed_and_found_alike(mesh: Harness) -> None:
    async with mesh.sdk() as client:
        listed = [model.id async for model in client.models.list()]
        one = await client.models.retrieve("tiny")
        build = await client.models.retrieve(BUILD)

    assert listed == ["tiny"]
    assert (one.id, one.object, build.id) == ("tiny", "model", BUILD)
    entry = (await mesh.http.get("/v1/models", headers=BEARER)).json()["data"][0]
    assert entry == (await mesh.http.get("/v1/models/tiny", headers=BEARER)).json()
    assert entry["pricing"]["prompt"] == "0.00000005"
    assert entry["metadata"]["routable_providers"] == 1
    assert entry["supported_features"] == ["tools"]
    everything = await mesh.http.get("/v1/models?include_builds=1", headers=BEARER)
    assert [row["id"] for row in everything.json()["data"]] == ["tiny", BUILD]


async def test_an_unknown_model_is_not_found_by_id(mesh: Harness) -> None:
    response = await mesh.http.get("/v1/models/no/such", headers=BEARER)

    assert response.status_code == 404
    assert response.json()["error"]["code"] == "model_not_found"


async def test_health_and_readiness(mesh: Harness) -> None:
    health, ready = await mesh.http.get("/health"), await mesh.http.get("/readyz")

    assert (health.status_code, health.json()["status"]) == (200, "ok")
    assert (ready.status_code, ready.json()["ready"]) == (200, True)


async def test_a_request_id_is_echoed_when_it_is_well_formed(mesh: Harness) -> None:
    good = await mesh.http.get("/health", headers={"x-request-id": "my.id-1_2"})
    bad = await mesh.http.get("/health", headers={"x-request-id": "no spaces please"})

    assert good.headers["x-request-id"] == "my.id-1_2"
    assert len(bad.headers["x-request-id"]) == 12


async def test_one_origin_may_call_from_a_browser(valkey_url: str) -> None:
    async with gateway(valkey_url, cors_origin="https://console.example") as mesh:
        headers = {"origin": "https://console.example"}
        options = await mesh.http.options("/v1/chat/completions", headers=headers)
        stranger = await mesh.http.get("/health", headers={"origin": "http://localhost:3000"})

    assert options.status_code == 204
    assert options.headers["access-control-allow-origin"] == "https://console.example"
    assert "POST" in options.headers["access-control-allow-methods"]
    assert "access-control-allow-origin" not in stranger.headers


async def test_without_an_origin_only_local_pages_may_call(mesh: Harness) -> None:
    local = await mesh.http.get("/health", headers={"origin": "http://localhost:3000"})
    other = await mesh.http.get("/health", headers={"origin": "https://localhost.evil"})

    assert local.headers["access-control-allow-origin"] == "http://localhost:3000"
    assert "access-control-allow-origin" not in other.headers


async def test_who_connects_and_says_nothing_is_hung_up_on(valkey_url: str) -> None:
    async with gateway(valkey_url, headers_s=0.1) as mesh:
        reader, writer = await asyncio.open_connection(*mesh.url.removeprefix("http://").split(":"))
        writer.write(b"POST /v1/chat/completions HTTP/1.1\r\n")
        async with asyncio.timeout(30):
            assert await reader.read() == b""
        writer.close()


async def test_endless_headers_are_hung_up_on(mesh: Harness) -> None:
    reader, writer = await asyncio.open_connection(*mesh.url.removeprefix("http://").split(":"))
    writer.write(b"GET /health HTTP/1.1\r\n" + b"x-a: b\r\n" * 20_000)
    async with asyncio.timeout(30):
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
    writer.close()


async def test_metrics_count_requests_by_route_and_outcome(mesh: Harness) -> None:
    import httpx

    await mesh.chat()
    await mesh.http.get("/v1/models/canary", headers=BEARER)
    async with httpx.AsyncClient() as client:
        address = mesh.service.listeners["metrics"]
        text = (await client.get(f"http://{address}/metrics")).text

    assert f'darkbloom_request_outcomes_total{{class="success",model="{BUILD}"}} 1.0' in text
    assert 'route="/v1/models/{id}"' in text
    assert "canary" not in text


async def test_the_catalog_outlives_the_registry(valkey_url: str, tmp_path) -> None:
    async with gateway(valkey_url, state_dir=tmp_path) as mesh:
        await mesh.until((tmp_path / "catalog.binpb").exists)
        shelf = mesh.worker.catalog._shelf
        shelf.catalog = None
        mesh.worker.catalog.restore()

        assert (await mesh.chat()).status_code == 200


async def test_nothing_of_a_conversation_reaches_the_log(mesh: Harness, capsys) -> None:
    canary = "canary-51c0ffee"
    from tests.fakes.router import scripted

    mesh.router.scripts = [scripted(canary), scripted(canary, tamper=0), scripted(canary)]
    for stream in (True, True, False):
        await mesh.chat(stream=stream, messages=[{"role": "user", "content": canary}])

    captured = capsys.readouterr()
    assert canary not in captured.out + captured.err
