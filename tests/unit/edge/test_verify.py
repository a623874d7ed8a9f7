"""The offline verifier: every lie in a receipt makes the claim that it touches fail."""

import base64
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from darkbloom_edge.delta import Delta, ToolCallPart
from darkbloom_edge.dialects.chat import DONE, ChatCollector, ChatStream, lower, usage_of
from darkbloom_edge.documents import rfc3339
from darkbloom_edge.ids import new_id
from darkbloom_edge.receipt import (
    Countersign,
    OpenedCounts,
    build_receipt,
    parse_receipt,
    sign_countersign,
    terminal_sha256,
)
from darkbloom_edge.report import Claim, Report
from darkbloom_edge.request import canonical_bytes
from darkbloom_edge.signatures import Ed25519Signer, P256Signer, to_base64
from darkbloom_edge.terminal import Terminal, sign_terminal
from darkbloom_edge.transcript import Transcript, body_digest
from darkbloom_edge.verdict import Verdict, sign_verdict
from darkbloom_edge.verify import verify_receipt
from hypothesis import given
from hypothesis import strategies as st

NOW = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
ATTESTATION = Ed25519Signer(bytes(range(32)))
GATEWAY = Ed25519Signer(bytes(range(1, 33)))
PROVIDER = P256Signer(bytes(range(1, 33)))
STRANGER = P256Signer(bytes(range(2, 34)))
VERDICT_KEYS = {ATTESTATION.key_id: ATTESTATION.public}
GATEWAY_KEYS = {GATEWAY.key_id: GATEWAY.public}
KEY = bytes(range(32))
BODY = b'{"model":"alias","messages":[{"role":"user","content":"hi"}],"stream":true}'
DELTAS = (
    Delta("hel", "why ", (ToolCallPart(0, "c", "f", "{"),), 9, 1),
    Delta("lo\u2028", "not", (ToolCallPart(0, arguments="}"),), 9, 4, finish_reason="stop"),
)

Changes = dict[str, Any]


def receipt(
    verdict: Changes | None = None,
    terminal: Changes | None = None,
    countersign: Changes | None = None,
    outside: Changes | None = None,
    signer: P256Signer = PROVIDER,
) -> bytes:
    """Build a receipt of one honest answer, with some changes that are signed all the same."""
    said = Verdict(
        **{
            "verdict_id": new_id("ver", bytes(16)),
            "provider_id": new_id("prov", bytes(16)),
            "identity_key": PROVIDER.public_text,
            "encryption_key": to_base64(bytes(32)),
            "trust_level": "none",
            "admission": "development",
            "evidence": [],
            "code_release": "sha256:00",
            "issued_at": rfc3339(NOW - timedelta(minutes=5)),
            "expires_at": rfc3339(NOW + timedelta(minutes=5)),
            **(verdict or {}),
        }
    )
    transcript = Transcript(KEY)
    transcript.request(canonical_bytes(lower(BODY).to_request("build", 64, "2026-01-31")))
    for delta in DELTAS:
        transcript.feed(delta)
    done = Terminal(
        **{
            "request_id": new_id("req", bytes(16)),
            "attempt_id": new_id("att", bytes(16)),
            "build": "build",
            "weight_hash": "w",
            "prompt_tokens": 9,
            "completion_tokens": 4,
            "cached_tokens": 0,
            "reasoning_tokens": 0,
            "chunks": 2,
            "finish_reason": "stop",
            "encryption_key": to_base64(bytes(32)),
            "verdict_id": new_id("ver", bytes(16)),
            "sealed_to": 1,
            "digests": transcript.digests(),
            "outcome": "completed",
            **(terminal or {}),
        }
    )
    verdict_document, verdict_signature = sign_verdict(said, ATTESTATION)
    terminal_document, terminal_signature = sign_terminal(done, signer)
    seen = Countersign(
        **{
            "request_id": new_id("req", bytes(16)),
            "attempt_id": new_id("att", bytes(16)),
            "terminal_sha256": terminal_sha256(terminal_document),
            "body_digest": body_digest(KEY, BODY),
            "requested_model": "alias",
            "opened": OpenedCounts(frames=2, prompt_tokens=9, completion_tokens=4),
            "outcome": "completed",
            "issued_at": rfc3339(NOW),
            "output_bound": 64,
            "prompt_date": "2026-01-31",
            **(countersign or {}),
        }
    )
    countersigned, countersignature = sign_countersign(seen, GATEWAY)
    fields = {
        "receipt_key": KEY,
        "terminal": terminal_document,
        "terminal_signature": terminal_signature,
        "identity_key": PROVIDER.public,
        "verdict": verdict_document,
        "verdict_signature": verdict_signature,
        "verdict_key_id": ATTESTATION.key_id,
        "countersign": countersigned,
        "countersign_signature": countersignature,
        "gateway_key_id": GATEWAY.key_id,
    }
    return build_receipt(**{**fields, **(outside or {})})


