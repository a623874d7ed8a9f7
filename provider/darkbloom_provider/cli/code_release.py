"""`darkbloom code-release`: the measured code, which a release must bless."""

from pathlib import Path
from typing import Annotated

import typer
from darkbloom_edge.documents import encode_document
from darkbloom_edge.release import Bundle, parse_manifest
from darkbloom_mesh.clock import SystemClock

from darkbloom_provider import code_release
from darkbloom_provider.errors import ProviderError


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
    bundle: Annotated[
        Path | None,
        typer.Option(help="The archive that installs it; its hash goes into the manifest."),
    ] = None,
    bundle_url: Annotated[
        str | None, typer.Option(help="Where the archive will be had, https.")
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure the code of an installation: what a release must bless before it is routed."""
    release = code_release.measure(site, python)
    if manifest is not None:
        archive = _bundle(bundle, bundle_url)
        document = encode_document(release.manifest(SystemClock().now(), archive))
        parse_manifest(document)
        manifest.write_bytes(document)
    text = release.announcement()
    if json_:
        typer.echo(text)
        return
    for line in text.strip("{}\n").splitlines():
        typer.echo(line.strip().rstrip(",").replace('"', ""))


def _bundle(archive: Path | None, url: str | None) -> Bundle | None:
    if archive is None and url is None:
        return None
    if archive is None or url is None:
        raise ProviderError("--bundle and --bundle-url belong together")
    return Bundle(
        url=url, sha256=code_release.file_hash(archive), size_bytes=archive.stat().st_size
    )
