"""Prompts counted by the model's own tokenizer: `count_tokens`, and holds that come close."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from anthropic import AsyncAnthropic
from darkbloom_edge.delta import Delta
from darkbloom_edge.manifest import store_name
from darkbloom_mesh.clock import SystemClock
from msgspec.structs import replace
from prometheus_client import generate_latest

from tests.component.gateway.harness import BEARER, Harness, gateway
from tests.component.gateway.neighbours import API_KEY, BUILD, FakeRegistry
from tests.fakes.router import scripted
from tests.tokenizers import byte_level, manifest_of

PATH = "/v1/messages/count_tokens"
WORDS = "the quick brown fox jumps over the lazy dog "
ASK: dict[str, Any] = {"model": "tiny", "messages": [{"role": "user", "content": WORDS * 40}]}


def registry_of(tmp_path: Path, placed: str, named: str) -> FakeRegistry:
    registry = FakeRegistry()
    registry.manifest = manifest_of(BUILD, "v1", named)
    for version in ("v1", "v2"):
        folder = tmp_path / store_name(BUILD) / version
        folder.mkdir(parents=True)
        (folder / "tokenizer.json").write_text(placed)
    return registry


async def bound_of(mesh: Harness) -> int:
    response = await mesh.http.post("/v1/chat/completions", json=ASK, headers=BEARER)
    assert response.status_code == 200
    bound: int = mesh.router.seen.opens[-1].prompt_bound
    assert mesh.router.seen.headers[-1].prompt_bound == bound  # type: ignore[attr-defined]
    return bound


async def test_a_tokenizer_makes_holds_close_and_counts_what_the_sdk_asks(
    valkey_url: str, tmp_path: Path
) -> None:
    made = byte_level(WORDS)
    registry = registry_of(tmp_path, made, made)
    async with gateway(valkey_url, registry=registry, tokenizers_dir=tmp_path) as mesh:
        await mesh.until(lambda: mesh.worker.tokenizers.any)
        client = AsyncAnthropic(api_key=API_KEY, base_url=mesh.url, max_retries=0)
        async with client:
            counted = await client.messages.count_tokens(**ASK)
        raw = await mesh.http.post(PATH, json=ASK, headers=BEARER)
        bound = await bound_of(mesh)

    words = 9 * 40
    assert words <= counted.input_tokens <= words + 8
    assert raw.headers["x-darkbloom-token-count"] == "tokenizer"
    assert raw.headers["x-ratelimit-limit-requests"]
    assert counted.input_tokens < bound < len(WORDS * 40) // 2


async def test_another_tokenizer_than_the_manifests_counts_for_nothing(
    valkey_url: str, tmp_path: Path
) -> None:
    registry = registry_of(tmp_path, byte_level(WORDS), byte_level("something else"))
    async with gateway(valkey_url, registry=registry, tokenizers_dir=tmp_path) as mesh:
        await mesh.until(lambda: registry.reads)
        response = await mesh.http.post(PATH, json=ASK, headers={"x-api-key": API_KEY})
        bound = await bound_of(mesh)

    assert response.json() == {"input_tokens": len(WORDS * 40) // 4 + 4}
    assert response.headers["x-darkbloom-token-count"] == "estimate"
    assert bound > len(WORDS * 40)


async def test_counting_refuses_as_the_endpoint_itself_does(mesh: Harness) -> None:
    unknown = await mesh.http.post(PATH, json={**ASK, "model": "nobody"}, headers=BEARER)
    stranger = await mesh.http.post(PATH, json=ASK)

    assert (unknown.status_code, unknown.json()["error"]["type"]) == (404, "not_found_error")
    assert (stranger.status_code, stranger.json()["type"]) == (401, "error")
    assert not mesh.billing.holds


async def test_a_slow_upload_is_not_cut_by_the_patience_for_readers(valkey_url: str) -> None:
    body = json.dumps(ASK).encode()

    async def slowly() -> AsyncIterator[bytes]:
        yield body[:10]
        await SystemClock().sleep(0.5)
        yield body[10:]

    async with gateway(valkey_url, send_stall_s=0.1) as mesh:
        answer = await mesh.http.post(PATH, content=slowly(), headers=BEARER)

    assert answer.status_code == 200
    assert answer.json()["input_tokens"] > 0


async def test_an_answer_that_was_drawn_is_counted_again(valkey_url: str, tmp_path: Path) -> None:
    made = byte_level(WORDS)
    registry = registry_of(tmp_path, made, made)
    honest = [
        Delta(text=f"{word} ", prompt_tokens=7, completion_tokens=number + 1)
        for number, word in enumerate(WORDS.split())
    ]
    liar = [Delta(text="the", prompt_tokens=7, completion_tokens=200)]
    async with gateway(valkey_url, registry=registry, tokenizers_dir=tmp_path) as mesh:
        await mesh.until(lambda: mesh.worker.tokenizers.any)
        mesh.worker.recounts._below = 1 << 16
        for deltas in (honest, liar):
            end = replace(deltas[-1], text="", finish_reason="stop")
            mesh.router.scripts = [scripted(deltas=[*deltas, end])]
            response = await mesh.http.post("/v1/chat/completions", json=ASK, headers=BEARER)
            assert response.status_code == 200, response.text

        def seen() -> bool:
            said = generate_latest(mesh.service.metrics.registry).decode()
            return said.count("darkbloom_token_recounts_total{") == 2

        await mesh.until(seen)
