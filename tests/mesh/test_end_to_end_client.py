"""Stock SDKs, end-to-end encrypted, over the whole mesh; and a man in the middle who lies.

He stands where the operator of a gateway stands: he sees and changes all that passes.
"""

import asyncio
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import anthropic
import httpx
import httpx2
import openai
import pytest
import pytest_asyncio
from darkbloom_client import AsyncTransport, Pins, Policy, PriceLimit, Transport
from darkbloom_client.clock import SystemClock
from darkbloom_edge.records import RecordKind
from darkbloom_edge.signatures import Ed25519Signer, from_base64, to_base64
from darkbloom_edge.verdict import KIND as VERDICT
from darkbloom_local.mesh import Mesh
from darkbloom_local.models import SCRIPTED

from tests.fakes.blind_mesh import flipped
from tests.fakes.middle import Middle, cut, middle
from tests.mesh.harness import PATIENCE_S, Books, Consumer, request_id_of, script

pytestmark = [pytest.mark.mesh, pytest.mark.asyncio(loop_scope="session")]

CHAT, OFFERS, ANSWER = "/v1/chat/completions", "/v1/offers", "/v1/offers/answer"
EVIDENCE = "/v1/providers/attestation"
QUICKSTART = Path(__file__).resolve().parents[2] / "docs/quickstart.md"
SECRET = "nightingale-in-the-prompt"
Json = dict[str, Any]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def keys(consumer: Consumer) -> bytes:
    """What a careful consumer has saved long ago."""
    return (await consumer.get("/v1/receipts/keys")).content


@pytest.fixture(scope="module")
def policy(keys: bytes) -> Policy:
    """Nothing of a development mesh is attested; all the rest is demanded."""
    return Policy(pins=Pins.parse(keys), allow_unattested=True)


def sdk(mesh: Mesh, policy: Policy) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(
        base_url=f"{mesh.url}/v1",
        api_key=mesh.api_key,
        http_client=httpx2.AsyncClient(transport=AsyncTransport(policy), timeout=PATIENCE_S),
    )


async def test_openai_is_answered_and_billed_as_in_edge_mode(
    mesh: Mesh, consumer: Consumer, books: Books, policy: Policy
) -> None:
    asked: Any = script(tokens=40)
    plain = await consumer.ask(tokens=40)
    async with sdk(mesh, policy) as client:
        whole = await client.chat.completions.create(model=SCRIPTED, messages=asked)
        stream = await client.chat.completions.create(
            model=SCRIPTED, messages=asked, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
        assert (await client.models.list()).data

    text = plain.json()["choices"][0]["message"]["content"]
    assert whole.choices[0].message.content == text
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == text
    assert whole.usage is not None
    usage = plain.json()["usage"]
    assert (whole.usage.prompt_tokens, whole.usage.completion_tokens) == (
        usage["prompt_tokens"],
        usage["completion_tokens"],
    )
    extra = whole.model_extra
    assert extra is not None
    report = await consumer.verify(extra["receipt"], answer=text)
    assert report.ok, report
    (streamed,) = [c.model_extra["receipt"] for c in chunks if "receipt" in (c.model_extra or {})]

    receipts = [plain.json()["receipt"], extra["receipt"], streamed]
    costs = []
    for receipt in receipts:
        terminal = json.loads(from_base64(receipt["terminal"]))
        row = await consumer.usage(terminal["attempt_id"])
        costs.append(row["cost_micro_usd"])
        assert await books.earning(request_id_of(receipt)) == costs[-1]
    assert costs[0] > 0
    assert costs == [costs[0]] * 3


async def test_anthropic_streams_from_a_thread(mesh: Mesh, policy: Policy) -> None:
    def ask() -> tuple[str, int]:
        client = anthropic.Anthropic(
            base_url=mesh.url,
            api_key=mesh.api_key,
            http_client=httpx2.Client(transport=Transport(policy), timeout=PATIENCE_S),
        )
        asked: Any = script(tokens=5)
        with (
            client,
            client.messages.stream(model=SCRIPTED, max_tokens=50, messages=asked) as stream,
        ):
            text = "".join(stream.text_stream)
            return text, stream.get_final_message().usage.output_tokens

    text, tokens = await asyncio.to_thread(ask)

    assert len(text.split()) == tokens == 5


async def test_the_proxy_serves_a_tool_that_knows_nothing_of_all_this(
    mesh: Mesh, keys: bytes, tmp_path: Path
) -> None:
    (tmp_path / "keys.json").write_bytes(keys)
    (tmp_path / "api.key").write_text(mesh.api_key)
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).with_name("darkbloom-proxy")),
        *("--url", mesh.url, "--port", "0", "--json", "--allow-unattested"),
        *("--keys", str(tmp_path / "keys.json"), "--api-key-file", str(tmp_path / "api.key")),
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(PATIENCE_S):
            told = json.loads(await process.stdout.readline())
        headers = {"authorization": f"Bearer {told['api_key']}"}
        body = {"model": SCRIPTED, "messages": script(tokens=5)}
        async with httpx.AsyncClient(trust_env=False, timeout=PATIENCE_S) as client:
            answer = await client.post(
                f"{told['base_url']}/chat/completions", json=body, headers=headers
            )
            assert answer.status_code == 200, answer.text
            assert answer.json()["usage"]["completion_tokens"] == 5
            refused = await client.post(f"{told['base_url']}/chat/completions", json=body)
            assert refused.status_code == 401
    finally:
        process.terminate()
        async with asyncio.timeout(PATIENCE_S):
            await process.wait()
    assert process.returncode == 0


