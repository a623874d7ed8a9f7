"""The command that asks a gateway what backs its word."""

import base64
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from darkbloom_client.gateway_evidence import EvidenceError, gather, main
from darkbloom_client.pins import Pins
from darkbloom_edge.gateway_evidence import (
    GatewayStatement,
    Outcome,
    StatedKey,
    report_data,
    sign_statement,
)
from darkbloom_edge.sealed_request import key_id
from darkbloom_edge.signatures import Ed25519Signer, to_base64

SIGNER = Ed25519Signer(b"\x05" * 32)
KEY = b"\x09" * 32
NOW = datetime(2026, 1, 31, 12, 0, 0, tzinfo=UTC)
NONCE = "ab" * 32


class Gateway:
    """Answers the three pages, with a platform or without, honestly or not."""

    def __init__(self, *, quoted: bool = False, replay: str | None = None) -> None:
        self.quoted, self.replay = quoted, replay
        self.pages: dict[str, Any] = {
            "/v1/encryption-key": {"public_key": to_base64(KEY)},
            "/v1/receipts/keys": {
                "verdict_keys": [{"key_id": "0" * 16, "public_key": to_base64(b"\x01" * 32)}],
                "receipt_keys": [{"key_id": SIGNER.key_id, "public_key": to_base64(SIGNER.public)}],
            },
        }

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v1/gateway/evidence":
            return httpx.Response(200, json=self.evidence(request.url.params["nonce"]))
        page = self.pages.get(request.url.path)
        return httpx.Response(200, json=page) if page else httpx.Response(503)

    def evidence(self, nonce: str) -> dict[str, Any]:
        statement = GatewayStatement(
            gateway="gateway/0",
            environment="production",
            nonce=self.replay or nonce,
            issued_at="2026-01-31T12:00:00Z",
            encryption_keys=(StatedKey(kid=key_id(KEY), public_key=to_base64(KEY)),),
            countersign_key=to_base64(SIGNER.public),
            software_version="1",
        )
        document, signature = sign_statement(statement, SIGNER)
        report = bytes(0x50) + report_data(document) + bytes(500)
        quote = {"kind": "sev_guest", "report": base64.b64encode(report).decode()}
        return {
            "signed": {
                "document": to_base64(document),
                "signature": to_base64(signature),
                "key_id": SIGNER.key_id,
            },
            "report_data": report_data(document).hex(),
            "quote": quote if self.quoted else None,
            "not_proven": [{"what": "memory", "why": "nobody says"}],
        }


def outcomes(gateway: Gateway, pins: Pins | None = None) -> dict[str, Outcome]:
    with httpx.Client(transport=httpx.MockTransport(gateway), base_url="http://g") as http:
        checks, _ = gather(http, nonce=NONCE, pins=pins, now=NOW)
    return {check.name: check.outcome for check in checks}


def test_an_honest_gateway_without_a_platform_shows_no_quote_and_fails_nothing() -> None:
    found = outcomes(Gateway())

    assert found.pop("hardware quote") is Outcome.NOT_SHOWN
    assert set(found.values()) == {Outcome.HOLDS}


def test_a_quote_over_the_statement_proves_nothing_before_its_maker_was_asked() -> None:
    assert outcomes(Gateway(quoted=True))["hardware quote"] is Outcome.NOT_SHOWN


def test_an_old_answer_fails_by_its_nonce() -> None:
    assert outcomes(Gateway(replay="cd" * 32))["nonce"] is Outcome.FAILS


def test_a_key_page_with_another_key_fails() -> None:
    gateway = Gateway()
    gateway.pages["/v1/encryption-key"] = {"public_key": to_base64(b"\x0a" * 32)}

    assert outcomes(gateway)["encryption key"] is Outcome.FAILS


def test_a_signer_outside_the_kept_keys_fails() -> None:
    pins = Pins(verdict_keys={"k": b"\x01" * 32}, log_keys={})

    assert outcomes(Gateway(), pins)["statement"] is Outcome.FAILS


@pytest.mark.parametrize("path", ["/v1/receipts/keys", "/v1/encryption-key"])
def test_pages_of_another_shape_are_an_error_and_no_verdict(path: str) -> None:
    gateway = Gateway()
    gateway.pages[path] = {"public_key": "not base64"}

    with pytest.raises(EvidenceError):
        outcomes(gateway)


def test_plain_http_to_another_machine_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["x", "--url", "http://mesh.example"])

    with pytest.raises(SystemExit) as caught:
        main()

    assert caught.value.code == 64
    assert "https" in capsys.readouterr().err
