"""The other side of end-to-end mode in small: gateway, attestation, log, Apple and one machine.

It speaks docs/end-to-end.md over an httpx transport without sockets, opens what was sealed with the
machine's own K, and can be told to lie at every step.

    mesh = BlindMesh()
    client = httpx.Client(transport=Transport(mesh.policy(), inner=mesh.line(httpx), clock=mesh))
"""

import base64
import hashlib
import json
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import parse_qs

from darkbloom_client import Pins, Policy
from darkbloom_edge.challenge import Challenge, StatusReport, answer_challenge
from darkbloom_edge.delta import Delta, encode
from darkbloom_edge.device_statement import (
    DeviceStatement,
    build_statement,
    client_data_hash,
    serial_commitment,
)
from darkbloom_edge.documents import rfc3339
from darkbloom_edge.envelope import ProviderSession, SenderKeyMemory, new_key_pair
from darkbloom_edge.ids import new_id
from darkbloom_edge.log import KeyEntry, LogHead, ReleaseEntry, encode_entry, sign_head
from darkbloom_edge.merkle import Leaves, leaf_hash
from darkbloom_edge.offers import (
    OfferDocument,
    OfferedPrice,
    offer_id,
    parse_offer_request,
    replica_tag,
    sign_offer,
    verdict_sha256,
)
from darkbloom_edge.public_form import public_form, sign_public_form
from darkbloom_edge.receipt import (
    Countersign,
    OpenedCounts,
    build_receipt,
    sign_countersign,
    terminal_sha256,
)
from darkbloom_edge.records import MEDIA_TYPE, RecordKind, write_record
from darkbloom_edge.registration import RegistrationBlob
from darkbloom_edge.request import ChatRequest, parse_canonical
from darkbloom_edge.signatures import Ed25519Signer, P256Signer, to_base64
from darkbloom_edge.terminal import Terminal, sign_terminal
from darkbloom_edge.transcript import Transcript
from darkbloom_edge.verdict import Verdict, sign_verdict

from tests.fakes.apple_service import NOW, AppleService

APP_ID = "TEAM123456.io.example.provider"
RELEASE = "rel_1"
MODEL, BUILD = "alias", "build"
HELLO = (Delta(text="Hello"), Delta(text=", world."))
PRICE = OfferedPrice(
    price_id="p",
    input_micros=100,
    output_micros=400,
    cache_read_micros=50,
    minimum_charge_micros=100,
)
APPLE = AppleService()
Json = dict[str, Any]
Said = tuple[int, dict[str, str], list[bytes]]


