"""`darkbloom verify`: check a receipt offline, claim by claim."""

import os
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import msgspec
import typer
from darkbloom_edge.apple.roots import apple_roots
from darkbloom_edge.bundle import MAX_BUNDLE_BYTES
from darkbloom_edge.errors import MalformedError
from darkbloom_edge.receipt import MAX_RECEIPT_BYTES
from darkbloom_edge.report import SIGNATURE_CLAIMS, Report
from darkbloom_edge.signatures import from_base64
from darkbloom_edge.strict_json import parse_json_object
from darkbloom_edge.verify import verify_receipt
from darkbloom_edge.verify_bundle import Pins, verify_bundle
from darkbloom_mesh.clock import SystemClock
from rich.console import Console
from rich.markup import escape

from darkbloom_provider.collecting import Collector, is_receipt_id, receipt_in
from darkbloom_provider.errors import ProviderError

MAX_INPUT_BYTES = 64 * 1024 * 1024

_PRIVATE_MODE = 0o600
_MARKS = {
    "holds": "[green]✓[/]",
    "fails": "[red]✗[/]",
    "operator_asserted": "[yellow]![/]",
    "not_claimed": "[yellow]?[/]",
}


class _Key(msgspec.Struct, kw_only=True):
    key_id: str
    public_key: str


class _KeyFile(msgspec.Struct, kw_only=True):
    """What `GET /v1/receipts/keys` answers."""

    verdict_keys: list[_Key]
    receipt_keys: list[_Key]


class _Keys(NamedTuple):
    """Trusted public keys by id."""

    verdict: dict[str, bytes]
    gateway: dict[str, bytes]


def verify(
    receipt: Annotated[
        str,
        typer.Argument(
            help="A receipt, a saved answer or a bundle as a file; with --save also a request's id."
        ),
    ],
    request: Annotated[
        Path | None, typer.Option(help="The HTTP body that you sent, byte for byte.")
    ] = None,
    answer: Annotated[
        Path | None, typer.Option(help="The answer: JSON, event stream, or its plain text.")
    ] = None,
    keys: Annotated[
        Path | None,
        typer.Option(help="Keys that you trust: a saved GET /v1/receipts/keys."),
    ] = None,
    release_keys: Annotated[
        Path | None,
        typer.Option(help="Release keys that you trust: JSON, key id to base64."),
    ] = None,
    app_id: Annotated[
        str | None, typer.Option(help="App that you trust: `<TeamID>.<bundle id>`.")
    ] = None,
    save: Annotated[
        Path | None,
        typer.Option(help="Collect everything about the receipt into this file, and stop."),
    ] = None,
    gateway: Annotated[
        str, typer.Option(help="With --save: the gateway's URL.")
    ] = "http://127.0.0.1:8080",
    api_key_file: Annotated[
        Path | None, typer.Option(help="With --save: file with the API key that asked.")
    ] = None,
    wait_s: Annotated[
        float, typer.Option(help="With --save: seconds to wait for the log.", min=0, max=600)
    ] = 30.0,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> int:
    """Check who answered, with what, and for whom: without any network.

    Each claim holds (✓), fails (✗), is only the operator's word (!), or was not claimed or checked
    (?). Exit code 0 when all three signatures hold and nothing fails: without keys that you trust
    (--keys) nothing is proven, and the code is 1.

    A bundle, made with --save while the mesh is there, holds the receipt, the machine's evidence,
    the release and their proofs in the transparency log: one file for any later day.
    """
    if save is not None:
        return _save(save, receipt, gateway, api_key_file, wait_s)

    data = _read(Path(receipt))
    pinned = _read_keys(keys)
    pins = Pins(
        verdict_keys=None if pinned is None else pinned.verdict,
        gateway_keys=None if pinned is None else pinned.gateway,
        release_keys=None if release_keys is None else _read_release_keys(release_keys),
        apple=None if app_id is None else apple_roots(),
        app_id=app_id,
    )
    body = None if request is None else _read(request)
    text = None if answer is None else _read(answer)
    now = SystemClock().now()
    if _is_bundle(data):
        report = verify_bundle(data, pins=pins, request_body=body, answer=text, now=now)
    else:
        report = verify_receipt(
            receipt_in(data) or data,
            verdict_keys=pins.verdict_keys,
            gateway_keys=pins.gateway_keys,
            request_body=body,
            answer=text,
            now=now,
        )
    if json_:
        claims = [
            {
                "name": c.name,
                "holds": c.holds,
                "status": c.status,
                "detail": c.detail,
                "backed_by": c.backed_by,
            }
            for c in report.claims
        ]
        document = {"ok": report.ok, "attested": report.attested, "claims": claims}
        typer.echo(msgspec.json.encode(document).decode())
    else:
        _show(Console(highlight=False), report)
    return 0 if report.ok else 1


def _save(
    target: Path, receipt: str, gateway: str, api_key_file: Path | None, wait_s: float
) -> int:
    if api_key_file is None:
        raise ProviderError("--save needs --api-key-file: receipts belong to their account")
    named: dict[str, Any] | str = receipt
    if not is_receipt_id(receipt):
        data = _read(Path(receipt))
        try:
            named = parse_json_object(receipt_in(data) or data, max_bytes=MAX_RECEIPT_BYTES)
        except MalformedError as error:
            raise ProviderError(f"{receipt} is not a receipt: {error}") from None
    api_key = _read(api_key_file).decode("utf-8", "replace").strip()
    bundle = Collector(gateway=gateway, api_key=api_key, wait_s=wait_s).collect(named)
    # A receipt's key lets its holder confirm guesses of what was asked.
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, _PRIVATE_MODE)
    with os.fdopen(descriptor, "wb") as file:
        file.write(bundle)
    typer.echo(f"saved {target}: check it with `darkbloom verify {target} --keys …`")
    return 0


