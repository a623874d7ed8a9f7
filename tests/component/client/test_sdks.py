"""Stock SDKs through the transport: one line makes them end-to-end encrypted."""

import json
from typing import Any

import anthropic
import httpx
import httpx2
import openai
import pytest
from darkbloom_client import Transport, sealed_client
from darkbloom_edge.delta import Delta, ToolCallPart
from darkbloom_edge.verify import verify_receipt

from tests.fakes.blind_mesh import MODEL, BlindMesh

SECRET = "a secret that nobody else may read"
ASK: Any = [{"role": "user", "content": SECRET}]
TOOL: Any = {
    "type": "function",
    "function": {"name": "look", "parameters": {"type": "object", "properties": {}}},
}


@pytest.fixture
def mesh() -> BlindMesh:
    return BlindMesh()


def openai_client(mesh: BlindMesh, library: Any = httpx2) -> openai.OpenAI:
    return openai.OpenAI(
        base_url="https://mesh.test/v1",
        api_key="sk-db-key",
        http_client=sealed_client(
            library.Client, mesh.policy(), inner=mesh.line(library), clock=mesh
        ),
        max_retries=0,
    )


def claude_client(mesh: BlindMesh) -> anthropic.Anthropic:
    transport = Transport(mesh.policy(), inner=mesh.line(httpx2), clock=mesh)
    return anthropic.Anthropic(
        base_url="https://mesh.test",
        api_key="sk-db-key",
        http_client=httpx2.Client(transport=transport),
        max_retries=0,
    )


def nothing_leaked(mesh: BlindMesh) -> None:
    assert SECRET in str(mesh.prompts[-1].messages)
    assert not any(SECRET.encode() in body for body in mesh.bodies)
    assert not any("secret" in str(headers) for headers in mesh.headers)


@pytest.mark.parametrize("library", [httpx, httpx2], ids=["httpx", "httpx2"])
def test_openai_answers_whole_and_proven(mesh: BlindMesh, library: Any) -> None:
    client = openai_client(mesh, library)

    answer = client.chat.completions.create(model=MODEL, messages=ASK)

    assert answer.choices[0].message.content == "Hello, world."
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (7, 2)
    extra = answer.model_extra
    assert extra is not None
    report = verify_receipt(
        json.dumps(extra["receipt"]).encode(),
        verdict_keys={mesh.attestation.key_id: mesh.attestation.public},
        gateway_keys={mesh.gateway.key_id: mesh.gateway.public},
        answer=b"Hello, world.",
        now=mesh.now(),
    )
    assert report.ok, report
    assert report.claim("content").holds
    nothing_leaked(mesh)


def test_openai_streams(mesh: BlindMesh) -> None:
    client = openai_client(mesh)

    chunks = list(
        client.chat.completions.create(
            model=MODEL, messages=ASK, stream=True, stream_options={"include_usage": True}
        )
    )

    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == "Hello, world."
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 2
    nothing_leaked(mesh)


async def test_openai_streams_on_an_event_loop(mesh: BlindMesh) -> None:
    client = openai.AsyncOpenAI(
        base_url="https://mesh.test/v1",
        api_key="k",
        http_client=sealed_client(
            httpx2.AsyncClient, mesh.policy(), inner=mesh.line(httpx2), clock=mesh
        ),
        max_retries=0,
    )

    whole = await client.chat.completions.create(model=MODEL, messages=ASK)
    stream = await client.chat.completions.create(model=MODEL, messages=ASK, stream=True)
    pieces = [c.choices[0].delta.content or "" async for c in stream if c.choices]

    assert whole.choices[0].message.content == "".join(pieces) == "Hello, world."
    nothing_leaked(mesh)
    await client.close()


@pytest.mark.parametrize("kind", [httpx.Client, httpx.AsyncClient, httpx2.Client])
@pytest.mark.parametrize(
    "option",
    [{"proxy": "http://127.0.0.1:9"}, {"mounts": {"all://": None}}, {"transport": None}],
    ids="-".join,
)
def test_a_client_around_the_transport_is_not_built(
    mesh: BlindMesh, kind: Any, option: dict[str, Any]
) -> None:
    with pytest.raises(TypeError, match=next(iter(option))):
        sealed_client(kind, mesh.policy(), **option)


@pytest.mark.parametrize("library", [httpx, httpx2], ids=["httpx", "httpx2"])
def test_proxies_of_the_environment_are_not_a_way_around(
    mesh: BlindMesh, monkeypatch: pytest.MonkeyPatch, library: Any
) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")

    client = openai_client(mesh, library)
    client.chat.completions.create(model=MODEL, messages=ASK)

    nothing_leaked(mesh)


def test_options_of_the_client_are_kept(mesh: BlindMesh) -> None:
    client = sealed_client(httpx2.Client, mesh.policy(), timeout=7)

    assert client.timeout == httpx2.Timeout(7)
    client.close()


