"""`python -m darkbloom_attestation release …`: sign what a tree holds, bless it, take it back.

Signing needs no network: the release key can stay on a machine that has none. Everything else asks
attestation over its internal listener. Output is JSON, one object.
"""

import asyncio
import getpass
import os
from pathlib import Path
from typing import Annotated, Any, NoReturn

import grpc
import orjson
import typer
from darkbloom.attestation.v1 import attestation_pb2
from darkbloom.attestation.v1 import attestation_service_pb2 as pb
from darkbloom.attestation.v1.attestation_service_pb2_grpc import AttestationServiceStub
from darkbloom.common.v1.price_pb2 import SignedDocument
from darkbloom_edge.errors import EdgeError
from darkbloom_edge.release import (
    MAX_MANIFEST_BYTES,
    ReleaseManifest,
    open_manifest,
    parse_manifest,
    sign_manifest,
)
from darkbloom_edge.signatures import Ed25519Signer, from_base64, to_base64
from darkbloom_edge.strict_json import parse_json_object
from darkbloom_mesh.channel import channel
from darkbloom_mesh.config import ConfigError, Secret
from darkbloom_mesh.errors import MeshError, from_rpc_error
from darkbloom_mesh.operator import operator_tls
from google.protobuf.message import Message

from darkbloom_attestation.keyring import KeyDirectoryError, load_release_keys

TIMEOUT_S = 20.0
_PRIVATE_MODE = 0o600
_FIGURES = pb.ReleaseFigures.DESCRIPTOR.fields
_MAX_FILE = 2 * MAX_MANIFEST_BYTES

release = typer.Typer(
    no_args_is_help=True,
    help="Code releases: sign, register, activate, offer ring by ring, take back, list.",
)

Target = Annotated[
    str, typer.Option(envvar="DARKBLOOM_RELEASE_TARGET", help="attestation's gRPC listener")
]
TokenFile = Annotated[
    Path | None,
    typer.Option(envvar="DARKBLOOM_MESH_TOKEN_FILE", help="token of internal calls"),
]
Name = Annotated[str, typer.Argument(help="`sha256:` and the runtime hash.")]
_TARGET = "127.0.0.1:7103"


@release.command("key")
def make_key(file: Annotated[Path, typer.Argument(help="Where the private key goes.")]) -> None:
    """Make a release key, and print what the mesh is to pin."""
    signer = Ed25519Signer.generate()
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _PRIVATE_MODE)
    except OSError as error:
        _fail("unreadable_file", f"{file}: {error.strerror}")
    with os.fdopen(descriptor, "w", encoding="ascii") as stream:
        stream.write(to_base64(signer.private_bytes()) + "\n")
    _print({signer.key_id: to_base64(signer.public)})


@release.command("sign")
def sign(
    measured: Annotated[
        Path, typer.Argument(help="What `darkbloom code-release --manifest` has written.")
    ],
    key: Annotated[Path, typer.Option(help="The release key.")],
    out: Annotated[Path, typer.Option(help="Where the signed manifest goes.")],
) -> None:
    """Sign what a tree holds."""
    try:
        signer = Ed25519Signer(from_base64(_read(key).decode("ascii", "replace").strip()))
        manifest = parse_manifest(_read(measured))
        document, signature = sign_manifest(manifest, signer)
    except EdgeError as error:
        _fail("malformed_file", str(error))
    signed = {
        "document": to_base64(document),
        "signature": to_base64(signature),
        "key_id": signer.key_id,
    }
    out.write_bytes(orjson.dumps(signed, option=orjson.OPT_APPEND_NEWLINE))
    _print({**_facts(manifest), "key_id": signer.key_id})


@release.command("show")
def show(
    manifest: Annotated[Path, typer.Argument(help="A signed manifest.")],
    release_keys: Annotated[Path, typer.Option(help="Pinned keys: JSON, key id to base64.")],
) -> None:
    """Check a signed manifest against pinned keys, offline."""
    signed = _signed(manifest)
    try:
        keys = load_release_keys(release_keys)
        read = open_manifest(signed.document, signed.signature, signed.key_id, keys)
    except (EdgeError, KeyDirectoryError) as error:
        _fail("rejected", str(error))
    _print({**_facts(read), "key_id": signed.key_id})


@release.command("register")
def register(
    manifest: Annotated[Path, typer.Argument(help="A signed manifest.")],
    *,
    stage: Annotated[bool, typer.Option(help="Do not bless it yet: activate it later.")] = False,
    target: Target = _TARGET,
    mesh_token_file: TokenFile = None,
) -> None:
    """Register a signed release and bless it."""
    signed = _signed(manifest)
    try:
        read = parse_manifest(signed.document)
    except EdgeError as error:
        _fail("malformed_file", str(error))
    wanted = attestation_pb2.CodeRelease(
        code_release=read.code_release,
        version=read.release_version,
        platform=read.platform,
        python_hash=read.python_hash,
        runtime_hash=read.runtime_hash,
        template_hashes=read.template_hashes,
        staged=stage,
        manifest=signed,
    )
    request = pb.RegisterCodeReleaseRequest(release=wanted)
    done = _ask("RegisterCodeRelease", request, target, mesh_token_file)
    _print(_shown(done.release))


@release.command("activate")
def activate(name: Name, target: Target = _TARGET, mesh_token_file: TokenFile = None) -> None:
    """Bless a staged release."""
    request = pb.ActivateCodeReleaseRequest(code_release=name)
    done = _ask("ActivateCodeRelease", request, target, mesh_token_file)
    _print(_shown(done.release))


Reason = Annotated[str, typer.Option(help="Why; it is kept in the record.")]


