"""The rooms that a gateway asks, but for routers, of which each has a lane of its own (`links`)."""

from dataclasses import dataclass

from darkbloom_mesh.channel import channel
from darkbloom_mesh.clock import Clock
from darkbloom_mesh.serve import Service

from darkbloom_gateway.billing_identity import IdentityClient
from darkbloom_gateway.billing_payments import PaymentsClient
from darkbloom_gateway.billing_programmes import OperatorsClient, ProgrammesClient
from darkbloom_gateway.billing_reports import ReportsClient
from darkbloom_gateway.clients import AttestationClient, BillingClient, RegistryClient
from darkbloom_gateway.config import GatewayConfig
from darkbloom_gateway.transparency import TransparencyClient


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbours:
    """One client for each thing that is asked; those of one room share its channel."""

    billing: BillingClient
    identity: IdentityClient
    reports: ReportsClient
    programmes: ProgrammesClient
    operators: OperatorsClient
    payments: PaymentsClient
    attestation: AttestationClient
    transparency: TransparencyClient
    registry: RegistryClient


def dial(config: GatewayConfig, service: Service, clock: Clock) -> Neighbours:
    """Open the channels, which close with the service; nobody is called yet."""
    channels = [
        channel(target, mesh_token=config.mesh_token(), room="gateway", tls=service.tls, peer=peer)
        for target, peer in (
            (config.billing_target, "billing"),
            (config.attestation_target, "attestation"),
            (config.registry_target, "registry"),
        )
    ]
    for opened in channels:
        service.on_close(opened.close)
    to_billing, to_attestation, to_registry = channels
    wait_s = config.rpc_s
    return Neighbours(
        billing=BillingClient(to_billing, timeout_s=wait_s),
        identity=IdentityClient(to_billing, timeout_s=wait_s),
        reports=ReportsClient(to_billing, timeout_s=wait_s),
        programmes=ProgrammesClient(to_billing, timeout_s=wait_s),
        operators=OperatorsClient(to_billing, timeout_s=wait_s),
        payments=PaymentsClient(to_billing, timeout_s=wait_s),
        attestation=AttestationClient(to_attestation, timeout_s=wait_s),
        transparency=TransparencyClient(to_attestation, to_billing, clock, timeout_s=wait_s),
        registry=RegistryClient(to_registry, timeout_s=wait_s),
    )
