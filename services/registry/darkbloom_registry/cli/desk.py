"""How `darkbloom-publish` reaches the registry, and how it speaks."""

import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import grpc
import typer
from darkbloom.registry.v1 import registry_service_pb2 as pb
from darkbloom.registry.v1.registry_service_pb2_grpc import RegistryServiceStub
from darkbloom_mesh.channel import channel
from darkbloom_mesh.clock import SystemClock
from darkbloom_mesh.config import ConfigError, Secret
from darkbloom_mesh.errors import MeshError, from_rpc_error
from darkbloom_mesh.operator import operator_tls
from google.protobuf import json_format
from google.protobuf.message import Message

from darkbloom_registry.admission import KEY_METADATA

CALL_S = 30.0
LOOK_S = 0.5
"""Between two looks at who goes by a change."""
REFUSED = 1


class Desk:
    """One registry and whoever asks it."""

    def __init__(
        self, target: str, mesh_token: Secret | None, key: Secret | None, wait_s: float
    ) -> None:
        self._wait_s = wait_s
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

    def write(self, method: str, request: Message) -> None:
        """Call what changes the catalog, wait until everybody goes by it, print both as JSON.

        What was answered is durable. A replica that is behind is told of, and is no error: it
        reads the whole catalog as soon as it can.
        """
        answer = self.ask(method, request)
        fields = fields_of(answer)
        fields["propagation"] = fields_of(self.settle(answer.generation))
        typer.echo(json.dumps(fields, indent=2))

    def settle(self, generation: int) -> pb.GetPropagationResponse:
        """Wait until every replica goes by a generation, for as long as was said."""
        try:
            return asyncio.run(self._settle(generation))
        except MeshError as error:
            fail(f"generation {generation} is written; who goes by it is not known: {error}")

    async def _settle(self, generation: int) -> pb.GetPropagationResponse:
        clock = SystemClock()
        end = clock.monotonic() + self._wait_s
        request = pb.GetPropagationRequest(generation=generation)
        while True:
            found: pb.GetPropagationResponse = await self._ask("GetPropagation", request)
            # Nobody who speaks is nobody to wait for; who is silent is named.
            awaited = any(r.generation < generation and not r.silent for r in found.readers)
            if found.propagated or not awaited or clock.monotonic() >= end:
                return found
            await clock.sleep(LOOK_S)

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
    typer.echo(json.dumps(fields_of(message), indent=2))


def in_words(found: pb.GetPropagationResponse) -> str:
    """Say who goes by a generation, in one line."""
    late = [
        f"{r.room} {r.replica}{' (silent)' if r.silent else ''}"
        for r in found.readers
        if r.generation < found.generation
    ]
    if late:
        return f"generation {found.generation}, not yet at {', '.join(late)}"
    count = sum(not r.silent for r in found.readers)
    if not count:
        return f"generation {found.generation}, nobody follows"
    return f"generation {found.generation}, at all {count} replicas that follow"


def desk_of(context: typer.Context) -> Desk:
    """Return the desk that the main command made."""
    found: Desk = context.obj
    return found


def fields_of(message: Message) -> dict[str, Any]:
    """Return a message as JSON has it: names as in the contract, zeros too."""
    return json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


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
