"""`darkbloom code-release`: the measured code, which a release must bless."""

from pathlib import Path
from typing import Annotated

import typer
from darkbloom_edge.documents import encode_document
from darkbloom_mesh.clock import SystemClock

from darkbloom_provider import app, code_release


def show_code_release(
    site: Annotated[
        Path | None,
        typer.Option(help="Measure this `site-packages` instead of the running installation."),
    ] = None,
    python: Annotated[Path | None, typer.Option(help="Its interpreter.")] = None,
    manifest: Annotated[
        Path | None,
        typer.Option(help="Write every file's record here, for the operator to sign."),
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure the code of an installation: what a release must bless before it is routed."""
    release = code_release.measure(site, python)
    if manifest is not None:
        manifest.write_bytes(encode_document(release.manifest(SystemClock().now())))
    text = app.release_json(release)
    if json_:
        typer.echo(text)
        return
    for line in text.strip("{}\n").splitlines():
        typer.echo(line.strip().rstrip(",").replace('"', ""))
