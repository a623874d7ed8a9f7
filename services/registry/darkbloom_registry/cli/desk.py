"""How `darkbloom-publish` reaches the registry, and how it speaks."""

import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import grpc
import typer
from darkbloom.registry.v1.registry_service_pb2_grpc import RegistryServiceStub
from darkbloom_mesh.channel import channel
from darkbloom_mesh.config import ConfigError, Secret
from darkbloom_mesh.errors import MeshError, from_rpc_error
from darkbloom_mesh.operator import operator_tls
from google.protobuf import json_format
from google.protobuf.message import Message

from darkbloom_registry.admission import KEY_METADATA

CALL_S = 30.0
REFUSED = 1


class Desk:
    """One registry and whoever asks it."""

    def __init__(self, target: str, mesh_token: Secret | None, key: Secret | None) -> None:
        self._target = target
        self._mesh_token = mesh_token
        self._key = key

    def ask(self, method: str, request: Message) -> Any:
        """Call; a refusal ends the process with what the registry said."""
        try:
            return asyncio.run(self._ask(method, request))
        except MeshError as error:
            fail(error.message)
        except ConfigError as error:
            fail(str(error))

    async def _ask(self, method: str, request: Message) -> Any:
        metadata = ((KEY_METADATA, self._key.reveal()),) if self._key else ()
        async with channel(
            self._target,
            mesh_token=self._mesh_token,
            room="publisher",
            tls=operator_tls(self._target),
            peer="registry",
        ) as dialled:
            call = getattr(RegistryServiceStub(dialled), method)
            try:
                return await call(request, timeout=CALL_S, metadata=metadata)
            except grpc.aio.AioRpcError as error:
                raise from_rpc_error(error) from None


def secret(path: Path | None) -> Secret | None:
    """Read a one-line secret; None where no file is named."""
    if path is None:
        return None
    try:
        return Secret(path.read_text("ascii").strip())
    except (OSError, UnicodeError) as error:
        fail(f"{path}: unusable ({type(error).__name__})")


def read(path: Path) -> bytes:
    """Read a file, or end with why not."""
    try:
        return path.read_bytes()
    except OSError as error:
        fail(f"{path}: {error.strerror}")


def show(message: Message) -> None:
    """Print a message as JSON, names as in the contract, zeros too."""
    fields = json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    typer.echo(json.dumps(fields, indent=2))


def table(rows: Sequence[Sequence[object]]) -> None:
    """Print rows in columns as wide as they need."""
    texts = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(row[place]) for row in texts) for place in range(len(texts[0]))]
    for row in texts:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        typer.echo("  ".join(cells).rstrip())


def fail(message: str) -> NoReturn:
    """End with a message on stderr."""
    sys.stderr.write(f"darkbloom-publish: {message}\n")
    raise typer.Exit(REFUSED)
