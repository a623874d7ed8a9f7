"""`darkbloom-publish`: from a folder of weights to a name that consumers call."""

import asyncio
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from darkbloom.common.v1.page_pb2 import PageRequest
from darkbloom.registry.v1 import catalog_pb2
from darkbloom.registry.v1 import registry_service_pb2 as pb
from darkbloom_edge.errors import EdgeError
from darkbloom_edge.manifest import Manifest, parse_manifest
from darkbloom_edge.model_source import SourceKind, parse_source
from darkbloom_mesh.clock import SystemClock
from google.protobuf import json_format

from darkbloom_registry.cli.desk import Desk, fail, read, secret, show
from darkbloom_registry.cli.rollout import desk_of, rollout
from darkbloom_registry.cli.snapshot import hash_snapshot
from darkbloom_registry.cli.upload import FolderTarget, S3Target, UploadError, upload
from darkbloom_registry.model import BuildStatus as StatusName

if TYPE_CHECKING:
    from obstore.store import S3Config

cli = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Publish models: hash, upload, register, promote, name, roll out.",
)
cli.add_typer(rollout, name="rollout")
Directory = Annotated[Path, typer.Argument(help="A complete local snapshot.")]
ManifestFile = Annotated[Path, typer.Option("--manifest", help="As `hash` has written it.")]
BuildId = Annotated[str, typer.Argument(help="The build.")]
VersionTag = Annotated[str, typer.Argument(help="Its version.")]


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
) -> None:
    """Publish models: hash, upload, register, promote, name, roll out."""
    context.obj = Desk(target, secret(mesh_token_file), secret(key_file))


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
    endpoint: Annotated[
        str,
        typer.Option(
            envvar="DARKBLOOM_S3_ENDPOINT", help="URL of an S3-compatible store; unset: Amazon's."
        ),
    ] = "",
    region: Annotated[str, typer.Option(envvar="AWS_REGION", help="Of the store.")] = "us-east-1",
) -> None:
    """Upload the files, the manifest last; prints the source to register.

    Keys of a store come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.
    """
    data = read(manifest_file)
    manifest = _parsed(data)
    try:
        place = parse_source(to)
        if place.kind is SourceKind.FILE:
            folder = FolderTarget(Path(place.location))
            said = asyncio.run(upload(directory, manifest, data, folder))
        elif place.kind is SourceKind.S3 and "/" not in place.location:
            config: S3Config = {
                "region": region,
                "access_key_id": _environ("AWS_ACCESS_KEY_ID"),
                "secret_access_key": _environ("AWS_SECRET_ACCESS_KEY"),
            }
            if endpoint:
                config["endpoint"] = endpoint
            bucket = S3Target(place.location, config, plain_http=endpoint.startswith("http://"))
            said = asyncio.run(upload(directory, manifest, data, bucket))
        else:
            fail("--to must be file:///folder or s3://bucket")
    except (EdgeError, UploadError) as error:
        fail(str(error))
    typer.echo(said)


@cli.command("register")
def register(
    context: typer.Context,
    facts: Annotated[Path, typer.Argument(help="JSON of the build, fields as in the contract.")],
    *,
    manifest_file: ManifestFile = Path("manifest.json"),
    source: Annotated[list[str] | None, typer.Option(help="Where the files are; repeat.")] = None,
    promote_it: Annotated[bool, typer.Option("--promote", help="Make it active.")] = False,
) -> None:
    """Register a version; the same files again change nothing."""
    try:
        build = json_format.Parse(read(facts), catalog_pb2.Build())
    except json_format.ParseError as error:
        fail(f"{facts}: {error}")
    request = pb.RegisterBuildRequest(
        build=build, manifest=read(manifest_file), promote=promote_it, sources=source or ()
    )
    show(desk_of(context).ask("RegisterBuild", request))


@cli.command("promote")
def promote(context: typer.Context, build: BuildId, version: VersionTag) -> None:
    """Make a version the active one; promoting the one before is the rollback."""
    request = pb.PromoteVersionRequest(build=build, version=version)
    show(desk_of(context).ask("PromoteVersion", request))


@cli.command("retire")
def retire(context: typer.Context, build: BuildId, version: VersionTag) -> None:
    """Revoke a version for good: who still serves it loses trust."""
    request = pb.RetireVersionRequest(build=build, version=version)
    show(desk_of(context).ask("RetireVersion", request))


@cli.command("status")
def status_command(
    context: typer.Context,
    build: BuildId,
    status: Annotated[StatusName, typer.Argument(help="What becomes of it.")],
    *,
    deprecation_date: Annotated[str, typer.Option(help="YYYY-MM-DD, shown to consumers.")] = "",
) -> None:
    """Change the life of a build; deprecated and retired ones leave the catalog."""
    request = pb.SetBuildStatusRequest(
        build=build,
        status=catalog_pb2.BuildStatus.Value(f"BUILD_STATUS_{status.value.upper()}"),
        deprecation_date=deprecation_date,
    )
    show(desk_of(context).ask("SetBuildStatus", request))


@cli.command("alias")
def alias_command(
    context: typer.Context,
    alias: Annotated[str, typer.Argument(help="The public name.")],
    desired: Annotated[str, typer.Argument(help="Build that it means.")],
    *,
    previous: Annotated[str, typer.Option(help="Build that serves where that cannot.")] = "",
    display_name: Annotated[str, typer.Option(help="As people read it.")] = "",
    inactive: Annotated[bool, typer.Option(help="Take the name away.")] = False,
) -> None:
    """Point a name at a build at once; `rollout start` does it in steps."""
    wanted = catalog_pb2.Alias(
        alias_id=alias,
        display_name=display_name,
        desired_build=desired,
        previous_build=previous,
        active=not inactive,
    )
    show(desk_of(context).ask("UpsertAlias", pb.UpsertAliasRequest(alias=wanted)))


@cli.command("states")
def states(
    context: typer.Context,
    build: Annotated[str, typer.Argument(help="Of this build alone.")] = "",
) -> None:
    """Show how far machines are with builds."""
    request = pb.ListModelStatesRequest(build=build, page=PageRequest(page_size=1000))
    show(desk_of(context).ask("ListModelStates", request))


@cli.command("changes")
def changes(context: typer.Context) -> None:
    """Show who changed what, newest first."""
    request = pb.ListChangesRequest(page=PageRequest(page_size=100))
    show(desk_of(context).ask("ListChanges", request))


def _parsed(data: bytes) -> Manifest:
    try:
        return parse_manifest(data)
    except EdgeError as error:
        fail(str(error))


def _environ(name: str) -> str:
    value = os.environ.get(name, "")  # noqa: TID251 - the names that every S3 tool reads
    if not value:
        fail(f"{name} is not set")
    return value


def run() -> None:
    """Run the command line."""
    cli()
