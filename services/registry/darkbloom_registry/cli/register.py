"""`darkbloom-publish register`: facts, manifest, template and places of a version."""

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from darkbloom.registry.v1 import catalog_pb2
from darkbloom.registry.v1 import registry_service_pb2 as pb
from darkbloom_edge.chat_template.template import TEMPLATE_FILES
from darkbloom_edge.errors import EdgeError
from darkbloom_edge.manifest import Manifest, parse_manifest
from darkbloom_edge.model_source import SourceKind, parse_source
from google.protobuf import json_format

from darkbloom_registry.cli.desk import desk_of, fail, read
from darkbloom_registry.cli.places import check_place, place_of
from darkbloom_registry.cli.upload import UploadError

if TYPE_CHECKING:
    from obstore.store import S3Config

ManifestFile = Annotated[Path, typer.Option("--manifest", help="As `hash` has written it.")]
Endpoint = Annotated[
    str,
    typer.Option(
        envvar="DARKBLOOM_S3_ENDPOINT", help="URL of an S3-compatible store; unset: Amazon's."
    ),
]
Region = Annotated[str, typer.Option(envvar="AWS_REGION", help="Of the store.")]


def register(
    context: typer.Context,
    facts: Annotated[Path, typer.Argument(help="JSON of the build, fields as in the contract.")],
    *,
    manifest_file: ManifestFile = Path("manifest.json"),
    snapshot: Annotated[
        Path | None, typer.Option(help="Folder with the template's files; the registry tries them.")
    ] = None,
    source: Annotated[list[str] | None, typer.Option(help="Where the files are; repeat.")] = None,
    check: Annotated[bool, typer.Option(help="Look whether every file is there first.")] = True,
    promote_it: Annotated[bool, typer.Option("--promote", help="Make it active.")] = False,
    endpoint: Endpoint = "",
    region: Region = "us-east-1",
) -> None:
    """Register a version; the same files again change nothing."""
    try:
        build = json_format.Parse(read(facts), catalog_pb2.Build())
    except json_format.ParseError as error:
        fail(f"{facts}: {error}")
    data = read(manifest_file)
    manifest = parsed(data)
    if check:
        for place in source or ():
            _look(place, manifest, data, s3_config(endpoint, region, signed=False))
    request = pb.RegisterBuildRequest(
        build=build,
        manifest=data,
        promote=promote_it,
        sources=source or (),
        template_files=_templates(manifest, snapshot),
    )
    desk_of(context).write("RegisterBuild", request)


def parsed(data: bytes) -> Manifest:
    """Return a manifest, or end with what is wrong with it."""
    try:
        return parse_manifest(data)
    except EdgeError as error:
        fail(str(error))


def s3_config(endpoint: str, region: str, *, signed: bool) -> "S3Config":
    """Return how a store is reached; without keys a public one is read only."""
    # The names that every S3 tool reads.
    key_id = os.environ.get("AWS_ACCESS_KEY_ID", "")  # noqa: TID251 - see above
    secret = os.environ.get("AWS_SECRET_ACCESS_KEY", "")  # noqa: TID251 - see above
    config: S3Config = {"region": region}
    if key_id and secret:
        config["access_key_id"] = key_id
        config["secret_access_key"] = secret
    elif signed:
        fail(f"{'AWS_SECRET_ACCESS_KEY' if key_id else 'AWS_ACCESS_KEY_ID'} is not set")
    else:
        config["skip_signature"] = True
    if endpoint:
        config["endpoint"] = endpoint
    return config


def _look(text: str, manifest: Manifest, data: bytes, config: "S3Config") -> None:
    try:
        source = parse_source(text, plain_http=True)
        plain_http = str(config.get("endpoint", "")).startswith("http://")
        place = place_of(source, config, plain_http=plain_http)
        # A repository of the hub has its own layout: our manifest is not in it.
        ours = source.kind is not SourceKind.HUGGING_FACE
        asyncio.run(check_place(place, manifest, data, has_manifest=ours))
    except (EdgeError, UploadError) as error:
        fail(f"{text}: {error}")


def _templates(manifest: Manifest, snapshot: Path | None) -> dict[str, bytes]:
    """Return the files that may hold a template; none where no folder was named."""
    if snapshot is None:
        return {}
    listed = {file.path for file in manifest.files}
    return {name: read(snapshot / name) for name in TEMPLATE_FILES if name in listed}
