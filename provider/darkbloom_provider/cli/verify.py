"""`darkbloom verify`: check a receipt offline, claim by claim."""

from pathlib import Path
from typing import Annotated, NamedTuple

import msgspec
import typer
from darkbloom_edge.errors import MalformedError
from darkbloom_edge.report import SIGNATURE_CLAIMS, Report
from darkbloom_edge.signatures import from_base64
from darkbloom_edge.verify import verify_receipt
from darkbloom_mesh.clock import SystemClock
from rich.console import Console
from rich.markup import escape

from darkbloom_provider.errors import ProviderError

MAX_INPUT_BYTES = 64 * 1024 * 1024

_MARKS = {True: "[green]✓[/]", False: "[red]✗[/]", None: "[yellow]?[/]"}


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
    receipt: Annotated[Path, typer.Argument(help="The receipt as JSON.")],
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
    json_: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> int:
    """Check who answered, with what, and for whom: without any network.

    Each claim holds (✓), fails (✗) or was not checked (?) because something was not given. Exit
    code 0 when all three signatures hold and nothing fails: without keys that you trust (--keys)
    nothing is proven, and the code is 1.
    """
    pinned = _read_keys(keys)
    report = verify_receipt(
        _read(receipt),
        verdict_keys=None if pinned is None else pinned.verdict,
        gateway_keys=None if pinned is None else pinned.gateway,
        request_body=None if request is None else _read(request),
        answer=None if answer is None else _read(answer),
        now=SystemClock().now(),
    )
    if json_:
        claims = [
            {"name": c.name, "holds": c.holds, "detail": c.detail, "backed_by": c.backed_by}
            for c in report.claims
        ]
        document = {"ok": report.ok, "attested": report.attested, "claims": claims}
        typer.echo(msgspec.json.encode(document).decode())
    else:
        _show(Console(highlight=False), report)
    return 0 if report.ok else 1


def _show(console: Console, report: Report) -> None:
    for claim in report.claims:
        mark = _MARKS[claim.holds]
        console.print(
            f"{mark} {claim.name}: {escape(claim.detail)}  [dim]{escape(claim.backed_by)}[/]",
            soft_wrap=True,
        )
    failed = [claim.name for claim in report.claims if claim.holds is False]
    unchecked = sum(claim.holds is None for claim in report.claims)
    if failed:
        console.print(f"[red]The receipt does not hold[/]: {', '.join(failed)}")
    elif not report.ok:
        unsigned = [name for name in SIGNATURE_CLAIMS if report.claim(name).holds is None]
        console.print(f"[yellow]Nothing is proven[/]: give --keys to check {', '.join(unsigned)}")
    else:
        console.print(f"[green]The receipt holds[/]; {unchecked} claims were not checked")


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


def _parse_keys(data: bytes) -> _Keys:
    file = msgspec.json.decode(data, type=_KeyFile)
    return _Keys(verdict=_by_id(file.verdict_keys), gateway=_by_id(file.receipt_keys))


def _by_id(keys: list[_Key]) -> dict[str, bytes]:
    return {key.key_id: from_base64(key.public_key) for key in keys}
