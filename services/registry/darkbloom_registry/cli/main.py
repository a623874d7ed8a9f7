"""`darkbloom-publish`: from a folder of weights to a name that consumers call."""

import asyncio
import json
from pathlib import Path
from typing import Annotated

import typer
from darkbloom_edge.errors import EdgeError
from darkbloom_edge.manifest import parse_manifest
from darkbloom_edge.model_source import SourceKind, parse_source
from darkbloom_mesh.clock import SystemClock

from darkbloom_registry.cli import catalog, names
from darkbloom_registry.cli.desk import Desk, fail, read, secret
from darkbloom_registry.cli.register import (
    Endpoint,
    ManifestFile,
    Region,
    parsed,
    register,
    s3_config,
)
from darkbloom_registry.cli.rollout import rollout
from darkbloom_registry.cli.snapshot import hash_snapshot
from darkbloom_registry.cli.upload import FolderTarget, S3Target, UploadError, upload

cli = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Publish models: hash, upload, register, promote, name, roll out.",
)
cli.add_typer(rollout, name="rollout")
Directory = Annotated[Path, typer.Argument(help="A complete local snapshot.")]


@cli.callback()
def main(
    context: typer.Context,
    *,
    target: Annotated[
        str, typer.Option(envvar="DARKBLOOM_PUBLISH_TARGET", help="registry's gRPC listener")
    ] = "127.0.0.1:7104",
    mesh_token_file: Annotated[
        Path | None,
        typer.Option(envvar="DARKBLOOM_MESH_TOKEN_FILE", help="token of internal calls"),
    ] = None,
    key_file: Annotated[
        Path | None,
        typer.Option(envvar="DARKBLOOM_PUBLISHING_KEY_FILE", help="your publishing key"),
    ] = None,
    wait_s: Annotated[
        float, typer.Option(min=0, max=600, help="for routers and gateways to go by a change")
    ] = 10.0,
) -> None:
    """Publish models: hash, upload, register, promote, name, roll out."""
    context.obj = Desk(target, secret(mesh_token_file), secret(key_file), wait_s)


@cli.command("hash")
def hash_command(
    directory: Directory,
    *,
    model_id: Annotated[str, typer.Option("--id", help="The build.")],
    version: Annotated[str, typer.Option(help="A tag that was never used.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Where the manifest goes.")] = Path(
        "manifest.json"
    ),
) -> None:
    """Hash a snapshot into a manifest."""
    try:
        data = hash_snapshot(directory, model_id, version, SystemClock().now())
        out.write_bytes(data)
    except EdgeError as error:
        fail(str(error))
    except OSError as error:
        fail(f"{error.filename}: {error.strerror}")
    manifest = parse_manifest(data)
    facts = {
        "manifest": str(out),
        "files": manifest.file_count,
        "bytes": manifest.total_size_bytes,
        "aggregate_sha256": manifest.aggregate_sha256,
        "identity_sha256": manifest.identity_sha256,
        "prefix": manifest.r2_prefix,
    }
    typer.echo(json.dumps(facts, indent=2))


@cli.command("upload")
def upload_command(
    directory: Directory,
    *,
    manifest_file: ManifestFile = Path("manifest.json"),
    to: Annotated[str, typer.Option(help="`file:///folder` or `s3://bucket`.")],
    endpoint: Endpoint = "",
    region: Region = "us-east-1",
) -> None:
    """Upload the files, the manifest last; prints the source to register.

    Keys of a store come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.
    """
    data = read(manifest_file)
    manifest = parsed(data)
    try:
        place = parse_source(to)
        if place.kind is SourceKind.FILE:
            folder = FolderTarget(Path(place.location))
            said = asyncio.run(upload(directory, manifest, data, folder))
        elif place.kind is SourceKind.S3 and "/" not in place.location:
            config = s3_config(endpoint, region, signed=True)
            bucket = S3Target(place.location, config, plain_http=endpoint.startswith("http://"))
            said = asyncio.run(upload(directory, manifest, data, bucket))
        else:
            fail("--to must be file:///folder or s3://bucket")
    except (EdgeError, UploadError) as error:
        fail(str(error))
    typer.echo(said)


for name, command in (
    ("register", register),
    ("promote", catalog.promote),
    ("retire", catalog.retire),
    ("status", catalog.status),
    ("update", catalog.update),
    ("alias", names.alias),
    ("aliases", names.aliases),
    ("check", catalog.check),
    ("propagation", catalog.propagation),
    ("states", catalog.states),
    ("changes", catalog.changes),
):
    cli.command(name)(command)


def run() -> None:
    """Run the command line."""
    cli()
