"""The rooms that a router asks, each behind one channel."""

from dataclasses import dataclass
from functools import partial

import grpc
from darkbloom_mesh.channel import channel
from darkbloom_mesh.clock import Clock
from darkbloom_mesh.serve import Service

from darkbloom_router.clients import AttestationClient, LedgerClient, LinksClient
from darkbloom_router.config import RouterConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbours:
    """Channels for those who watch, clients for those who ask."""

    to_attestation: grpc.aio.Channel
    to_billing: grpc.aio.Channel
    to_registry: grpc.aio.Channel
    attestation: AttestationClient
    ledger: LedgerClient
    accounts: LinksClient


def dial(config: RouterConfig, service: Service, clock: Clock) -> Neighbours:
    """Open the channels, which close with the service; nobody is called yet."""
    to = partial(channel, mesh_token=config.mesh_token(), room="router", tls=service.tls)
    to_attestation = to(config.attestation_target, peer="attestation")
    to_billing = to(config.billing_target, peer="billing")
    to_registry = to(config.registry_target, peer="registry")
    for opened in (to_attestation, to_billing, to_registry):
        service.on_close(partial(_close, opened))
    return Neighbours(
        to_attestation=to_attestation,
        to_billing=to_billing,
        to_registry=to_registry,
        attestation=AttestationClient(to_attestation, clock, config.call_timeout_s),
        ledger=LedgerClient(to_billing, config.call_timeout_s),
        accounts=LinksClient(to_billing, config.call_timeout_s),
    )


async def _close(opened: grpc.aio.Channel) -> None:
    await opened.close()
