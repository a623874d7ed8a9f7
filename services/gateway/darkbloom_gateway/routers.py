"""Every route beside the token path, with what it needs of this worker and of its neighbours."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from darkbloom.attestation.v1.attestation_pb2 import CodeRelease
from darkbloom_mesh.clock import Clock
from fastapi import APIRouter

from darkbloom_gateway.billing_reports import Figures
from darkbloom_gateway.cached import Cached
from darkbloom_gateway.confidential.desk import EvidenceDesk
from darkbloom_gateway.config import GatewayConfig
from darkbloom_gateway.console import routes as console
from darkbloom_gateway.fleet_drain import FleetDrain
from darkbloom_gateway.neighbours import Neighbours
from darkbloom_gateway.routes import (
    admin,
    device,
    drain,
    earnings,
    encryption,
    enrolment,
    export,
    gateway_evidence,
    invites,
    keys,
    log,
    log_reports,
    machines,
    mdm,
    me,
    payments,
    payouts,
    pricing,
    public,
    receipts,
    referrals,
    releases,
    rollouts,
    stripe,
    version,
)
from darkbloom_gateway.routes.plane import ControlPlane
from darkbloom_gateway.sealing_ring import SealingRing


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the routes are made of."""

    config: GatewayConfig
    plane: ControlPlane
    neighbours: Neighbours
    clock: Clock
    ring: SealingRing
    fleet_drain: FleetDrain
    evidence: EvidenceDesk
    agents: Cached[Sequence[CodeRelease]]
    """Releases of the agent."""


def make_routers(parts: Parts) -> Sequence[APIRouter]:
    """Return the routes, those of money first."""
    return (*_of_money(parts), *_of_people(parts), *_of_operators(parts), *_of_evidence(parts))


def _of_money(parts: Parts) -> Sequence[APIRouter]:
    """Return prices, payments, earnings and public figures."""
    plane, near, agents = parts.plane, parts.neighbours, parts.agents
    reports = near.reports
    return (
        pricing.make_router(plane, reports, near.operators),
        payments.make_router(plane, reports),
        earnings.make_router(plane, reports, near.payments, plane.machines, agents),
        machines.make_router(plane, reports, agents),
        public.make_router(plane, reports, Figures(reports, parts.clock)),
        export.make_router(plane, reports, near.payments),
        invites.make_router(plane, near.programmes),
        referrals.make_router(plane, near.programmes),
        admin.make_router(plane, near.operators),
        stripe.make_router(plane, near.payments, near.programmes),
        payouts.make_router(plane, near.payments),
    )


def _of_people(parts: Parts) -> Sequence[APIRouter]:
    """Return accounts, keys and machines of people, and the page on which they see them."""
    plane, identity, config = parts.plane, parts.neighbours.identity, parts.config
    return (
        keys.make_router(plane, identity, clock=parts.clock, entropy=secrets.token_bytes),
        device.make_router(
            plane, identity, verification_uri=f"{config.console_url.rstrip('/')}/link"
        ),
        me.make_router(plane, identity),
        log_reports.make_router(plane, identity),
        enrolment.make_router(plane, config.enrolment(), entropy=secrets.token_bytes),
        console.make_router(
            config.sign_in(), environment=config.environment, version=plane.version
        ),
    )


def _of_operators(parts: Parts) -> Sequence[APIRouter]:
    """Return what operators see and switch."""
    posture = parts.neighbours.attestation.record_posture
    return (
        drain.make_router(parts.plane, parts.fleet_drain),
        rollouts.make_router(parts.plane, parts.neighbours.registry),
        mdm.make_router(posture, parts.config.mdm_webhook_secret),
    )


def _of_evidence(parts: Parts) -> Sequence[APIRouter]:
    """Return what anybody can check: keys, the log, receipts, releases, this gateway itself."""
    plane, transparency = parts.plane, parts.neighbours.transparency
    return (
        encryption.make_router(parts.ring),
        gateway_evidence.make_router(plane, parts.evidence),
        log.make_router(transparency),
        receipts.make_router(plane, transparency),
        releases.make_router(transparency),
        version.make_router(plane, transparency),
    )
