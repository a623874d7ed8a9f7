"""An owner's machines: those that are linked, what the live fleet says of them, what they serve."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from darkbloom.attestation.v1.attestation_pb2 import CodeRelease
from darkbloom.billing.v1 import report_pb2 as pb
from darkbloom.router.v1.fleet_pb2 import Provider
from darkbloom.router.v1.provider_link_pb2 import GateReason, SlotState
from darkbloom_edge.signatures import to_base64
from fastapi import APIRouter, Request

from darkbloom_gateway.billing_reports import ReportsClient
from darkbloom_gateway.cached import Cached
from darkbloom_gateway.errors import ApiError
from darkbloom_gateway.routes import tables
from darkbloom_gateway.routes.plane import ControlPlane, Reply, reply
from darkbloom_gateway.routes.releases import for_all
from darkbloom_gateway.standings import Standing

OFFLINE = "offline"
_NUMBER = re.compile(r"\d+")
_STATE = "SLOT_STATE_"
_GATE = "GATE_REASON_"


def make_router(
    plane: ControlPlane, reports: ReportsClient, releases: Cached[Sequence[CodeRelease]]
) -> APIRouter:
    """Return the routes."""
    router = APIRouter()

    @router.get("/v1/me/providers")
    async def my_machines(request: Request) -> Reply:
        """List the machines that are linked, whether they are connected or not."""
        caller = await plane.login(request)
        linked = _linked((await reports.summary(caller.account_id)).machines)
        live = _live(await plane.machines.get(), linked)
        standings = await plane.standings.of(live)
        rows = [_row(work, live.get(key), standings.get(key)) for key, work in linked.items()]
        return reply({"object": "list", "data": rows, **await versions(releases)})

    @router.get("/v1/me/self-route-models")
    async def my_models(request: Request) -> Reply:
        """List what the account's connected machines serve their owner."""
        caller = await plane.login(request)
        linked = _linked((await reports.summary(caller.account_id)).machines)
        live = _live(await plane.machines.get(), linked)
        online = [row for row in live.values() if row.status == "online"]
        by_model: dict[str, list[str]] = {}
        for row in sorted(online, key=lambda row: row.provider_id):
            for model in row.models:
                by_model.setdefault(model.id, []).append(row.provider_id)
        catalog = plane.shelf.catalog
        names: dict[str, list[str]] = {}
        for entry in catalog.listed(include_builds=True) if catalog is not None else ():
            names.setdefault(entry.build.build_id, []).append(entry.name)
        rows = [
            {"id": build, "object": "model", "names": sorted(names.get(build, ())), "machines": ids}
            for build, ids in sorted(by_model.items())
        ]
        return reply({"object": "list", "data": rows})

    return router


async def versions(releases: Cached[Sequence[CodeRelease]]) -> dict[str, str]:
    """Return the newest and the oldest agent version whose code is blessed; empty: not known."""
    try:
        found = await releases.get()
    except ApiError:
        found = ()
    active = [row for row in found if row.active and not row.staged and row.version]
    # Beside real releases, a developer's own tree is nobody's version.
    published = [row for row in active if not row.development] or active
    ordered = sorted({row.version for row in published}, key=_order)
    # What only a ring is offered is not the newest version for whoever cannot get it.
    general = [row.version for row in published if for_all(row)]
    return {
        "latest_provider_version": max(general, key=_order, default=""),
        "min_provider_version": ordered[0] if ordered else "",
    }


def _order(version: str) -> tuple[tuple[int, ...], str]:
    return tuple(int(number) for number in _NUMBER.findall(version)[:4]), version


def _linked(machines: Iterable[pb.MachineWork]) -> dict[bytes, pb.MachineWork]:
    """Return what is linked now by identity key; others have only earned here before."""
    return {row.identity_key: row for row in machines if row.HasField("link_time")}


def _live(fleet: Iterable[Provider], linked: Collection[bytes]) -> Mapping[bytes, Provider]:
    """Return who is connected; of two streams of one machine the newer one counts."""
    found: dict[bytes, Provider] = {}
    for row in fleet:
        known = found.get(row.identity_key)
        if row.identity_key in linked and (
            known is None or row.connect_time.ToNanoseconds() > known.connect_time.ToNanoseconds()
        ):
            found[row.identity_key] = row
    return found


def _row(work: pb.MachineWork, live: Provider | None, standing: Standing | None) -> dict[str, Any]:
    done = work.work
    return {
        "machine_key": to_base64(work.identity_key),
        "name": work.name,
        "linked_at": tables.instant(work.link_time),
        "status": live.status if live is not None else OFFLINE,
        "earnings_micro_usd": done.work_micros + done.reward_micros,
        "jobs": done.jobs,
        "tokens": done.tokens,
        **(_present(live) if live is not None else {}),
        **({"blockers": _blockers(standing)} if standing is not None else {}),
    }


def _blockers(standing: Standing) -> list[dict[str, str]]:
    """Return the first shut gate of each build, as the agent shows it to its owner too."""
    return [
        {
            "id": GateReason.Name(one.reason).removeprefix(_GATE).lower(),
            "model": one.build,
            "evidence": one.evidence,
            "remedy": one.remedy,
        }
        for one in standing
        if not one.eligible
    ]


def _present(live: Provider) -> dict[str, Any]:
    hardware = live.hardware
    return {
        "provider_id": live.provider_id,
        "version": live.version,
        "backend": live.backend,
        "trust_level": live.trust_level,
        "has_verdict": live.HasField("verdict"),
        "private_only": live.private_only,
        "hardware": {
            "chip_name": hardware.chip_name,
            "machine_model": hardware.machine_model,
            "memory_gb": hardware.memory_gb,
            "memory_bandwidth_gbs": hardware.memory_bandwidth_gbs,
        },
        "models": sorted(model.id for model in live.models),
        "slots": [
            {
                "model": slot.model,
                "state": SlotState.Name(slot.state).removeprefix(_STATE).lower(),
                "running": slot.num_running,
                "waiting": slot.num_waiting,
                "max_concurrency": slot.max_concurrency,
            }
            for slot in live.slots
        ],
        "connected_at": tables.instant(live.connect_time),
        "last_heartbeat_at": tables.instant(live.last_heartbeat_time),
        **(
            {"last_challenge_at": tables.instant(live.last_challenge_time)}
            if live.HasField("last_challenge_time")
            else {}
        ),
    }
