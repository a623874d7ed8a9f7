"""Sealed requests, by a client that shares no code with the gateway."""

import asyncio
import base64
import json
import shutil
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from darkbloom_edge.sealing_keys import KeyRing, encode_keys, rotated
from darkbloom_mesh.clock import SystemClock

from tests.component.gateway.harness import API_KEY, Harness, gateway
from tests.fakes.router import scripted
from tests.media import seen
from tests.sealed_client import (
    CHAT,
    FRAMED,
    PLAIN,
    NotAuthenticError,
    SealedCall,
    chat_body,
    sealed_events,
)
from tests.stores import valkey

BOTH = pytest.mark.parametrize("media_type", [FRAMED, PLAIN])
_DAY = timedelta(days=1)
_PAGE = Path(__file__).parents[3] / "docs" / "sealed.md"
NOW = SystemClock().now()


@pytest.fixture(scope="session")
def keys_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key that is published, and one before it that still opens."""
    path = tmp_path_factory.mktemp("sealing") / "keys"
    old = rotated(KeyRing(), b"\x01" * 32, NOW - 2 * _DAY, lead=_DAY, grace=_DAY)
    both = rotated(old, b"\x02" * 32, NOW - _DAY, lead=timedelta(minutes=1), grace=3 * _DAY)
    path.write_bytes(encode_keys(both))
    return path


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def shared(valkey_url: str, keys_file: Path) -> AsyncIterator[Harness]:
    async with gateway(
        valkey_url,
        request_rate=10_000,
        request_burst=10_000,
        sealing_keys_file=keys_file,
        max_body_bytes=200_000,
    ) as harness:
        yield harness


@pytest.fixture
def sealing(shared: Harness) -> Harness:
    shared.router.seen.requests.clear()
    shared.router.scripts = []
    return shared


@pytest_asyncio.fixture(loop_scope="session")
async def page(sealing: Harness) -> dict[str, Any]:
    found = (await sealing.http.get("/v1/encryption-key")).json()
    assert isinstance(found, dict)
    return found


pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_the_key_page_names_the_newest_key_and_those_that_still_open(
    sealing: Harness,
) -> None:
    response = await sealing.http.get("/v1/encryption-key")

    assert response.headers["cache-control"] == "public, max-age=300"
    page = response.json()
    assert page["algorithm"] == "x25519-nacl-box"
    assert len(base64.b64decode(page["public_key"])) == 32
    assert "not_after" not in page
    (before,) = page["previous"]
    assert before["kid"] != page["kid"]
    assert before["not_after"].endswith("Z")


@BOTH
async def test_a_sealed_request_gets_a_sealed_answer(
    sealing: Harness, page: dict[str, Any], media_type: str
) -> None:
    call = SealedCall(page, API_KEY, chat_body(), media_type=media_type)

    answer = await call.post(sealing.http)

    assert answer.status_code == 200
    assert json.loads(call.whole(answer))["choices"][0]["message"]["content"] == "Hello world"
    assert answer.headers["x-provider-id"] == sealing.router.provider_id
    assert b"Hello" not in answer.content
    assert sealing.router.seen.requests[0].messages[0]["content"] == "hi"


@BOTH
async def test_every_event_of_a_stream_leaves_sealed(
    sealing: Harness, page: dict[str, Any], media_type: str
) -> None:
    sealing.router.scripts = [scripted(*(f"word{n} " for n in range(40)))]
    call = SealedCall(page, API_KEY, chat_body(stream=True), media_type=media_type)

    answer = await call.post(sealing.http)

    events = call.events(answer)
    assert events[-1] == b"data: [DONE]"
    said = [json.loads(event.removeprefix(b"data: ")) for event in events[:-1]]
    text = "".join(c["delta"].get("content") or "" for e in said for c in e.get("choices", ()))
    assert text == "".join(f"word{n} " for n in range(40))
    assert "receipt" in said[-1]
    assert b"word" not in answer.content


@BOTH
@pytest.mark.parametrize(
    ("body", "status", "kind"),
    [
        (b"{", 400, "invalid_request_error"),
        (chat_body(n=99), 400, "invalid_request_error"),
        (chat_body(model="absent"), 404, "model_not_found"),
    ],
)
async def test_errors_after_opening_are_sealed_as_well(
    sealing: Harness,
    page: dict[str, Any],
    media_type: str,
    body: bytes,
    status: int,
    kind: str,
) -> None:
    call = SealedCall(page, API_KEY, body, media_type=media_type)

    answer = await call.post(sealing.http)

    assert answer.status_code == status
    assert json.loads(call.whole(answer))["error"]["type"] == kind
    assert kind.encode() not in answer.content


async def test_an_answer_that_breaks_ends_with_a_sealed_error(
    sealing: Harness, page: dict[str, Any]
) -> None:
    pause = asyncio.Event()
    sealing.router.scripts = [scripted(*(["word "] * 8), breaks_after=4, pause=pause)]
    call = SealedCall(page, API_KEY, chat_body(stream=True))
    async with sealing.http.stream(
        "POST", CHAT, json=call.envelope, headers=call.headers
    ) as answer:
        parts = answer.aiter_bytes()
        content = await anext(parts)
        pause.set()
        content += b"".join([part async for part in parts])

    events = call.open_all(sealed_events(content), 200)
    assert json.loads(events[-1].removeprefix(b"data: "))["error"]["type"] == "provider_error"
    assert b"data: [DONE]" not in events


async def test_a_consumer_that_hangs_up_on_a_sealed_stream_cancels_the_provider(
    sealing: Harness, page: dict[str, Any]
) -> None:
    before = len(sealing.router.seen.cancels)
    sealing.router.scripts = [scripted("one", "two", pause=asyncio.Event())]
    call = SealedCall(page, API_KEY, chat_body(stream=True))
    async with sealing.http.stream(
        "POST", CHAT, json=call.envelope, headers=call.headers
    ) as answer:
        await anext(answer.aiter_bytes())

    await sealing.router.until(lambda: len(sealing.router.seen.cancels) > before)
    await sealing.until(lambda: sealing.worker.gate.inflight == 0)


@BOTH
async def test_the_previous_key_opens_and_its_name_comes_back(
    sealing: Harness, page: dict[str, Any], media_type: str
) -> None:
    call = SealedCall(page["previous"][0], API_KEY, chat_body(), media_type=media_type)

    answer = await call.post(sealing.http)

    assert answer.status_code == 200
    assert b"Hello world" in call.whole(answer)


@pytest.mark.parametrize(
    "spelling",
    [
        "application/EigenInference-Sealed+JSON",
        "application/eigeninference-sealed+json; charset=utf-8",
        "application/eigeninference-sealed+json; =;;broken",
        "Application/Darkbloom-Sealed+JSON ; v=1",
    ],
)
async def test_the_content_type_counts_in_any_case_with_any_parameter(
    sealing: Harness, page: dict[str, Any], spelling: str
) -> None:
    call = SealedCall(page, API_KEY, chat_body(), media_type=spelling)

    answer = await call.post(sealing.http)

    assert answer.headers["content-type"] == spelling.partition(";")[0].strip().lower()
    assert b"Hello world" in call.open_all([answer.json()["ciphertext"]], 200)[0]


async def test_plaintext_is_answered_in_plaintext(sealing: Harness) -> None:
    answer = await sealing.chat()

    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert "x-eigen-sealed" not in answer.headers


@BOTH
@pytest.mark.parametrize("stream", [False, True])
async def test_a_replayed_envelope_is_refused_and_costs_nothing(
    sealing: Harness, page: dict[str, Any], media_type: str, stream: bool
) -> None:
    call = SealedCall(page, API_KEY, chat_body(stream=stream), media_type=media_type)
    assert (await call.post(sealing.http)).status_code == 200
    asked = len(sealing.router.seen.requests)

    again = await call.post(sealing.http)

    assert again.status_code == 400
    error = again.json()["error"]
    assert (error["type"], error["code"]) == ("invalid_sealed_envelope", "replayed_envelope")
    assert len(sealing.router.seen.requests) == asked


async def test_another_spelling_of_the_same_key_is_the_same_envelope(
    sealing: Harness, page: dict[str, Any]
) -> None:
    call = SealedCall(page, API_KEY, chat_body(), media_type=PLAIN)
    assert (await call.post(sealing.http)).status_code == 200
    key = bytearray(bytes(call.ours.public_key))
    # X25519 ignores the top bit.
    key[31] ^= 0x80
    respelled = {**call.envelope, "ephemeral_public_key": base64.b64encode(key).decode()}

    again = await sealing.http.post(CHAT, json=respelled, headers=call.headers)

    assert again.json()["error"]["code"] == "replayed_envelope"


async def test_another_gateway_refuses_the_replay_too(
    sealing: Harness, page: dict[str, Any], valkey_url: str, keys_file: Path
) -> None:
    call = SealedCall(page, API_KEY, chat_body())
    async with gateway(valkey_url, sealing_keys_file=keys_file) as second:
        assert (await call.post(second.http)).status_code == 200

    again = await call.post(sealing.http)

    assert again.json()["error"]["code"] == "replayed_envelope"


async def test_without_valkey_each_gateway_still_refuses_what_it_has_seen(
    page: dict[str, Any], keys_file: Path
) -> None:
    with valkey() as url:
        pass
    async with gateway(url, sealing_keys_file=keys_file) as alone:
        call = SealedCall(page, API_KEY, chat_body())
        first, second = await call.post(alone.http), await call.post(alone.http)

    assert first.status_code == 200
    assert second.json()["error"]["code"] == "replayed_envelope"


def _changed(envelope: dict[str, str], **changes: Any) -> bytes:
    merged = {**envelope, **changes}
    return json.dumps({name: value for name, value in merged.items() if value is not None}).encode()


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


@BOTH
@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"kid": None}, "invalid_sealed_envelope"),
        ({"kid": ""}, "invalid_sealed_envelope"),
        ({"kid": 7}, "invalid_sealed_envelope"),
        ({"kid": "0123456789abcdef"}, "kid_mismatch"),
        ({"ephemeral_public_key": None}, "invalid_sealed_envelope"),
        ({"ephemeral_public_key": "!!!!"}, "invalid_sealed_envelope"),
        ({"ephemeral_public_key": _b64(b"x" * 31)}, "invalid_sealed_envelope"),
        ({"ephemeral_public_key": _b64(b"x" * 33)}, "invalid_sealed_envelope"),
        ({"ephemeral_public_key": _b64(bytes(32))}, "invalid_sealed_envelope"),
        ({"ephemeral_public_key": _b64(b"x" * 32)}, "decryption_failed"),
        ({"ciphertext": None}, "invalid_sealed_envelope"),
        ({"ciphertext": "not base64"}, "invalid_sealed_envelope"),
        ({"ciphertext": _b64(b"x" * 23)}, "invalid_sealed_envelope"),
        ({"ciphertext": _b64(b"x" * 24)}, "decryption_failed"),
        ({"ciphertext": _b64(b"x" * 39)}, "decryption_failed"),
        ({"ciphertext": _b64(b"x" * 80)}, "decryption_failed"),
        # The order of the checks: the name of the key comes before its size.
        ({"kid": "0123456789abcdef", "ephemeral_public_key": "!"}, "kid_mismatch"),
    ],
)
async def test_every_fault_of_an_envelope_has_its_error_in_clear(
    sealing: Harness, page: dict[str, Any], media_type: str, changes: dict[str, Any], kind: str
) -> None:
    call = SealedCall(page, API_KEY, chat_body(), media_type=media_type)

    answer = await sealing.http.post(
        CHAT, content=_changed(call.envelope, **changes), headers=call.headers
    )

    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/json"
    assert "x-eigen-sealed" not in answer.headers
    assert (answer.json()["error"]["type"], answer.json()["error"]["code"]) == (kind, kind)
    assert not sealing.router.seen.requests


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"x"', b"\xff", b"{" * 100_000, chat_body()])
async def test_what_is_no_envelope_is_never_taken_for_plaintext(
    sealing: Harness, page: dict[str, Any], body: bytes
) -> None:
    call = SealedCall(page, API_KEY, b"")

    answer = await sealing.http.post(CHAT, content=body, headers=call.headers)

    assert answer.json()["error"]["type"] == "invalid_sealed_envelope"
    assert not sealing.router.seen.requests


async def test_a_body_over_the_ceiling_is_a_bad_request(
    sealing: Harness, page: dict[str, Any]
) -> None:
    call = SealedCall(page, API_KEY, b"x" * 200_000)

    answer = await call.post(sealing.http)

    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"


async def test_a_stranger_is_told_so_before_anything_is_opened(
    sealing: Harness, page: dict[str, Any]
) -> None:
    answer = await SealedCall(page, "sk-db-nobody", chat_body()).post(sealing.http)

    assert answer.status_code == 401
    assert answer.json()["error"]["type"] == "authentication_error"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_changed_box_does_not_open_wherever_it_was_changed(
    sealing: Harness, page: dict[str, Any], stream: bool
) -> None:
    call = SealedCall(page, API_KEY, chat_body(stream=stream))
    for place in (0, 23, 24, 40, 100, len(call.sealed) - 1):
        bad = bytearray(call.sealed)
        bad[place] ^= 1
        body = _changed(call.envelope, ciphertext=_b64(bad))
        answer = await sealing.http.post(CHAT, content=body, headers=call.headers)
        assert answer.json()["error"]["type"] == "decryption_failed"
    assert (await call.post(sealing.http)).status_code == 200


async def test_a_framed_request_counts_for_its_route_its_key_and_its_time_only(
    sealing: Harness, page: dict[str, Any]
) -> None:
    now = SealedCall(page, API_KEY, b"").time_ms
    misdirected = [
        SealedCall(page, API_KEY, chat_body(), header=b"\x01\x01\x01" + bytes(53)),
        SealedCall(page, API_KEY, chat_body(), header=b"short"),
        SealedCall(page, API_KEY, b"", header=b""),
        SealedCall(page, API_KEY, chat_body(), path="/v1/messages"),
        SealedCall(page, "sk-db-other", chat_body()),
    ]
    for call in misdirected:
        call.path, call.api_key = CHAT, API_KEY
        error = (await call.post(sealing.http)).json()["error"]
        assert (error["type"], error["code"]) == (
            "invalid_sealed_envelope",
            "sealed_header_mismatch",
        )
    for time_ms in (0, now - 601_000, now + 180_000, 2**64 - 1):
        call = SealedCall(page, API_KEY, chat_body(), time_ms=time_ms)
        error = (await call.post(sealing.http)).json()["error"]
        assert error["code"] == "sealed_request_expired"


async def test_an_answer_reflected_as_a_request_is_refused(
    sealing: Harness, page: dict[str, Any]
) -> None:
    call = SealedCall(page, API_KEY, chat_body())
    answer = (await call.post(sealing.http)).json()

    body = _changed(call.envelope, ciphertext=answer["ciphertext"])
    reflected = await sealing.http.post(CHAT, content=body, headers=call.headers)

    assert reflected.json()["error"]["code"] == "sealed_header_mismatch"


async def test_a_client_notices_whatever_is_done_to_a_framed_stream(
    sealing: Harness, page: dict[str, Any]
) -> None:
    sealing.router.scripts = [scripted(*(["word "] * 6))]
    call = SealedCall(page, API_KEY, chat_body(stream=True))
    answer = await call.post(sealing.http)
    boxes = sealed_events(answer.content)
    assert call.open_all(boxes, 200)

    another = SealedCall(page, API_KEY, chat_body(stream=True))
    theirs = sealed_events((await another.post(sealing.http)).content)
    attacks = {
        "reordered": [boxes[1], boxes[0], *boxes[2:]],
        "repeated": [boxes[0], *boxes],
        "dropped": [*boxes[:2], *boxes[3:]],
        "first dropped": boxes[1:],
        "cut off": boxes[:-1],
        "empty": [],
        "continued": [*boxes, boxes[-1]],
        "reflected": [_b64(call.sealed), *boxes[1:]],
        "of another": [*boxes[:-1], theirs[-1]],
    }
    noticed = []
    for name, attack in attacks.items():
        try:
            call.open_all(attack, 200)
        except NotAuthenticError:
            noticed.append(name)
    assert noticed == list(attacks)
    with pytest.raises(NotAuthenticError):
        call.open_all(boxes, 402)


async def test_browsers_may_send_and_read_it(sealing: Harness, page: dict[str, Any]) -> None:
    call = SealedCall(page, API_KEY, chat_body())
    origin = {"origin": "http://localhost:3000"}

    answer = await sealing.http.post(CHAT, json=call.envelope, headers={**call.headers, **origin})

    exposed = answer.headers["access-control-expose-headers"].lower()
    for name in ("x-eigen-sealed", "x-eigen-sealed-kid", "x-darkbloom-sealed-kid"):
        assert name in exposed.split(", ")


async def test_without_keys_sealed_requests_are_off_and_plaintext_works(
    page: dict[str, Any], valkey_url: str
) -> None:
    async with gateway(valkey_url) as mesh:
        key = await mesh.http.get("/v1/encryption-key")
        sealed = await SealedCall(page, API_KEY, chat_body()).post(mesh.http)
        plain = await mesh.chat()

    for answer in (key, sealed):
        assert answer.status_code == 503
        assert answer.json()["error"]["type"] == "encryption_unavailable"
        assert "retry-after" not in answer.headers
    assert plain.status_code == 200


async def test_a_changed_key_file_is_followed_and_a_broken_one_is_not(
    valkey_url: str, keys_file: Path, tmp_path: Path
) -> None:
    path = await asyncio.to_thread(shutil.copy, keys_file, tmp_path / "keys")
    async with gateway(valkey_url, sealing_keys_file=path) as mesh:
        ring = mesh.worker.ring
        before = (await mesh.http.get("/v1/encryption-key")).json()

        path.write_bytes(b'{"keys": "broken"}')
        await ring.follow()
        assert (await mesh.http.get("/v1/encryption-key")).json() == before

        fresh = rotated(KeyRing(), b"\x03" * 32, NOW, lead=timedelta(), grace=timedelta(hours=1))
        path.write_bytes(encode_keys(fresh))
        await ring.follow()
        after = (await mesh.http.get("/v1/encryption-key")).json()
        assert after["kid"] == fresh.keys[0].kid
        call = SealedCall(before, API_KEY, chat_body())
        assert (await call.post(mesh.http)).json()["error"]["type"] == "kid_mismatch"


async def test_every_inference_route_takes_sealed_requests(
    sealing: Harness, page: dict[str, Any]
) -> None:
    routes = sealing.worker.application().inference_routes
    assert ("POST", CHAT) in routes
    for method, path in routes:
        if path.startswith("/v1/offers"):
            # Nothing of a prompt comes there: the client has sealed it to the machine itself.
            continue
        call = SealedCall(page, API_KEY, b"{}", path=path)
        answer = await sealing.http.request(method, path, json=call.envelope, headers=call.headers)
        assert answer.headers["x-darkbloom-sealed"] == "true"
        assert "error" in json.loads(call.whole(answer))


async def test_the_client_on_the_page_works_as_it_is_printed(sealing: Harness) -> None:
    printed = _PAGE.read_text().split("```python\n")[1].split("```")[0]
    client: dict[str, Any] = {}
    exec(compile(printed, "docs/sealed.md", "exec"), client)  # noqa: S102 - our own page

    body = json.loads(chat_body())
    answer = await asyncio.to_thread(client["ask"], sealing.url, API_KEY, body)

    assert answer["choices"][0]["message"]["content"] == "Hello world"
    refused = await asyncio.to_thread(client["ask"], sealing.url, API_KEY, {**body, "n": 99})
    assert refused["error"]["type"] == "invalid_request_error"


async def test_a_crowd_of_sealed_requests_passes_once_each(
    sealing: Harness, page: dict[str, Any]
) -> None:
    calls = [SealedCall(page, API_KEY, chat_body()) for _ in range(40)]

    answers = await asyncio.gather(*(call.post(sealing.http) for call in calls + calls))

    for one, copy in zip(answers[:40], answers[40:], strict=True):
        assert {one.status_code, copy.status_code} == {200, 400}


@BOTH
async def test_for_a_sealed_request_nothing_is_fetched(
    sealing: Harness, page: dict[str, Any], media_type: str
) -> None:
    messages = seen("https://pictures.example/a.png")
    call = SealedCall(page, API_KEY, chat_body(messages=messages), media_type=media_type)

    answer = await call.post(sealing.http)

    error = json.loads(call.whole(answer))["error"]
    assert (answer.status_code, error["param"]) == (400, "messages[0].content[1].image_url.url")
    assert "sealed" in error["message"]