def _is_bundle(data: bytes) -> bool:
    try:
        return {"receipt", "keys"} <= parse_json_object(data, max_bytes=MAX_BUNDLE_BYTES).keys()
    except MalformedError:
        return False


def _show(console: Console, report: Report) -> None:
    for claim in report.claims:
        mark = _MARKS[claim.status]
        console.print(
            f"{mark} {claim.name}: {escape(claim.detail)}  [dim]{escape(claim.backed_by)}[/]",
            soft_wrap=True,
        )
    asserted = sum(claim.status == "operator_asserted" for claim in report.claims)
    failed = [claim.name for claim in report.claims if claim.holds is False]
    unchecked = sum(claim.status == "not_claimed" for claim in report.claims)
    if failed:
        console.print(f"[red]The receipt does not hold[/]: {', '.join(failed)}")
    elif not report.ok:
        unsigned = [name for name in SIGNATURE_CLAIMS if report.claim(name).holds is None]
        console.print(f"[yellow]Nothing is proven[/]: give --keys to check {', '.join(unsigned)}")
    else:
        console.print(
            f"[green]The receipt holds[/]; {unchecked} claims were not checked, "
            f"{asserted} are the operator's word"
        )


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_INPUT_BYTES + 1)
    except OSError as error:
        raise ProviderError(f"{path} cannot be read ({error.strerror})") from error
    if len(data) > MAX_INPUT_BYTES:
        raise ProviderError(f"{path} is larger than {MAX_INPUT_BYTES} bytes")
    return data


def _read_keys(path: Path | None) -> _Keys | None:
    if path is None:
        return None
    try:
        return _parse_keys(_read(path))
    except (msgspec.MsgspecError, MalformedError, UnicodeError):
        raise ProviderError(
            f"{path} is not a key file", "save the answer of GET /v1/receipts/keys there"
        ) from None


def _read_release_keys(path: Path) -> dict[str, bytes]:
    try:
        found = parse_json_object(_read(path), max_bytes=MAX_RECEIPT_BYTES)
        return {name: from_base64(str(text)) for name, text in found.items()}
    except MalformedError:
        raise ProviderError(f"{path} is not a file of release keys") from None


def _parse_keys(data: bytes) -> _Keys:
    file = msgspec.json.decode(data, type=_KeyFile)
    return _Keys(verdict=_by_id(file.verdict_keys), gateway=_by_id(file.receipt_keys))


def _by_id(keys: list[_Key]) -> dict[str, bytes]:
    return {key.key_id: from_base64(key.public_key) for key in keys}
