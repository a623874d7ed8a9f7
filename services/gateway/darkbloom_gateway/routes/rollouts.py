"""`/v1/admin/rollouts`: how far names are on their way to other builds, for operators to look at.

Only looked at: who may change one holds a publishing key, which has no business on a listener that
strangers reach (`darkbloom-publish rollout`).
"""

from datetime import UTC
from typing import Any

from darkbloom.registry.v1 import rollout_pb2
from darkbloom_mesh.errors import InvalidArgumentError, MeshError, NotFoundError
from fastapi import APIRouter, Request
from google.protobuf.timestamp_pb2 import Timestamp

from darkbloom_gateway.clients import RegistryClient
from darkbloom_gateway.errors import not_found
from darkbloom_gateway.routes.bodies import rfc3339
from darkbloom_gateway.routes.keys import away
from darkbloom_gateway.routes.plane import ControlPlane, Reply, reply


def make_router(plane: ControlPlane, registry: RegistryClient) -> APIRouter:
    """Return the routes."""
    router = APIRouter()

    @router.get("/v1/admin/rollouts")
    async def list_rollouts(request: Request) -> Reply:
        """Return the newest fifty."""
        await plane.admin(request)
        try:
            found = await registry.rollouts()
        except MeshError as error:
            raise away(error) from None
        return reply({"rollouts": [_fields(one) for one in found]})

    @router.get("/v1/admin/rollouts/{rollout_id}")
    async def read_rollout(request: Request, rollout_id: str) -> Reply:
        """Return one: its step, what was seen, and why it stands where it does."""
        await plane.admin(request)
        try:
            found = await registry.rollout(rollout_id)
        except (NotFoundError, InvalidArgumentError):
            raise not_found("there is no such rollout") from None
        except MeshError as error:
            raise away(error) from None
        return reply(_fields(found))

    return router


def _fields(found: rollout_pb2.Rollout) -> dict[str, Any]:
    counts, gates = found.counts, found.gates
    p95 = counts.ttft_p95.ToTimedelta().total_seconds() if counts.HasField("ttft_p95") else None
    most = gates.max_ttft_p95
    return {
        "rollout_id": found.rollout_id,
        "alias": found.alias,
        "from_build": found.from_build,
        "to_build": found.to_build,
        "state": rollout_pb2.RolloutState.Name(found.state).removeprefix("ROLLOUT_STATE_").lower(),
        "step": found.step,
        "steps": list(found.steps),
        "reason": found.reason,
        "started_by": found.actor,
        "seen": {
            "successes": counts.successes,
            "failures": counts.failures,
            "load_failures": counts.load_failures,
            "untrusted": counts.untrusted,
            "ttft_p95_s": p95,
        },
        "gates": {
            "min_requests": gates.min_requests,
            "soak_s": gates.soak.ToTimedelta().total_seconds(),
            "min_success_percent": gates.min_success_percent,
            "max_load_failures": gates.max_load_failures,
            "max_untrusted": gates.max_untrusted,
            "max_ttft_p95_s": (
                most.ToTimedelta().total_seconds() if gates.HasField("max_ttft_p95") else None
            ),
        },
        "created_at": _moment(found.create_time),
        "step_at": _moment(found.step_time),
        "updated_at": _moment(found.update_time),
    }


def _moment(at: Timestamp) -> str:
    return rfc3339(at.ToDatetime(tzinfo=UTC))
