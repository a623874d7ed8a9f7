import asyncio
import json
from typing import Any

from darkbloom.router.v1 import gateway_lane_pb2 as lane_pb

from tests.component.gateway.harness import BEARER, Harness, gateway
from tests.component.gateway.neighbours import API_KEY
from tests.fakes.router import scripted


def events(text: str) -> list[dict[str, Any]]:
    lines = [event.removeprefix("data: ") for event in text.split("\n\n") if event]
    assert lines[-1] == "[DONE]"
    assert lines.count("[DONE]") == 1
    return [json.loads(line) for line in lines[:-1]]


async def test_several_choices_are_several_jobs_with_one_usage(mesh: Harness) -> None:
    mesh.router.scripts = [scripted("a", "b"), scripted("c"), scripted("d")]

    async with mesh.sdk() as client:
        answer = await client.chat.completions.create(
            model="tiny", messages=[{"role": "user", "content": "hi"}], n=3
        )

    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert sorted(choice.message.content or "" for choice in answer.choices) == ["ab", "c", "d"]
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (21, 4)
    assert len(answer.model_extra["receipts"]) == 3  # type: ignore[index]
    await mesh.billing.until(lambda: len(mesh.billing.receipts) == 3)
    assert sorted(mesh.billing.receipts) == sorted(mesh.billing.holds)
    assert len(set(mesh.billing.holds)) == 3
    assert not mesh.billing.releases


async def test_a_seed_counts_on_so_that_choices_differ(mesh: Harness) -> None:
    await mesh.chat(n=2, seed=41)

    assert sorted(request.seed or 0 for request in mesh.router.seen.requests) == [41, 42]


async def test_streamed_choices_are_interleaved_and_end_once(mesh: Harness) -> None:
    gate = asyncio.Event()
    mesh.router.scripts = [scripted("a", "b", pause=gate), scripted("c", "d")]
    asking = asyncio.ensure_future(
        mesh.chat(stream=True, n=2, stream_options={"include_usage": True})
    )
    await mesh.router.until(lambda: mesh.router.seen.closes)
    gate.set()

    found = events((await asking).text)

    assert len({event["id"] for event in found}) == 1
    texts = {0: "", 1: ""}
    ends = []
    for event in found:
        for choice in event["choices"]:
            texts[choice["index"]] += choice["delta"].get("content", "")
            ends += [choice["index"]] if choice["finish_reason"] else []
    assert sorted(texts.values()) == ["ab", "cd"]
    assert sorted(ends) == [0, 1]
    assert found[-1]["usage"]["total_tokens"] == 18
    assert len(found[-1]["receipts"]) == 2


async def test_a_caller_who_leaves_takes_all_choices_along(mesh: Harness) -> None:
    silent = scripted(silent=True)
    mesh.router.scripts = [silent, scripted("x", late=asyncio.Event())]
    asking = asyncio.ensure_future(mesh.chat(n=2, stream=True))
    await mesh.router.until(lambda: len(mesh.router.seen.requests) == 2)

    asking.cancel()

    await mesh.router.until(lambda: len(mesh.router.seen.cancels) == 2)


async def test_a_choice_that_breaks_ends_the_stream_with_one_error(mesh: Harness) -> None:
    words = ["word "] * 100
    mesh.router.scripts = [scripted(*words, breaks_after=40), scripted("c", late=asyncio.Event())]

    response = await mesh.chat(n=2, stream=True)

    *_, last = (event for event in response.text.split("\n\n") if event)
    assert json.loads(last.removeprefix("data: "))["error"]["type"] == "provider_error"
    assert response.status_code == 200
    assert "[DONE]" not in response.text
    await mesh.router.until(lambda: mesh.router.seen.cancels)


async def test_more_choices_than_allowed_are_refused_by_name(mesh: Harness) -> None:
    response = await mesh.chat(n=9)

    assert response.status_code == 400
    assert response.json()["error"]["param"] == "n"
    assert not mesh.billing.holds


async def test_an_early_commit_keeps_the_line_alive_before_the_answer(valkey_url: str) -> None:
    async with gateway(valkey_url, early_commit_s=0.0, keepalive_s=0.1) as mesh:
        late = asyncio.Event()
        mesh.router.scripts = [scripted("hi", late=late)]
        early = {**BEARER, "x-darkbloom-early-commit": "true"}
        body = {"model": "tiny", "messages": [{"role": "user", "content": "x"}], "stream": True}
        async with mesh.http.stream(
            "POST", "/v1/chat/completions", json=body, headers=early
        ) as response:
            assert response.status_code == 200
            assert response.headers["x-darkbloom-early-commit"] == "true"
            assert "x-provider-id" not in response.headers
            text = ""
            async for part in response.aiter_text():
                text += part
                if text.count(": keep-alive\n\n") == 2:
                    late.set()
        assert '"content":"hi"' in text
        assert text.endswith("data: [DONE]\n\n")