@release.command("progress")
def progress(name: Name, target: Target = _TARGET, mesh_token_file: TokenFile = None) -> None:
    """Show how far a release is offered, how its machines do, and who changed what."""
    request = pb.GetReleaseOfferRequest(code_release=name)
    done = _ask("GetReleaseOffer", request, target, mesh_token_file)
    content = _shown(done.release)
    for side, figures in (("ring", done.ring), ("rest", done.rest)):
        content[side] = {field.name: getattr(figures, field.name) for field in _FIGURES}
    content["changes"] = [
        {
            "time": one.time.ToJsonString(),
            "actor": one.actor,
            "action": one.action,
            "percent": one.percent,
            "reason": one.reason,
        }
        for one in done.changes
    ]
    _print(content)


@release.command("widen")
def widen(
    name: Name,
    *,
    force: Annotated[
        bool, typer.Option(help="Before the step is a day old; needs a reason.")
    ] = False,
    reason: Reason = "",
    target: Target = _TARGET,
    mesh_token_file: TokenFile = None,
) -> None:
    """Offer a release to the next ring: 1, 10, 100 percent of the machines."""
    _change(name, "WIDEN", target, mesh_token_file, reason=reason, force=force)


@release.command("hold")
def hold(
    name: Name, *, reason: Reason, target: Target = _TARGET, mesh_token_file: TokenFile = None
) -> None:
    """Offer a release to nobody; machines that run it stay routed."""
    _change(name, "HOLD", target, mesh_token_file, reason=reason)


@release.command("resume")
def resume(
    name: Name, *, reason: Reason, target: Target = _TARGET, mesh_token_file: TokenFile = None
) -> None:
    """Offer a held release to its ring again; what happened before no longer counts."""
    _change(name, "RESUME", target, mesh_token_file, reason=reason)


def _change(
    name: str,
    action: str,
    target: str,
    mesh_token_file: Path | None,
    *,
    reason: str,
    force: bool = False,
) -> None:
    request = pb.ChangeReleaseOfferRequest(
        code_release=name,
        action=pb.ReleaseOfferAction.Value(f"RELEASE_OFFER_ACTION_{action}"),
        reason=reason,
        force=force,
        actor=getpass.getuser(),
    )
    done = _ask("ChangeReleaseOffer", request, target, mesh_token_file)
    _print(_shown(done.release))


@release.command("deactivate")
def deactivate(name: Name, target: Target = _TARGET, mesh_token_file: TokenFile = None) -> None:
    """Take a release back for good; verdicts that rest on it are revoked at once."""
    request = pb.DeactivateCodeReleaseRequest(code_release=name)
    done = _ask("DeactivateCodeRelease", request, target, mesh_token_file)
    _print(_shown(done.release))


@release.command("list")
def list_releases(
    *,
    include_inactive: Annotated[bool, typer.Option("--all", help="Also those taken back.")] = False,
    target: Target = _TARGET,
    mesh_token_file: TokenFile = None,
) -> None:
    """List releases, oldest first."""
    request = pb.ListCodeReleasesRequest(include_inactive=include_inactive)
    done = _ask("ListCodeReleases", request, target, mesh_token_file)
    _print({"releases": [_shown(one) for one in done.releases]})


def _ask(method: str, request: Message, target: str, mesh_token_file: Path | None) -> Any:
    token = None
    if mesh_token_file is not None:
        token = Secret(_read(mesh_token_file).decode("utf-8", "replace").strip())

    async def asked() -> Any:
        tls = operator_tls(target)
        async with channel(
            target, mesh_token=token, room="operator", tls=tls, peer="attestation"
        ) as dialled:
            try:
                stub = AttestationServiceStub(dialled)
                return await getattr(stub, method)(request, timeout=TIMEOUT_S)
            except grpc.aio.AioRpcError as error:
                raise from_rpc_error(error) from None

    try:
        return asyncio.run(asked())
    except MeshError as error:
        _fail("refused", error.message)
    except ConfigError as error:
        _fail("refused", str(error))


def _signed(path: Path) -> SignedDocument:
    try:
        fields = parse_json_object(_read(path), max_bytes=_MAX_FILE)
        return SignedDocument(
            document=from_base64(str(fields.get("document"))),
            signature=from_base64(str(fields.get("signature"))),
            key_id=str(fields.get("key_id")),
        )
    except EdgeError as error:
        _fail("malformed_file", f"{path}: {error}")


def _facts(manifest: ReleaseManifest) -> dict[str, Any]:
    return {
        "code_release": manifest.code_release,
        "version": manifest.release_version,
        "platform": manifest.platform,
        "files": sum(len(package.files) for package in manifest.packages),
        "libraries": len(manifest.libraries),
    }


def _shown(one: attestation_pb2.CodeRelease) -> dict[str, Any]:
    state = "active" if one.active else "staged" if one.staged else "withdrawn"
    return {
        "code_release": one.code_release,
        "version": one.version,
        "platform": one.platform,
        "state": state,
        "development": one.development,
        "offered_percent": one.offer.percent if one.active and not one.offer.held else 0,
        "step_percent": one.offer.percent,
        "held": one.offer.held or None,
        "step_began_at": one.offer.step_time.ToJsonString() if one.active else None,
        "signed_by": one.manifest.key_id or None,
        "created_at": one.create_time.ToJsonString(),
    }


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_MAX_FILE + 1)
    except OSError as error:
        _fail("unreadable_file", f"{path}: {error.strerror}")


def _print(content: dict[str, Any]) -> None:
    typer.echo(orjson.dumps(content, option=orjson.OPT_INDENT_2).decode())


def _fail(reason: str, detail: str) -> NoReturn:
    typer.echo(orjson.dumps({"error": reason, "detail": detail}).decode(), err=True)
    raise typer.Exit(1)
