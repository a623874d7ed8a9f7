"""`darkbloom-gateway-evidence`: what backs a gateway's word that it keeps nothing.

It asks with a fresh nonce, checks what can be checked without the maker of the machine, and says
what stays open. Exit codes: 0 nothing fails, 1 something fails or a wanted quote is missing, 64 bad
arguments, 69 the gateway did not answer.
"""

import base64
import json
import secrets
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, NoReturn
from urllib.parse import urlsplit

import httpx
import typer
from darkbloom_edge.errors import MalformedError
from darkbloom_edge.gateway_evidence import Check, Outcome, ShownEvidence, check_evidence
from darkbloom_edge.signatures import from_base64
from darkbloom_edge.strict_json import parse_json_object

from darkbloom_client.clock import SystemClock
from darkbloom_client.loopback import is_loopback
from darkbloom_client.pins import Pins, PinsError

EX_USAGE, EX_UNAVAILABLE = 64, 69
TIMEOUT_S = 20.0
_MAX_BYTES = 1024 * 1024
_NONCE_BYTES = 32
_NO_KEY = 503
_MARKS = {Outcome.HOLDS: "✓", Outcome.FAILS: "✗", Outcome.NOT_SHOWN: "?"}


class EvidenceError(Exception):
    """The gateway did not answer, or not with evidence."""


def gather(
    http: httpx.Client, *, nonce: str, pins: Pins | None, now: datetime
) -> tuple[tuple[Check, ...], dict[str, Any]]:
    """Ask a gateway and check what it shows.

    Args:
        http: with the gateway as its base URL.
        nonce: 64 random hex digits.
        pins: keys that the caller kept; None: those that the gateway publishes now.
        now: the caller's time.

    Returns:
        The checks, and the page as it came.

    Raises:
        EvidenceError: no answer, or none of this shape.
    """
    page = _get(http, f"/v1/gateway/evidence?nonce={nonce}")
    published = _get(http, "/v1/encryption-key", without=_NO_KEY)
    try:
        if pins is None:
            pins = Pins.parse(json.dumps(_get(http, "/v1/receipts/keys")).encode())
        shown = _shown(page)
        encryption_key = from_base64(str(published["public_key"])) if published else None
    except (PinsError, MalformedError, KeyError, TypeError, AttributeError):
        raise EvidenceError("the gateway's answer is not of this shape") from None

    checks = check_evidence(
        shown, nonce=nonce, encryption_key=encryption_key, keys=pins.gateway_keys, now=now
    )
    return checks, page


def main() -> None:
    """Run the command."""
    typer.run(run)


def run(
    url: Annotated[
        str, typer.Option(envvar="DARKBLOOM_URL", help="The gateway, such as https://host.")
    ],
    keys: Annotated[
        Path | None,
        typer.Option(help="A saved GET /v1/receipts/keys; without it the gateway's own is asked."),
    ] = None,
    require_quote: Annotated[
        bool, typer.Option("--require-quote", help="Fail where no quote over this answer is shown.")
    ] = False,
    save_quote: Annotated[
        Path | None,
        typer.Option(help="Write the raw quote here, for the tools of the platform's maker."),
    ] = None,
) -> None:
    """Ask a gateway what backs its word, and check it."""
    where = urlsplit(url)
    if where.scheme not in {"http", "https"} or (
        where.scheme == "http" and not is_loopback(where.hostname or "")
    ):
        _end(EX_USAGE, "the gateway is https://…, or on this machine")
    try:
        pins = Pins.load(keys) if keys is not None else None
        with httpx.Client(base_url=url.rstrip("/"), timeout=TIMEOUT_S) as http:
            nonce = secrets.token_hex(_NONCE_BYTES)
            checks, page = gather(http, nonce=nonce, pins=pins, now=SystemClock().now())
    except PinsError as error:
        _end(EX_USAGE, str(error))
    except EvidenceError as error:
        _end(EX_UNAVAILABLE, str(error))

    _report(checks, page, own_keys=keys is None, say=typer.echo)
    quote = page.get("quote")
    if save_quote is not None and isinstance(quote, dict):
        save_quote.write_bytes(base64.b64decode(quote["report"]))
    failed = any(check.outcome is Outcome.FAILS for check in checks)
    raise typer.Exit(1 if failed or (require_quote and quote is None) else 0)


def _report(
    checks: tuple[Check, ...], page: dict[str, Any], *, own_keys: bool, say: Callable[[str], None]
) -> None:
    for check in checks:
        say(f"{_MARKS[check.outcome]} {check.name}: {check.detail}")
    if own_keys:
        say("! keys: they came from the gateway itself, just now")
    if "why_none" in page:
        say(f"  no quote: {page['why_none']}")
    say(f"  report data: {page.get('report_data')}")
    for row in page.get("not_proven", ()):
        say(f"- not proven, {row.get('what')}: {row.get('why')}")


def _shown(page: dict[str, Any]) -> ShownEvidence:
    signed, quote = page["signed"], page["quote"]
    return ShownEvidence(
        document=from_base64(signed["document"]),
        signature=from_base64(signed["signature"]),
        key_id=str(signed["key_id"]),
        quote_kind=str(quote["kind"]) if quote is not None else None,
        quote=from_base64(quote["report"]) if quote is not None else None,
    )


def _get(http: httpx.Client, path: str, *, without: int | None = None) -> dict[str, Any]:
    where = path.partition("?")[0]
    try:
        answer = http.get(path)
        if answer.status_code == without:
            return {}
        answer.raise_for_status()
        return parse_json_object(answer.content, max_bytes=_MAX_BYTES)
    except httpx.HTTPStatusError as error:
        raise EvidenceError(f"{where} answered {error.response.status_code}") from None
    except (httpx.HTTPError, MalformedError):
        raise EvidenceError(f"{where} gave no usable answer") from None


def _end(code: int, message: str) -> NoReturn:
    typer.echo(f"darkbloom-gateway-evidence: {message}", err=True)
    raise typer.Exit(code)