async def test_after_an_early_commit_a_failure_is_one_event(valkey_url: str) -> None:
    async with gateway(valkey_url, early_commit_s=0.0, first_content_s=0.5) as mesh:
        mesh.router.scripts = [scripted(silent=True)]
        body = {"model": "tiny", "messages": [{"role": "user", "content": "x"}], "stream": True}
        early = {"authorization": f"Bearer {API_KEY}", "x-darkbloom-early-commit": "true"}

        response = await mesh.http.post("/v1/chat/completions", json=body, headers=early)

        assert response.status_code == 200
        said = [event for event in response.text.split("\n\n") if event.startswith("data:")]
        assert [json.loads(event[5:])["error"]["type"] for event in said] == ["provider_error"]


async def test_a_quick_refusal_has_its_own_status_despite_the_wish(mesh: Harness) -> None:
    early = {**BEARER, "x-darkbloom-early-commit": "true"}
    body = {"model": "nobody", "messages": [{"role": "user", "content": "x"}], "stream": True}

    response = await mesh.http.post("/v1/chat/completions", json=body, headers=early)

    assert response.status_code == 404


async def test_a_choice_that_is_refused_leaves_nothing_of_the_others_to_pay(mesh: Harness) -> None:
    late = asyncio.Event()
    refused = lane_pb.Refused(
        http_status=503,
        type="server_error",
        code="capacity",
        reason=lane_pb.REFUSAL_REASON_QUEUE_FULL,
        message="no capacity",
    )
    mesh.router.scripts = [
        scripted("a", "b"),
        scripted(fails=True, late=late),
        scripted(refused=refused),
    ]
    asking = asyncio.ensure_future(mesh.chat(n=2))
    await mesh.router.until(lambda: mesh.router.seen.sent_chunks == 4)
    late.set()

    response = await asking

    assert response.status_code == 503
    await mesh.router.until(lambda: mesh.router.seen.cancels)
    assert [cancel.opened.frames for cancel in mesh.router.seen.cancels] == [0]
    assert not mesh.router.seen.closes
    assert not mesh.billing.records


async def test_a_line_is_kept_alive_while_one_of_several_choices_waits(valkey_url: str) -> None:
    async with gateway(valkey_url, keepalive_s=0.1) as mesh:
        late = asyncio.Event()
        mesh.router.scripts = [scripted("a"), scripted("b", late=late)]
        body = {
            "model": "tiny",
            "messages": [{"role": "user", "content": "x"}],
            "stream": True,
            "n": 2,
        }
        text = ""
        async with mesh.http.stream(
            "POST", "/v1/chat/completions", json=body, headers=BEARER
        ) as response:
            async for part in response.aiter_text():
                text += part
                if text.count(": keep-alive\n\n") == 2:
                    late.set()

    assert response.headers["x-provider-id"]
    said = [event for event in text.split("\n\n") if event and event != ": keep-alive"]
    assert said[-1] == "data: [DONE]"
    assert text.index('"content":"a"') < text.index(": keep-alive") < text.index('"content":"b"')


async def test_an_early_commit_holds_for_several_choices_too(valkey_url: str) -> None:
    async with gateway(valkey_url, early_commit_s=0.0, keepalive_s=0.1) as mesh:
        late = asyncio.Event()
        mesh.router.scripts = [scripted("a", late=late), scripted("b", late=late)]
        early = {**BEARER, "x-darkbloom-early-commit": "true"}
        body = {
            "model": "tiny",
            "messages": [{"role": "user", "content": "x"}],
            "stream": True,
            "n": 2,
        }
        text = ""
        async with mesh.http.stream(
            "POST", "/v1/chat/completions", json=body, headers=early
        ) as response:
            assert response.status_code == 200
            assert response.headers["x-darkbloom-early-commit"] == "true"
            assert "x-provider-id" not in response.headers
            async for part in response.aiter_text():
                text += part
                if text.count(": keep-alive\n\n") == 2:
                    late.set()
        assert '"content":"a"' in text
        assert '"content":"b"' in text
        assert text.endswith("data: [DONE]\n\n")


async def test_after_an_early_commit_several_choices_fail_in_band(valkey_url: str) -> None:
    async with gateway(valkey_url, early_commit_s=0.0, keepalive_s=0.1) as mesh:
        late = asyncio.Event()
        # Both providers were asked; then one of them is lost and nobody else is there.
        mesh.router.scripts = [
            scripted("a", late=late, breaks_after=1),
            scripted("b", late=late, breaks_after=1),
        ]
        early = {**BEARER, "x-darkbloom-early-commit": "true"}
        body = {"model": "tiny", "messages": [{"role": "user", "content": "x"}], "n": 2}
        text = ""
        async with mesh.http.stream(
            "POST", "/v1/chat/completions", json={**body, "stream": True}, headers=early
        ) as response:
            async for part in response.aiter_text():
                text += part
                late.set()

    assert response.status_code == 200
    assert text.startswith(": keep-alive\n\n")
    last = [event for event in text.split("\n\n") if event][-1]
    assert json.loads(last.removeprefix("data: "))["error"]["type"] == "provider_error"
    assert "[DONE]" not in text
