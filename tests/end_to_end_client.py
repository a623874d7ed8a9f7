"""A consumer of end-to-end mode, as small as docs/end-to-end.md allows; it checks what it must."""

import base64
import json
import secrets
import time
from dataclasses import dataclass, field
from typing import Any

import httpx
from darkbloom_edge.delta import Delta, decode
from darkbloom_edge.dialects.chat_request import lower
from darkbloom_edge.envelope import EdgeSession, RequestHeader
from darkbloom_edge.offers import OfferDocument, verdict_sha256, verify_offer
from darkbloom_edge.receipt import parse_receipt
from darkbloom_edge.records import (
    MEDIA_TYPE,
    SEALED_MEDIA_TYPE,
    Record,
    RecordKind,
    RecordReader,
)
from darkbloom_edge.request import canonical_bytes
from darkbloom_edge.signatures import to_base64
from darkbloom_edge.terminal import Terminal, verify_terminal
from darkbloom_edge.transcript import Transcript
from darkbloom_edge.verdict import Verdict, read_verdict


def _now_ms() -> int:
    return int(time.time() * 1000)  # noqa: TID251 - a stranger has no clock of ours


@dataclass
class Prompt:
    """One request of the chat dialect, lowered by its owner."""

    body: dict[str, Any]
    nonce: bytes = field(default_factory=lambda: secrets.token_bytes(32))
    receipt_key: bytes = field(default_factory=lambda: secrets.token_bytes(32))

    def ask(self, **changes: Any) -> dict[str, Any]:
        """Return the body of `POST /v1/offers`."""
        size = len(json.dumps(self.body))
        return {
            "model": self.body["model"],
            "nonce": to_base64(self.nonce),
            "prompt_tokens": size,
            "prompt_bound": 2 * size + 64,
            "output_bound": 512,
            "body_bytes": size + 4096,
            **changes,
        }


@dataclass
class Offered:
    """A verified offer."""

    said: OfferDocument
    verdict: Verdict
    raw: dict[str, Any]


def read_offer(
    answer: dict[str, Any],
    prompt: Prompt,
    *,
    verdict_keys: dict[str, bytes],
    gateway_keys: dict[str, bytes],
) -> Offered:
    """Check an offer as far as keys go."""

    def part(name: str) -> tuple[bytes, bytes, str]:
        signed = answer[name]
        return (
            base64.b64decode(signed["document"]),
            base64.b64decode(signed["signature"]),
            signed["key_id"],
        )

    said = verify_offer(*part("offer"), gateway_keys)
    verdict = read_verdict(*part("verdict"), verdict_keys)
    assert said.nonce == to_base64(prompt.nonce)
    assert said.verdict_sha256 == verdict_sha256(part("verdict")[0])
    assert said.provider_id == verdict.provider_id
    return Offered(said, verdict, answer)


class Sealing:
    """One sealed attempt: what is sent, and what is opened of the answer."""

    def __init__(self, prompt: Prompt, offered: Offered, **changes: Any) -> None:
        said, verdict = offered.said, offered.verdict
        self.prompt = prompt
        self.offered = offered
        self.session = EdgeSession.create(
            provider_key=base64.b64decode(verdict.encryption_key),
            request_id=said.request_id,
            attempt_id=said.attempt_id,
        )
        lowered = lower(json.dumps(prompt.body).encode())
        canonical = canonical_bytes(lowered.to_request(said.build, said.output_bound, "2026-01-31"))
        self.transcript = Transcript(prompt.receipt_key)
        self.transcript.request(canonical)
        header: dict[str, Any] = {
            "not_after_ms": _now_ms() + 300_000,
            "prompt_bound": said.prompt_bound,
            "output_bound": said.output_bound,
            "receipt_key": prompt.receipt_key,
            "verdict_id": verdict.verdict_id,
            "sealed_to": 1,
            "edge_nonce": prompt.nonce,
            "end_to_end": True,
            "cache_scope": base64.b64decode(offered.raw["cache_scope"]),
            **changes,
        }
        self.ciphertext = self.session.seal_request(RequestHeader(**header), canonical)
        self.content = self.session.sender_key + self.ciphertext
        self.headers = {
            "x-darkbloom-offer": said.offer_id,
            "content-type": SEALED_MEDIA_TYPE,
        }
        self.deltas: list[Delta] = []
        self.records: list[Record] = []
        self._reader = RecordReader()

    @property
    def text(self) -> str:
        """What was answered."""
        return "".join(delta.text for delta in self.deltas)

    @property
    def ended(self) -> bool:
        """Whether the last record has come."""
        return self._reader.ended

    def feed(self, data: bytes) -> None:
        """Open what has come."""
        for record in self._reader.feed(data):
            self.records.append(record)
            if record.kind not in (RecordKind.PREAMBLE, RecordKind.CONTENT, RecordKind.FINAL):
                continue
            plain, final = self.session.open_chunk(record.payload)
            assert final is (record.kind is RecordKind.FINAL)
            delta = decode(plain)
            assert delta.completion_tokens == record.tokens
            assert delta.edge_nonce == (b"" if self.deltas else self.prompt.nonce)
            self.transcript.feed(delta)
            self.deltas.append(delta)

    def receipt(self) -> tuple[bytes, Terminal]:
        """Return the whole receipt, with the client's key in it, and its verified terminal."""
        last = self.records[-1]
        assert last.kind is RecordKind.END, last.payload
        bare = parse_receipt(last.payload)
        assert bare.receipt_key is None
        whole = json.dumps(
            {**json.loads(last.payload), "receipt_key": to_base64(self.prompt.receipt_key)}
        ).encode()
        terminal = verify_terminal(
            bare.terminal, bare.terminal_signature, self.offered.verdict.identity_key
        )
        assert terminal.edge_nonce == to_base64(self.prompt.nonce)
        assert terminal.digests == self.transcript.digests()
        assert terminal.chunks == len(self.deltas)
        assert terminal.completion_tokens == self.deltas[-1].completion_tokens
        return whole, terminal


async def post(http: httpx.AsyncClient, sealing: Sealing) -> httpx.Response:
    """Send a sealed request, and open all of its answer."""
    async with http.stream(
        "POST", "/v1/offers/answer", content=sealing.content, headers=sealing.headers
    ) as response:
        if response.status_code != 200:
            await response.aread()
            return response
        assert response.headers["content-type"] == MEDIA_TYPE
        async for data in response.aiter_raw():
            sealing.feed(data)
        return response