class BlindMesh:
    """One of everything; attributes are the knobs."""

    def __init__(self) -> None:
        self.time = NOW
        self.attestation = Ed25519Signer(bytes(range(32)))
        self.gateway = Ed25519Signer(bytes(range(1, 33)))
        self.identity = P256Signer(bytes(range(1, 33)))
        self.k = new_key_pair()
        self.provider_id = new_id("prov")
        self.level: Any = "hardware"
        self.admission: Any = "public"
        self.observed = NOW
        """When the machine was last asked for anything."""
        self.answer: list[Delta] = list(HELLO)
        self.prompts: list[ChatRequest] = []
        """What the machine has read."""
        self.calls: list[tuple[str, str]] = []
        self.bodies: list[bytes] = []
        """Every byte that has left the client."""
        self.headers: list[dict[str, str]] = []
        self.offers: dict[str, OfferDocument] = {}
        self.verdicts: dict[str, tuple[bytes, bytes]] = {}
        self.declined: list[str] = []
        self.refusals: list[tuple[int, dict[str, str], Json]] = []
        """Said instead of the next answers of `/v1/offers/answer`."""
        self.no_offer: tuple[int, dict[str, str], Json] | None = None
        self.head_time: datetime | None = None
        self.change: dict[str, Callable[[Any], Any]] = {}
        """How the gateway lies: by what it touches, see the uses below."""
        self.log: list[bytes] = [b'{"other":1}']
        self._memory = SenderKeyMemory()
        self._evidence: Json | None = None
        self.bless()
        self.log.append(
            encode_entry(
                KeyEntry(
                    kind="receipt_key",
                    action="published",
                    key_id=self.gateway.key_id,
                    public_key=to_base64(self.gateway.public),
                    time=rfc3339(NOW),
                )
            )
        )

    # The client's side.

    def now(self) -> datetime:
        return self.time

    def pins(self) -> Pins:
        keys = {self.attestation.key_id: self.attestation.public}
        return Pins(verdict_keys=keys, log_keys=keys)

    def policy(self, **changes: Any) -> Policy:
        return Policy(**{"pins": self.pins(), "app_id": APP_ID, "apple": APPLE.roots, **changes})

    def line(self, library: Any) -> Any:
        """Return a transport of httpx or httpx2 that ends here, for sync and async clients."""

        def respond(request: Any) -> Any:
            status, headers, pieces = self.respond(request)

            class Pieces(library.SyncByteStream, library.AsyncByteStream):  # type: ignore[misc]
                def __iter__(self) -> Any:
                    return iter(pieces)

                async def __aiter__(self) -> Any:
                    for piece in pieces:
                        yield piece

            return library.Response(status, headers=headers, stream=Pieces())

        return library.MockTransport(respond)

    # The mesh's side.

    def bless(self, action: Any = "blessed", *, development: bool = False) -> None:
        self.log.append(
            encode_entry(
                ReleaseEntry(
                    action=action,
                    code_release=RELEASE,
                    release_version="1.2.3",
                    platform="macos-arm64",
                    python_hash="0" * 64,
                    runtime_hash="0" * 64,
                    template_hashes={},
                    development=development,
                    time=rfc3339(NOW),
                )
            )
        )

    def respond(self, request: Any) -> Said:
        path = request.url.path
        body = request.read()
        self.calls.append((request.method, path))
        self.bodies.append(body)
        self.headers.append({k.lower(): v for k, v in request.headers.items()})
        query = {k: v[0] for k, v in parse_qs(request.url.query.decode()).items()}
        if request.method == "POST":
            return self._post(path, request.headers.get("x-darkbloom-offer", ""), body)
        known = self._page(path, query)
        if known is None:
            return self._json({"error": {"message": "no", "type": "not_found"}}, 404)
        return self._json(known)

    def _post(self, path: str, offer: str, body: bytes) -> Said:
        if path == "/v1/offers":
            return self._offer(body)
        if path == "/v1/offers/answer":
            return self._answer(offer, body)
        assert path == "/v1/offers/decline", path
        self.declined.append(offer)
        return 204, {}, []

    def _page(self, path: str, query: dict[str, str]) -> Json | None:
        pages: dict[str, Callable[[], Json]] = {
            "/v1/providers/attestation": lambda: {
                "providers": self._lied("evidence", [self.evidence()])
            },
            "/v1/log/head": lambda: {"head": self._lied("head", self._head())},
            "/v1/log/entries": lambda: {"entries": self._lied("entries", self._entries(query))},
            "/v1/log/proof/inclusion": lambda: {
                "path": _hex(self._tree(int(query["size"])).inclusion(int(query["index"])))
            },
            "/v1/log/proof/consistency": lambda: {
                "path": _hex(self._tree(int(query["second"])).consistency(int(query["first"])))
            },
            "/v1/models": lambda: {"object": "list", "data": []},
        }
        return pages[path]() if path in pages else None

    def evidence(self) -> Json:
        """Return the machine's entry on the attestation page."""
        if self._evidence is None:
            pieces = [self._registration(), self._challenge()]
            if self.level == "hardware":
                pieces.append(self._app_attest())
            self._evidence = {
                "provider_id": self.provider_id,
                "identity_key": self.identity.public_text,
                "encryption_key": to_base64(self.k.public),
                "evidence": pieces,
            }
        return self._evidence

    def verdict(self) -> tuple[bytes, bytes]:
        """Return a fresh verdict and its signature."""
        fields: Json = {
            "verdict_id": new_id("ver"),
            "provider_id": self.provider_id,
            "identity_key": self.identity.public_text,
            "encryption_key": to_base64(self.k.public),
            "trust_level": self.level,
            "admission": self.admission,
            "evidence": ["reg_1", "chal_1", "app_1"],
            "code_release": RELEASE,
            "issued_at": rfc3339(self.observed),
            "expires_at": rfc3339(self.observed + timedelta(minutes=16)),
        }
        verdict = Verdict(**self._lied("verdict", fields))
        found = self.verdicts[verdict.verdict_id] = sign_verdict(verdict, self.attestation)
        return found

    def _offer(self, body: bytes) -> Said:
        if self.no_offer is not None:
            return self._refusal(self.no_offer)
        asked = parse_offer_request(body)
        if self.provider_id in asked.exclude:
            return self._refusal((429, {"retry-after": "3"}, {"code": "no_provider"}))
        document, signature = self.verdict()
        attempt = new_id("att")
        fields: Json = {
            "offer_id": offer_id(replica_tag("replica"), attempt),
            "nonce": asked.nonce,
            "request_id": new_id("req"),
            "attempt_id": attempt,
            "provider_id": self.provider_id,
            "build": BUILD,
            "requested_model": asked.model,
            "verdict_sha256": verdict_sha256(document),
            "prompt_bound": asked.prompt_bound,
            "output_bound": asked.output_bound or 64,
            "body_bytes": asked.body_bytes,
            "price": PRICE,
            "hold_micro_usd": 100,
            "issued_at": rfc3339(self.time),
            "reserve_ms": 2000,
        }
        offer = OfferDocument(**self._lied("offer", fields))
        self.offers[offer.offer_id] = offer
        signed = sign_offer(offer, self.gateway)
        whole = {
            "offer": _signed(*signed, self.gateway.key_id),
            "verdict": _signed(document, signature, self.attestation.key_id),
            "cache_scope": to_base64(bytes(32)),
            "evidence_url": "/v1/providers/attestation",
        }
        return self._json(self._lied("offered", whole))

    def _answer(self, name: str, body: bytes) -> Said:
        if self.refusals:
            return self._refusal(self.refusals.pop(0))
        offer = self.offers[name]
        opened = ProviderSession.open_request(
            key_pair=self.k,
            sender_key=body[:32],
            request_id=offer.request_id,
            attempt_id=offer.attempt_id,
            payload=body[32:],
            now_ms=int(self.time.timestamp() * 1000),
            memory=self._memory,
        )
        header, canonical = opened.header, bytes(opened.body)
        self.prompts.append(parse_canonical(canonical))
        transcript = Transcript(header.receipt_key)
        transcript.request(canonical)

        records, tokens = [], 0
        nonce = self._lied("nonce", header.edge_nonce)
        last = Delta(finish_reason="stop")
        for index, said in enumerate((*self.answer, last)):
            final = said is last
            tokens += not final
            delta = Delta(
                text=said.text,
                reasoning=said.reasoning,
                tool_calls=said.tool_calls,
                prompt_tokens=7,
                completion_tokens=tokens,
                finish_reason=("tool_calls" if any(d.tool_calls for d in self.answer) else "stop")
                if final
                else None,
                edge_nonce=nonce if index == 0 else b"",
            )
            transcript.feed(delta)
            box = opened.session.seal_chunk(encode(delta), final=final)
            records.append((RecordKind.FINAL if final else RecordKind.CONTENT, box, tokens))
        records = self._lied("records", records)
        end = self._receipt(offer, header, transcript, tokens, records, body[32:])
        if end is not None:
            records.append((RecordKind.END, json.dumps(end).encode(), 0))
        pieces = [write_record(kind, payload, count) for kind, payload, count in records]
        headers = {"content-type": MEDIA_TYPE, "x-provider-id": self.provider_id}
        return 200, headers, self._lied("pieces", pieces)

    def _receipt(
        self,
        offer: OfferDocument,
        header: Any,
        transcript: Transcript,
        tokens: int,
        records: Iterable[tuple[int, bytes, int]],
        ciphertext: bytes,
    ) -> Json | None:
        boxes = [payload for _, payload, _ in records]
        fields: Json = {
            "request_id": offer.request_id,
            "attempt_id": offer.attempt_id,
            "build": offer.build,
            "weight_hash": "w",
            "prompt_tokens": 7,
            "completion_tokens": tokens,
            "cached_tokens": 0,
            "reasoning_tokens": 0,
            "chunks": len(self.answer) + 1,
            "finish_reason": "tool_calls" if any(d.tool_calls for d in self.answer) else "stop",
            "encryption_key": to_base64(self.k.public),
            "verdict_id": header.verdict_id,
            "sealed_to": header.sealed_to,
            "digests": transcript.digests(),
            "outcome": "completed",
            "edge_nonce": to_base64(header.edge_nonce),
        }
        terminal, signature = sign_terminal(
            Terminal(**self._lied("terminal", fields)), self.identity
        )
        said: Json = {
            "request_id": offer.request_id,
            "attempt_id": offer.attempt_id,
            "terminal_sha256": terminal_sha256(terminal),
            "mode": "end_to_end",
            "sealed_sha256": hashlib.sha256(ciphertext).hexdigest(),
            "relayed_sha256": hashlib.sha256(b"".join(boxes)).hexdigest(),
            "requested_model": offer.requested_model,
            "opened": OpenedCounts(frames=len(boxes), prompt_tokens=7, completion_tokens=tokens),
            "outcome": "completed",
            "issued_at": rfc3339(self.time),
        }
        countersign, mark = sign_countersign(
            Countersign(**self._lied("countersign", said)), self.gateway
        )
        verdict = self.verdicts[header.verdict_id]
        receipt: Json = json.loads(
            build_receipt(
                receipt_key=None,
                terminal=terminal,
                terminal_signature=signature,
                identity_key=self.identity.public,
                verdict=verdict[0],
                verdict_signature=verdict[1],
                verdict_key_id=self.attestation.key_id,
                countersign=countersign,
                countersign_signature=mark,
                gateway_key_id=self.gateway.key_id,
            )
        )
        return self._lied("receipt", receipt)

    def _registration(self) -> Json:
        blob = RegistrationBlob(
            authenticated_root_enabled=True,
            chip_name="Apple M4",
            encryption_public_key=to_base64(self.k.public),
            hardware_model="Mac16,1",
            os_version="26.1",
            public_key=self.identity.public_text,
            rdma_disabled=True,
            secure_boot_enabled=True,
            secure_enclave_available=True,
            sip_enabled=True,
            timestamp=rfc3339(self.observed),
        )
        return {
            "id": "reg_1",
            "kind": "registration",
            "backing": "checkable",
            "document": to_base64(public_form(blob)),
            "signature": to_base64(sign_public_form(blob, self.identity)),
        }

    def _challenge(self) -> Json:
        asked = Challenge(to_base64(bytes(32)), rfc3339(self.observed), self.provider_id)
        report = StatusReport(public_key=to_base64(self.k.public), sip_enabled=True)
        status, signature = answer_challenge(asked, report, self.identity)
        return {
            "id": "chal_1",
            "kind": "challenge",
            "backing": "checkable",
            "document": to_base64(status),
            "signature": to_base64(signature),
        }

    def _app_attest(self) -> Json:
        made, said = self._statement("first"), self._statement("second")
        key = APPLE.attest(APP_ID, client_data_hash=client_data_hash(made))
        return {
            "id": "app_1",
            "kind": "app_attest",
            "backing": "checkable",
            "document": to_base64(said),
            "signature": to_base64(key.assertion(client_data_hash(said))),
            "attestation": to_base64(key.attestation),
            "attestation_document": to_base64(made),
            "key_id": key.key_id,
            "environment": "production",
        }

    def _statement(self, nonce: str) -> bytes:
        return build_statement(
            DeviceStatement(
                provider_id=self.provider_id,
                nonce=nonce,
                timestamp=rfc3339(self.observed),
                identity_key=self.identity.public_text,
                encryption_key=to_base64(self.k.public),
                serial_commitment=serial_commitment("C02XYZ123456", bytes(32)),
                app_version="1.2.3",
                os_version="26.1",
            )
        )

    def _entries(self, query: dict[str, str]) -> list[Json]:
        found = []
        for index, body in enumerate(self.log):
            entry = json.loads(body)
            subjects = (entry.get("code_release"), entry.get("key_id"))
            if entry.get("kind") == query["kind"] and query["subject"] in subjects:
                found.append({"index": index, "entry": to_base64(body)})
        return found

    def _tree(self, size: int) -> Leaves:
        return Leaves([leaf_hash(body) for body in self.log[:size]])

    def _head(self) -> Json:
        head = LogHead(
            tree_size=len(self.log),
            root_hash=self._tree(len(self.log)).root.hex(),
            time=rfc3339(self.head_time or self.time),
        )
        return _signed(*sign_head(head, self.attestation), self.attestation.key_id)

    def _lied(self, what: str, value: Any) -> Any:
        change = self.change.get(what)
        return value if change is None else change(value)

    @staticmethod
    def _json(content: Any, status: int = 200) -> Said:
        return status, {"content-type": "application/json"}, [json.dumps(content).encode()]

    @classmethod
    def _refusal(cls, said: tuple[int, dict[str, str], Json]) -> Said:
        status, headers, error = said
        whole = {"message": "no", "type": "rate_limit_exceeded", **error}
        _, kind, pieces = cls._json({"error": whole})
        return status, {**kind, **headers}, pieces


def _hex(path: list[bytes]) -> list[str]:
    return [one.hex() for one in path]


def _signed(document: bytes, signature: bytes, key_id: str) -> Json:
    return {
        "document": to_base64(document),
        "signature": to_base64(signature),
        "key_id": key_id,
    }


def flipped(text: str) -> str:
    """Return base64 of the same bytes with the last bit of the middle one changed."""
    raw = bytearray(base64.b64decode(text))
    raw[len(raw) // 2] ^= 1
    return base64.b64encode(bytes(raw)).decode()