def test_openai_is_called_tools(mesh: BlindMesh) -> None:
    mesh.answer = [
        Delta(tool_calls=(ToolCallPart(index=0, id="call_1", name="look"),)),
        Delta(tool_calls=(ToolCallPart(index=0, arguments='{"at":1}'),)),
    ]

    answer = openai_client(mesh).chat.completions.create(model=MODEL, messages=ASK, tools=[TOOL])

    calls = answer.choices[0].message.tool_calls
    assert calls is not None
    assert calls[0].type == "function"
    assert (calls[0].function.name, calls[0].function.arguments) == ("look", '{"at":1}')
    assert answer.choices[0].finish_reason == "tool_calls"
    assert mesh.prompts[-1].tools is not None


def test_several_choices_are_several_offers(mesh: BlindMesh) -> None:
    answer = openai_client(mesh).chat.completions.create(model=MODEL, messages=ASK, n=2)

    assert [choice.message.content for choice in answer.choices] == ["Hello, world."] * 2
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 4
    assert len(mesh.offers) == 2
    nonces = {offer.nonce for offer in mesh.offers.values()}
    assert len(nonces) == 2


def test_several_choices_stream_one_after_the_other(mesh: BlindMesh) -> None:
    stream = openai_client(mesh).chat.completions.create(
        model=MODEL, messages=ASK, n=2, stream=True
    )

    texts = ["", ""]
    for chunk in stream:
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
    assert texts == ["Hello, world."] * 2


def test_openai_responses_and_completions(mesh: BlindMesh) -> None:
    client = openai_client(mesh)

    assert client.responses.create(model=MODEL, input=SECRET).output_text == "Hello, world."
    nothing_leaked(mesh)
    assert client.completions.create(model=MODEL, prompt=SECRET).choices[0].text == "Hello, world."
    nothing_leaked(mesh)


def test_several_prompts_are_each_sealed(mesh: BlindMesh) -> None:
    answer = openai_client(mesh).completions.create(model=MODEL, prompt=[SECRET, "another"])

    assert [choice.text for choice in answer.choices] == ["Hello, world."] * 2
    assert ["another" in str(prompt.messages) for prompt in mesh.prompts] == [False, True]


def test_an_image_by_address_is_not_fetched(mesh: BlindMesh) -> None:
    image: Any = {"type": "image_url", "image_url": {"url": "https://images.example/a.png"}}
    asked: Any = [{"role": "user", "content": [image]}]

    with pytest.raises(openai.BadRequestError, match="data: URLs"):
        openai_client(mesh).chat.completions.create(model=MODEL, messages=asked)

    assert mesh.calls == []


def test_a_long_prompt_keeps_its_bound(mesh: BlindMesh) -> None:
    asked: Any = [{"role": "user", "content": "é" * 40_000}]

    openai_client(mesh).chat.completions.create(model=MODEL, messages=asked)

    (offer,) = mesh.offers.values()
    assert offer.prompt_bound >= 80_000


def test_anthropic_streams(mesh: BlindMesh) -> None:
    client = claude_client(mesh)

    with client.messages.stream(model=MODEL, max_tokens=20, messages=ASK) as stream:
        assert "".join(stream.text_stream) == "Hello, world."
        assert stream.get_final_message().usage.output_tokens == 2
    nothing_leaked(mesh)
    asked = mesh.headers[mesh.calls.index(("POST", "/v1/offers"))]
    assert asked["authorization"] == "Bearer sk-db-key"


def test_anthropic_refusals_are_its_own_errors(mesh: BlindMesh) -> None:
    mesh.level = "none"

    with pytest.raises(anthropic.PermissionDeniedError) as caught:
        claude_client(mesh).messages.create(model=MODEL, max_tokens=20, messages=ASK)

    assert caught.value.body == {
        "type": "error",
        "error": {
            "type": "permission_error",
            "code": "trust_too_low",
            "message": "refused, trust_too_low: expected hardware, found none, admitted as public",
        },
    }


def test_what_has_no_body_passes_and_what_has_one_does_not_leave(mesh: BlindMesh) -> None:
    client = openai_client(mesh)

    assert list(client.models.list()) == []
    with pytest.raises(openai.PermissionDeniedError, match="plaintext_path"):
        client.embeddings.create(model=MODEL, input=SECRET)
    with pytest.raises(anthropic.PermissionDeniedError, match="plaintext_path"):
        claude_client(mesh).messages.count_tokens(model=MODEL, messages=ASK)

    assert mesh.calls == [("GET", "/v1/models")]
    assert not any(SECRET.encode() in body for body in mesh.bodies)


def test_headers_of_the_caller_do_not_leave_with_the_offer(mesh: BlindMesh) -> None:
    client = openai_client(mesh)

    client.chat.completions.create(
        model=MODEL, messages=ASK, extra_headers={"x-note": "secret", "x-darkbloom-route": "prefer"}
    )

    asked = mesh.headers[mesh.calls.index(("POST", "/v1/offers"))]
    assert asked["x-darkbloom-route"] == "prefer"
    assert "x-note" not in asked
    assert not [name for name in asked if name.startswith("x-stainless")]
    read = mesh.headers[mesh.calls.index(("GET", "/v1/providers/attestation"))]
    assert "authorization" not in read


def test_a_body_that_is_none_is_told_without_asking_anybody(mesh: BlindMesh) -> None:
    with pytest.raises(openai.BadRequestError, match="messages"):
        openai_client(mesh).chat.completions.create(model=MODEL, messages=[])

    assert mesh.calls == []