def verified(data: bytes, **options: Any) -> Report:
    keys = {"verdict_keys": VERDICT_KEYS, "gateway_keys": GATEWAY_KEYS}
    return verify_receipt(data, **{**keys, **options})


def streamed() -> bytes:
    answer = ChatStream("chatcmpl-1", 1, "alias")
    return b"".join((answer.first(DELTAS[0]), answer.finish(DELTAS[1], None), DONE))


def collected() -> bytes:
    collector = ChatCollector("chatcmpl-1", 1, "alias")
    for delta in DELTAS:
        collector.feed(delta)
    return collector.body(usage_of(DELTAS[1]))


def failed(report: Report) -> set[str]:
    return {claim.name for claim in report.claims if claim.holds is False}


@pytest.mark.parametrize("answer", [streamed(), collected()], ids=["stream", "completion"])
def test_every_claim_of_an_honest_receipt_holds_except_attestation(answer: bytes) -> None:
    report = verified(receipt(), request_body=BODY, answer=answer, now=NOW)
    assert report.ok
    assert {claim.name for claim in report.claims if claim.holds is None} == {"attested"}
    assert "development" in report.claim("attested").detail
    assert not report.attested


@pytest.mark.parametrize("ending", ["", "\n"])
def test_plain_text_proves_the_content_only(ending: str) -> None:
    report = verified(receipt(), answer=f"hello\u2028{ending}".encode())
    assert report.ok
    assert report.claim("content").holds
    assert report.claim("reasoning").holds is None
    assert report.claim("tool_calls").holds is None


def test_attested_hardware_is_called_so_only_for_public_admission() -> None:
    assert verified(receipt({"trust_level": "hardware", "admission": "public"})).attested
    assert not verified(receipt({"trust_level": "hardware", "admission": "owner"})).attested


def test_without_keys_nothing_is_called_ok() -> None:
    report = verify_receipt(receipt())
    assert failed(report) == set()
    assert not report.ok
    assert report.claim("verdict_signed").holds is None
    assert "no verdict keys" in report.claim("verdict_signed").detail
    assert not verified(receipt(), gateway_keys=None).ok


@pytest.mark.parametrize(
    ("build", "names"),
    [
        (lambda: receipt({"identity_key": STRANGER.public_text}), {"identity_bound"}),
        (lambda: receipt(signer=STRANGER), {"terminal_signed"}),
        (
            lambda: receipt(signer=STRANGER, outside={"identity_key": STRANGER.public}),
            {"identity_bound"},
        ),
        (lambda: receipt({"encryption_key": to_base64(bytes([1]) * 32)}), {"encryption_key_bound"}),
        (lambda: receipt({"verdict_id": new_id("ver")}), {"encryption_key_bound"}),
        (lambda: receipt(countersign={"attempt_id": new_id("att")}), {"same_attempt"}),
        (lambda: receipt(countersign={"terminal_sha256": "0" * 64}), {"same_attempt"}),
        (
            lambda: receipt(
                countersign={
                    "opened": OpenedCounts(frames=2, prompt_tokens=9, completion_tokens=3)
                }
            ),
            {"counts_agree"},
        ),
        (
            lambda: receipt(countersign={"issued_at": rfc3339(NOW - timedelta(hours=1))}),
            {"verdict_timely"},
        ),
        (
            lambda: receipt(countersign={"issued_at": rfc3339(NOW + timedelta(hours=2))}),
            {"verdict_timely"},
        ),
        (lambda: receipt(countersign={"requested_model": "other"}), {"requested_model"}),
        (lambda: receipt(terminal={"build": "other"}), {"provider_request"}),
        (lambda: receipt(outside={"receipt_key": bytes(32)}), {
            "request_body", "provider_request", "content", "reasoning", "tool_calls",
        }),
        (lambda: receipt(outside={"verdict_key_id": "0" * 16}), {"verdict_signed"}),
        (lambda: receipt(outside={"gateway_key_id": "0" * 16}), {"countersigned"}),
        (lambda: receipt(outside={"verdict_signature": bytes(64)}), {"verdict_signed"}),
        (lambda: receipt(outside={"countersign_signature": b""}), {"countersigned"}),
    ],
)  # fmt: skip
def test_a_lie_makes_the_claim_that_it_touches_fail(
    build: Callable[[], bytes], names: set[str]
) -> None:
    report = verified(build(), request_body=BODY, answer=collected())
    assert failed(report) == names
    assert not report.ok