@pytest.mark.tool("curl")
async def test_the_quickstart_works_as_it_is_printed(mesh: Mesh, tmp_path: Path) -> None:
    section = QUICKSTART.read_text().split("\n## End to end\n")[1].split("\n## ")[0]
    blocks = re.findall(r"```(sh|python)\n(.*?)```", section, flags=re.DOTALL)
    assert [language for language, _ in blocks] == ["sh", "python", "sh"]
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    binaries = Path(sys.executable).parent
    environment = {
        **os.environ,  # noqa: TID251 - a shell for the commands
        "PATH": f"{binaries}:{os.environ['PATH']}",  # noqa: TID251 - the same
        "NO_PROXY": "127.0.0.1",
        "DARKBLOOM_URL": mesh.url,
        "DARKBLOOM_API_KEY": mesh.api_key,
        "DARKBLOOM_MODEL": SCRIPTED,
    }
    for language, source in blocks:
        command = ["sh", "-ec"] if language == "sh" else [sys.executable, "-c"]
        process = await asyncio.create_subprocess_exec(
            *command,
            source.replace("8484", str(port)),
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        async with asyncio.timeout(3 * PATIENCE_S):
            said, errors = await process.communicate()
        assert process.returncode == 0, errors.decode()
        assert said.strip() or language == "sh"
    assert json.loads(said.splitlines()[-1])["choices"][0]["message"]["content"]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def man(mesh: Mesh) -> AsyncIterator[Middle]:
    """The man in the middle."""
    async with middle(mesh.url) as found:
        yield found


class LateClock(SystemClock):
    """A consumer whose clock is ahead: to him everything is that much older."""

    def __init__(self, ahead: timedelta) -> None:
        self._ahead = ahead

    def now(self) -> datetime:
        return super().now() + self._ahead


async def ask(
    man: Middle, mesh: Mesh, policy: Policy, clock: Any = None, *, stream: bool = False
) -> httpx.Response:
    """Ask through him, as somebody who remembers nothing of earlier requests."""
    headers = {"authorization": f"Bearer {mesh.api_key}"}
    messages = [{"role": "system", "content": SECRET}, *script(tokens=12)]
    async with httpx.AsyncClient(
        transport=AsyncTransport(policy, clock=clock), base_url=man.url, headers=headers
    ) as client:
        body = {"model": SCRIPTED, "messages": messages, "stream": stream}
        return await client.post(CHAT, json=body, timeout=PATIENCE_S)


async def test_an_honest_man_in_the_middle_passes_and_reads_nothing(
    man: Middle, mesh: Mesh, policy: Policy
) -> None:
    man.honest()
    answer = await ask(man, mesh, policy)

    assert answer.status_code == 200, answer.text
    text = answer.json()["choices"][0]["message"]["content"]
    everything = [body for _, _, body in man.seen] + [body for _, body in man.told]
    assert not any(SECRET.encode() in body for body in everything)
    assert not any(text.encode() in body for body in everything)
    assert CHAT not in {path for _, path, _ in man.seen}


def changed_verdict(signer: Ed25519Signer | None = None) -> Callable[[Json], Json]:
    """Put another K into the verdict; sign it, if asked, with a key of one's own."""

    def change(offered: Json) -> Json:
        document = json.loads(from_base64(offered["verdict"]["document"]))
        document["encryption_key"] = to_base64(bytes(range(32)))
        raw = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
        verdict = {**offered["verdict"], "document": to_base64(raw)}
        if signer is not None:
            verdict["signature"] = to_base64(signer.sign(VERDICT, raw))
            verdict["key_id"] = signer.key_id
        return {**offered, "verdict": verdict}

    return change


def altered(stream: bytes) -> bytes:
    records = cut(stream)
    box = bytearray(records[0])
    box[-1] ^= 1
    return b"".join((bytes(box), *records[1:]))


def swapped(stream: bytes) -> bytes:
    records = cut(stream)
    return b"".join((records[1], records[0], *records[2:]))


def without_receipt(stream: bytes) -> bytes:
    return b"".join(record for record in cut(stream) if record[0] != RecordKind.END)


def halved(stream: bytes) -> bytes:
    records = cut(stream)
    return records[0] + records[1][:-1]


def forged_receipt(stream: bytes) -> bytes:
    *chunks, end = cut(stream)
    receipt = json.loads(end[9:])
    receipt["countersign_signature"] = flipped(receipt["countersign_signature"])
    raw = json.dumps(receipt).encode()
    return b"".join((*chunks, end[:5], len(raw).to_bytes(4, "big"), raw))


STRANGER = Ed25519Signer.generate()
LIES_ABOUT_OFFERS: dict[str, tuple[Callable[[Json], Json], str]] = {
    "swapped_key": (changed_verdict(), "key_swapped"),
    "swapped_key_signed_by_a_stranger": (changed_verdict(STRANGER), "key_swapped"),
    "altered_offer": (
        lambda o: {
            **o,
            "offer": {**o["offer"], "signature": flipped(o["offer"]["signature"])},
        },
        "offer_malformed",
    ),
    "forged_verdict": (
        lambda o: {
            **o,
            "verdict": {**o["verdict"], "signature": flipped(o["verdict"]["signature"])},
        },
        "verdict_forged",
    ),
}


@pytest.mark.parametrize("lie", LIES_ABOUT_OFFERS)
async def test_a_lie_about_the_offer_is_refused_by_name_and_nothing_is_sealed(
    man: Middle, mesh: Mesh, policy: Policy, lie: str
) -> None:
    man.honest()
    change, reason = LIES_ABOUT_OFFERS[lie]
    man.edit(OFFERS, change)

    answer = await ask(man, mesh, policy)

    assert (answer.status_code, answer.json()["error"]["code"]) == (403, reason)
    assert ANSWER not in {path for _, path, _ in man.seen}


async def test_a_replayed_offer_is_refused(man: Middle, mesh: Mesh, policy: Policy) -> None:
    man.honest()
    assert (await ask(man, mesh, policy)).status_code == 200
    old = man.last(OFFERS)
    man.lies[OFFERS] = lambda _: old

    answer = await ask(man, mesh, policy)

    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "offer_replayed")


