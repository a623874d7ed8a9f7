"""The parts that speak: what machines and gateways say to the core, and what it says to them."""

import secrets
from dataclasses import dataclass
from functools import partial

from darkbloom_mesh.backoff import Backoff
from darkbloom_mesh.credits import WINDOW

from darkbloom_router.challenges import ChallengeTimes
from darkbloom_router.config import RouterConfig
from darkbloom_router.core import Core, new_id
from darkbloom_router.downlink import Downlink, Patience
from darkbloom_router.gateway_lane import GatewayLanes
from darkbloom_router.link_parts import LinkLimits, LinkParts
from darkbloom_router.neighbours import Neighbours
from darkbloom_router.provider_links import ProviderLinks
from darkbloom_router.queueing import Trigger
from darkbloom_router.replicas.asker import AskerParts
from darkbloom_router.replicas.holder import HolderParts, PeerLanes
from darkbloom_router.replicas.join import hello, welcome
from darkbloom_router.replicas.members import Member
from darkbloom_router.reports import Reports
from darkbloom_router.trust import Trust
from darkbloom_router.uplink import Uplink
from darkbloom_router.warm.keeper import WarmKeeper


@dataclass(frozen=True, slots=True, kw_only=True)
class Streams:
    """Both ends of every stream."""

    reports: Reports
    trust: Trust
    downlink: Downlink
    links: ProviderLinks
    gateways: GatewayLanes


def make_streams(
    config: RouterConfig, core: Core, neighbours: Neighbours, warm: WarmKeeper
) -> Streams:
    """Return the parts that speak; nobody is listened to yet."""
    tools, state, dispatcher = core.tools, core.state, core.dispatcher
    timers, clock, meter = tools.timers, tools.clock, tools.meter
    backoff = Backoff(secrets.SystemRandom().random)
    reports = Reports(neighbours.attestation, clock, backoff, meter, new_id)
    trust = Trust(
        state.fleet,
        core.ends,
        core.losses,
        state.lanes,
        meter,
        report=reports.add,
        timers=timers,
        freed=partial(dispatcher.drain_lines, trigger=Trigger.CHALLENGE),
        caught=state.replicas.caught,
        cut=state.replicas.cut,
    )
    patience = Patience(
        accept_s=config.accept_timeout_s,
        content_s=config.content_timeout_s,
        preamble_s=config.preamble_timeout_s,
        silence_s=config.silence_timeout_s,
    )
    downlink = Downlink(
        state.attempts,
        core.ends,
        core.closing,
        trust,
        timers,
        meter,
        patience,
        relay=state.replicas.relay,
    )
    uplink = Uplink(
        state.attempts,
        dispatcher,
        core.ends,
        trust,
        timers,
        meter,
        patience,
        core.closing,
        core.hedging,
        max_body_bytes=config.max_body_bytes,
    )
    parts = _link_parts(config, core, neighbours, warm, trust, downlink)
    gateways = GatewayLanes(
        uplink, core.losses, timers, clock, meter, replica=config.replica, initial_credit=WINDOW
    )
    return Streams(
        reports=reports,
        trust=trust,
        downlink=downlink,
        links=ProviderLinks(parts),
        gateways=gateways,
    )


def make_peers(core: Core, streams: Streams, member: Member) -> PeerLanes:
    """Return our side of the lanes on which other replicas ask for our machines."""
    tools, state = core.tools, core.state
    return PeerLanes(
        HolderParts(
            fleet=state.fleet,
            carriage=state.carriage,
            publisher=state.replicas.publisher,
            lanes=state.lanes,
            trust=streams.trust,
            health=state.health,
            timers=tools.timers,
            clock=tools.clock,
            meter=tools.meter,
            welcome=welcome(member),
            superseded=state.replicas.superseded,
        )
    )


def asker_parts(core: Core, streams: Streams, member: Member) -> AskerParts:
    """Return our side of the lanes on which we ask other replicas for theirs."""
    tools, state = core.tools, core.state
    return AskerParts(
        fleet=state.fleet,
        attempts=state.attempts,
        downlink=streams.downlink,
        losses=core.losses,
        lanes=state.lanes,
        timers=tools.timers,
        clock=tools.clock,
        meter=tools.meter,
        hello=hello(member),
        drain_lines=core.dispatcher.drain_lines,
        granted=core.offers.granted,
        orphaned=core.dispatcher.returning.lost,
        refused=core.offers.declined,
        terminal=streams.downlink.stray,
    )


def _link_parts(
    config: RouterConfig,
    core: Core,
    neighbours: Neighbours,
    warm: WarmKeeper,
    trust: Trust,
    downlink: Downlink,
) -> LinkParts:
    tools, state = core.tools, core.state
    return LinkParts(
        fleet=state.fleet,
        dispatcher=core.dispatcher,
        closing=core.closing,
        downlink=downlink,
        losses=core.losses,
        lanes=state.lanes,
        trust=trust,
        timers=tools.timers,
        clock=tools.clock,
        meter=tools.meter,
        attestation=neighbours.attestation,
        links=neighbours.accounts,
        replicas=state.replicas,
        warm=warm,
        seen=core.ends.seen,
        limits=LinkLimits(
            max_links=config.max_providers,
            registrations_per_s=config.registrations_per_s,
            heartbeat_s=config.heartbeat_s,
            challenges=ChallengeTimes(
                interval_s=config.challenge_interval_s, answer_s=config.challenge_answer_s
            ),
        ),
        initial_credit=WINDOW,
        new_id=new_id,
        uniform=secrets.SystemRandom().random,
    )