def test_another_request_or_answer_is_noticed() -> None:
    other_body = BODY.replace(b"hi", b"ho")
    report = verified(receipt(), request_body=other_body, answer=b"jello")
    assert failed(report) == {"request_body", "provider_request", "content"}
    spaced = BODY.replace(b",", b", ")
    assert failed(verified(receipt(), request_body=spaced)) == {"request_body"}
    assert failed(verified(receipt(), request_body=b"nope")) == {"request_body", "provider_request"}


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda text: text.replace(b"lo\xe2\x80\xa8", b"la"), "content"),
        (lambda text: text.replace(b"not", b"NOT"), "reasoning"),
        (lambda text: text.replace(b'"arguments":"}"', b'"arguments":" }"'), "tool_calls"),
        (lambda text: text.removesuffix(DONE), "complete"),
        (lambda text: text.replace(b'"alias"', b'"other"'), "requested_model"),
        (lambda text: text + b"data: nope\n\n", "answer"),
    ],
)
def test_a_changed_stream_is_noticed(change: Callable[[bytes], bytes], name: str) -> None:
    assert failed(verified(receipt(), answer=change(streamed()))) == {name}


def test_an_answer_from_the_future_is_refused() -> None:
    report = verified(receipt(), now=NOW - timedelta(minutes=3))
    assert failed(report) == {"verdict_timely"}


def test_an_answer_that_outlived_its_verdict_is_not_called_timely() -> None:
    late = receipt(countersign={"issued_at": rfc3339(NOW + timedelta(minutes=6))})
    assert verified(late).claim("verdict_timely").holds is None


def test_a_cut_answer_may_have_been_opened_less_far() -> None:
    opened = OpenedCounts(frames=1, prompt_tokens=9, completion_tokens=1)
    report = verified(receipt(countersign={"outcome": "cancelled", "opened": opened}))
    assert report.claim("counts_agree").holds is None
    assert report.ok


def test_a_receipt_without_bound_and_date_says_that_the_request_cannot_be_rebuilt() -> None:
    report = verified(
        receipt(countersign={"output_bound": None, "prompt_date": None}), request_body=BODY
    )
    assert report.claim("provider_request").holds is None
    assert report.ok


def test_a_receipt_is_read_back_and_shows_nothing() -> None:
    data = receipt()
    parsed = parse_receipt(data)
    assert parsed.receipt_key == KEY
    assert base64.b64encode(KEY).decode() not in repr(parsed)
    assert json.loads(data)["identity_key"] == PROVIDER.public_text


@given(st.data())
def test_no_changed_receipt_is_ok_and_none_crashes_the_verifier(data: st.DataObject) -> None:
    original = receipt()
    fields = json.loads(original)
    name = data.draw(st.sampled_from(sorted(fields)))
    raw = bytearray(str(fields[name]).encode())
    position = data.draw(st.integers(0, len(raw) - 1))
    raw[position] ^= 1 << data.draw(st.integers(0, 6))
    fields[name] = raw.decode("latin-1")
    changed = json.dumps(fields).encode()

    report = verified(changed, request_body=BODY, answer=collected(), now=NOW)
    try:
        # Base64 has spare bits in its last digit: another spelling may be the same receipt.
        same = parse_receipt(changed) == parse_receipt(original)
    except Exception:  # noqa: BLE001 - unreadable is changed enough
        same = False
    assert same or not report.ok


@given(st.binary(max_size=100), st.binary(max_size=50), st.binary(max_size=50))
def test_arbitrary_bytes_never_crash_the_verifier(data: bytes, body: bytes, answer: bytes) -> None:
    assert not verified(data, request_body=body, answer=answer).ok
    assert not verified(receipt(), request_body=body, answer=answer).ok


def test_a_receipt_with_unreadable_documents_is_one_failed_claim() -> None:
    fields = msgspec.to_builtins(parse_receipt(receipt()))
    for name in ("verdict", "terminal", "countersign"):
        report = verified(json.dumps({**fields, name: ""}).encode())
        assert [claim.name for claim in report.claims] == ["receipt"]
        assert not report.ok
    with pytest.raises(KeyError):
        report.claim("content")


def named(report: Report) -> dict[str, Claim]:
    return {claim.name: claim for claim in report.claims}


def test_a_receipt_of_end_to_end_mode_speaks_of_no_body() -> None:
    changes = {"body_digest": None, "mode": "end_to_end", "sealed_sha256": "0" * 64}
    report = verified(receipt(countersign=changes), request_body=BODY)
    assert named(report)["request_body"].holds is None
    assert named(report)["provider_request"].holds


def test_a_countersign_that_forgets_the_body_does_not_hold() -> None:
    report = verified(receipt(countersign={"body_digest": None}), request_body=BODY)
    assert named(report)["request_body"].holds is False
