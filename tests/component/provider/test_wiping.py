"""Plaintext that the agent has read is overwritten, whatever came of the request."""

import darkbloom_edge.envelope
import pytest
from darkbloom_edge.envelope import ProviderSession

from tests.component.provider.harness import staged

CANARY = "canary-91be"


@pytest.fixture
def plaintexts(monkeypatch):
    """Keep hold of every buffer that held plaintext."""
    held: list[bytearray] = []
    seen: list[bytes] = []
    open_into = darkbloom_edge.envelope.Opener.open_into
    seal_chunk = ProviderSession.seal_chunk

    def keeping_open(opener, payload):
        content, final = open_into(opener, payload)
        held.append(content)
        seen.append(bytes(content))
        return content, final

    def keeping_seal(session, delta, *, final=False):
        held.append(delta)
        seen.append(bytes(delta))
        return seal_chunk(session, delta, final=final)

    monkeypatch.setattr("darkbloom_edge.envelope.Opener.open_into", keeping_open)
    monkeypatch.setattr(ProviderSession, "seal_chunk", keeping_seal)
    return held, seen


async def test_prompts_and_answers_are_zeros_once_they_were_read_and_sealed(tmp_path, plaintexts):
    held, seen = plaintexts
    async with staged(tmp_path) as stage:
        link = await stage.link()
        answer = await stage.ask(link, script={"text": f"{CANARY} answer"}).send().answer()
        assert answer.text == f"{CANARY} answer"

        bounds = stage.ask(link, CANARY)
        bounds.request.output_bound = 999_999
        await bounds.send().error()
        await stage.ask(link, body=b'{"' + CANARY.encode() + b'":1}').send().error()
        await stage.ask(link, CANARY, lifetime_ms=-1000).send().error()
        await stage.ask(link, script={"refuse": "queue_full", "text": CANARY}).send().error()
        await stage.ask(link, script={"text": CANARY * 100_000}, prompt_bound=10**7).send().error()

    assert sum(CANARY.encode() in data for data in seen) >= 6
    assert len(held) > 6
    assert [buffer for buffer in held if any(buffer)] == []
