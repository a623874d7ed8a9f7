"""`darkbloom verify`: what a consumer has kept holds, or the command says what does not."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from darkbloom_edge.dialects.chat import lower
from darkbloom_edge.documents import rfc3339
from darkbloom_edge.ids import new_id
from darkbloom_edge.receipt import (
    Countersign,
    OpenedCounts,
    build_receipt,
    sign_countersign,
    terminal_sha256,
)
from darkbloom_edge.request import canonical_bytes
from darkbloom_edge.signatures import Ed25519Signer, P256Signer, to_base64
from darkbloom_edge.terminal import Terminal, sign_terminal
from darkbloom_edge.transcript import Transcript, body_digest
from darkbloom_edge.verdict import Verdict, sign_verdict


class Kept:
    """What a consumer has kept of one honest answer."""

    def __init__(self, folder: Path) -> None:
        attestation, gateway, provider = (
            Ed25519Signer.generate(),
            Ed25519Signer.generate(),
            P256Signer.generate(),
        )
        now = datetime.now(UTC)  # noqa: TID251 - judged by a real command
        key, encryption_key = bytes(range(32)), to_base64(bytes(32))
        body = b'{"model":"alias","messages":[{"role":"user","content":"hi"}]}'
        transcript = Transcript(key)
        transcript.request(canonical_bytes(lower(body).to_request("build", 64, "2026-01-31")))
        verdict = Verdict(
            verdict_id=new_id("ver"),
            provider_id=new_id("prov"),
            identity_key=provider.public_text,
            encryption_key=encryption_key,
            trust_level="none",
            admission="development",
            evidence=[],
            code_release="sha256:00",
            issued_at=rfc3339(now - timedelta(minutes=1)),
            expires_at=rfc3339(now + timedelta(minutes=5)),
        )
        terminal = Terminal(
            request_id=new_id("req"),
            attempt_id=new_id("att"),
            build="build",
            weight_hash="ab" * 32,
            prompt_tokens=3,
            completion_tokens=0,
            cached_tokens=0,
            reasoning_tokens=0,
            chunks=1,
            finish_reason="stop",
            encryption_key=encryption_key,
            verdict_id=verdict.verdict_id,
            sealed_to=1,
            digests=transcript.digests(),
            outcome="completed",
        )
        signed_terminal = sign_terminal(terminal, provider)
        countersign = Countersign(
            request_id=terminal.request_id,
            attempt_id=terminal.attempt_id,
            terminal_sha256=terminal_sha256(signed_terminal[0]),
            body_digest=body_digest(key, body),
            requested_model="alias",
            opened=OpenedCounts(frames=1, prompt_tokens=3, completion_tokens=0),
            outcome="completed",
            issued_at=rfc3339(now),
            output_bound=64,
            prompt_date="2026-01-31",
        )
        signed_verdict = sign_verdict(verdict, attestation)
        signed_countersign = sign_countersign(countersign, gateway)
        self.receipt = folder / "receipt.json"
        self.receipt.write_bytes(
            build_receipt(
                receipt_key=key,
                terminal=signed_terminal[0],
                terminal_signature=signed_terminal[1],
                identity_key=provider.public,
                verdict=signed_verdict[0],
                verdict_signature=signed_verdict[1],
                verdict_key_id=attestation.key_id,
                countersign=signed_countersign[0],
                countersign_signature=signed_countersign[1],
                gateway_key_id=gateway.key_id,
            )
        )
        self.request = folder / "request.json"
        self.request.write_bytes(body)
        self.answer = folder / "answer.txt"
        self.answer.write_bytes(b"")
        self.keys = folder / "keys.json"
        self.keys.write_text(
            json.dumps(
                {
                    "verdict_keys": [_pinned(attestation)],
                    "receipt_keys": [_pinned(gateway)],
                }
            )
        )


def _pinned(signer: Ed25519Signer) -> dict[str, str]:
    return {"key_id": signer.key_id, "public_key": to_base64(signer.public)}


@pytest.fixture
def kept(tmp_path) -> Kept:
    return Kept(tmp_path)


def test_an_honest_receipt_holds(cli, kept):
    arguments = ("verify", str(kept.receipt), "--keys", str(kept.keys))
    code, out, _ = cli(*arguments, "--request", str(kept.request))
    assert code == 0, out
    assert "The receipt holds" in out
    assert "unattested" in out

    code, out, _ = cli(*arguments, "--json")
    report = json.loads(out)
    assert code == 0
    assert (report["ok"], report["attested"]) == (True, False)
    assert {c["name"]: c["holds"] for c in report["claims"]}["terminal_signed"] is True


def test_without_keys_nothing_is_proven(cli, kept):
    code, out, _ = cli("verify", str(kept.receipt))
    assert code == 1
    assert "Nothing is proven" in out
    assert "verdict_signed, countersigned" in out


def test_another_request_or_answer_does_not_hold(cli, kept):
    arguments = ("verify", str(kept.receipt), "--keys", str(kept.keys))
    kept.request.write_bytes(b'{"model":"alias","messages":[{"role":"user","content":"ho"}]}')
    code, out, _ = cli(*arguments, "--request", str(kept.request))
    assert code == 1
    assert "does not hold" in out
    kept.answer.write_bytes(b"something else")
    assert cli(*arguments, "--answer", str(kept.answer))[0] == 1


def test_a_receipt_that_is_none_fails_and_does_not_crash(cli, kept):
    kept.receipt.write_bytes(b"[bold]not a receipt")
    code, out, _ = cli("verify", str(kept.receipt), "--keys", str(kept.keys), "--json")
    assert code == 1
    assert json.loads(out)["claims"][0]["holds"] is False


@pytest.mark.parametrize(
    "content",
    [
        "nonsense",
        "{}",
        '{"verdict_keys": [{"key_id": "a", "public_key": "%%"}], "receipt_keys": []}',
    ],
)
def test_a_key_file_that_is_none_is_a_plain_error(cli, kept, content):
    kept.keys.write_text(content)
    code, _, err = cli("verify", str(kept.receipt), "--keys", str(kept.keys))
    assert code == 1
    assert "is not a key file" in err


def test_a_missing_receipt_is_a_plain_error(cli):
    code, _, err = cli("verify", "/nowhere.json")
    assert code == 1
    assert "cannot be read" in err
