"""`python -m darkbloom_router explain`: why a machine does or does not get requests, asked live.

A machine is connected to one replica, and each knows its own; so every replica behind the name is
asked, until one has it.
"""

import asyncio
import socket
import sys
from collections.abc import Iterator, Sequence
from typing import Final

import grpc
import orjson
from darkbloom.router.v1 import fleet_pb2, provider_link_pb2
from darkbloom.router.v1.fleet_service_pb2 import ExplainProviderRequest
from darkbloom.router.v1.fleet_service_pb2_grpc import FleetServiceStub
from darkbloom_mesh.channel import channel
from darkbloom_mesh.config import RoomConfig
from darkbloom_mesh.errors import MeshError, NotFoundError, from_rpc_error

CALL_S: Final = 5.0
_FOUND, _NOBODY, _AWAY = 0, 1, 2
_PREFIX: Final = "GATE_REASON_"
_INDENTED: Final = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE

Explanations = Sequence[fleet_pb2.Explanation]


def explain(config: RoomConfig, target: str, provider: str, *, build: str, as_json: bool) -> int:
    """Print which gate is shut for a machine, build by build.

    Args:
        config: Says who asks: mesh token, certificate, or both.
        target: `host:port` of the routers' internal listener; every address of the host is asked.
        provider: Its id, or its identity key in base64.
        build: Only of this build; empty for all that it lists.
        as_json: One JSON document instead of lines.

    Returns:
        The exit code: 0 found, 1 connected to none of the replicas, 2 a replica could not be asked.
    """
    request = ExplainProviderRequest(provider=provider, build=build)
    try:
        replica, found = asyncio.run(ask(config, target, request))
    except NotFoundError as error:
        sys.stderr.write(f"{error.message}\n")
        return _NOBODY
    except MeshError as error:
        sys.stderr.write(f"the routers cannot be asked: {error.message}\n")
        return _AWAY
    except (OSError, ValueError) as error:
        sys.stderr.write(f"{target} cannot be dialled: {type(error).__name__}\n")
        return _AWAY
    if as_json:
        document = {"provider": provider, "replica": replica, "builds": list(map(_fields, found))}
        sys.stdout.write(orjson.dumps(document, option=_INDENTED).decode())
    else:
        sys.stdout.writelines(f"{line}\n" for line in lines(replica, found))
    return _FOUND


async def ask(
    config: RoomConfig, target: str, request: ExplainProviderRequest
) -> tuple[str, Explanations]:
    """Return the address of the replica that has the machine, and what it says.

    Raises:
        NotFoundError: All replicas answered, and none has it.
        MeshError: None that answered has it, and one did not answer.
        OSError: The host has no address.
        ValueError: The target is no `host:port`.
    """
    host, _, port = target.rpartition(":")
    infos = await asyncio.get_running_loop().getaddrinfo(
        host.strip("[]"), int(port), type=socket.SOCK_STREAM
    )
    silent: MeshError | None = None
    for address in dict.fromkeys(info[4][:2] for info in infos):
        where = f"[{address[0]}]:{port}" if ":" in str(address[0]) else f"{address[0]}:{port}"
        try:
            return where, await _ask_one(config, where, request)
        except NotFoundError:
            continue
        except MeshError as error:
            silent = error
    raise silent or NotFoundError("the machine is connected to none of the replicas")


async def _ask_one(config: RoomConfig, where: str, request: ExplainProviderRequest) -> Explanations:
    async with channel(
        where, mesh_token=config.mesh_token(), room="router", tls=config.tls(), peer="router"
    ) as dialled:
        try:
            answer = await FleetServiceStub(dialled).ExplainProvider(request, timeout=CALL_S)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from None
    return list(answer.explanations)


def lines(replica: str, found: Explanations) -> Iterator[str]:
    """Tell what was found, a line for each build."""
    if not found:
        yield f"{replica}: connected, and lists no build"
    for one in found:
        shut = f"{_reason(one)}: {one.evidence}; {one.remedy}"
        yield f"{replica} {one.build}: {'gets requests' if one.eligible else shut}"


def _fields(one: fleet_pb2.Explanation) -> dict[str, object]:
    return {
        "build": one.build,
        "eligible": one.eligible,
        "reason": "" if one.eligible else _reason(one),
        "evidence": one.evidence,
        "remedy": one.remedy,
    }


def _reason(one: fleet_pb2.Explanation) -> str:
    return provider_link_pb2.GateReason.Name(one.reason).removeprefix(_PREFIX).lower()