async def test_evidence_of_another_key_is_refused(man: Middle, mesh: Mesh, policy: Policy) -> None:
    man.honest()

    def change(page: Json) -> Json:
        stranger = to_base64(bytes(range(32)))
        return {**page, "providers": [{**page["providers"][0], "encryption_key": stranger}]}

    man.edit(EVIDENCE, change)

    answer = await ask(man, mesh, policy)

    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "key_swapped")


LIES_ABOUT_ANSWERS: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "altered_chunk": (altered, "chunk_altered"),
    "reordered_chunks": (swapped, "chunk_altered"),
    "dropped_chunk": (lambda s: b"".join(cut(s)[1:]), "chunk_altered"),
    "truncated": (halved, "answer_truncated"),
    "dropped_receipt": (without_receipt, "receipt_missing"),
    "forged_receipt": (forged_receipt, "receipt_forged"),
}


@pytest.mark.parametrize("lie", LIES_ABOUT_ANSWERS)
async def test_a_lie_about_the_answer_is_refused_by_name(
    man: Middle, mesh: Mesh, policy: Policy, lie: str
) -> None:
    man.honest()
    change, reason = LIES_ABOUT_ANSWERS[lie]
    man.lies[ANSWER] = change

    whole, streamed = await asyncio.gather(
        ask(man, mesh, policy), ask(man, mesh, policy, stream=True)
    )

    assert (whole.status_code, whole.json()["error"]["code"]) == (403, reason)
    assert reason in streamed.text
    assert "[DONE]" not in streamed.text


async def test_the_proof_of_another_answer_is_refused(
    man: Middle, mesh: Mesh, policy: Policy
) -> None:
    man.honest()
    assert (await ask(man, mesh, policy)).status_code == 200
    old = cut(man.last(ANSWER))[-1]
    man.lies[ANSWER] = lambda stream: b"".join((*cut(stream)[:-1], old))

    answer = await ask(man, mesh, policy)

    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "nonce_wrong")


@pytest.mark.parametrize(
    ("fields", "ahead", "reason"),
    [
        ({"allow_unattested": False, "app_id": "TEAM.app"}, 0, "trust_too_low"),
        ({"allowed_releases": {"another"}}, 0, "release_not_allowed"),
        ({"max_price": PriceLimit(input_micros=0, output_micros=0)}, 0, "price_too_high"),
        ({"max_age": timedelta(minutes=2)}, 3, "evidence_stale"),
        ({}, 17, "verdict_expired"),
    ],
    ids=["trust", "release", "price", "age", "clock"],
)
async def test_what_the_policy_forbids_is_refused_and_never_taken_on_weaker_terms(
    man: Middle, mesh: Mesh, policy: Policy, fields: Json, ahead: int, reason: str
) -> None:
    man.honest()
    # The gateway is not to know what we will not take.
    man.orders[OFFERS] = without_floor
    strict = Policy(**{"pins": policy.pins, "allow_unattested": True, **fields})

    answer = await ask(man, mesh, strict, LateClock(timedelta(minutes=ahead)))

    assert (answer.status_code, answer.json()["error"]["code"]) == (403, reason), answer.text
    assert ANSWER not in {path for _, path, _ in man.seen}


def without_floor(asked: bytes) -> bytes:
    fields = json.loads(asked)
    fields.pop("trust_floor", None)
    return json.dumps(fields).encode()


async def test_no_money_is_left_behind(books: Books) -> None:
    await books.clean()
