"""The router's services: they hand calls to the links and reads to the fleet.

Resources: a stream holds one lane and a few tasks, all ended with it. Errors: a link ends with the
status of the `MeshError` that ended it; failures of requests are frames and never a status.
"""

import base64
import binascii
from collections.abc import Sequence

from darkbloom.router.v1 import fleet_pb2
from darkbloom.router.v1 import fleet_service_pb2 as fleet_rpc
from darkbloom.router.v1.fleet_service_pb2_grpc import FleetServiceServicer
from darkbloom.router.v1.gateway_lane_service_pb2_grpc import GatewayLaneServiceServicer
from darkbloom.router.v1.peer_lane_service_pb2_grpc import PeerLaneServiceServicer
from darkbloom.router.v1.provider_link_service_pb2_grpc import ProviderLinkServiceServicer
from darkbloom_mesh.serve import Context

from darkbloom_router.fleet_reads import FleetReads
from darkbloom_router.gateway_lane import GatewayLanes
from darkbloom_router.provider_links import ProviderLinks
from darkbloom_router.replicas.holder import PeerLanes


class ProviderLinkServer(ProviderLinkServiceServicer):
    """The public listener's only service."""

    def __init__(self, links: ProviderLinks) -> None:
        self._links = links

    async def Connect(self, request_iterator: object, context: Context) -> None:  # type: ignore[override]
        """Serve one provider stream until it ends."""
        await self._links.serve(context)


class GatewayLaneServer(GatewayLaneServiceServicer):
    """Lanes of gateway workers."""

    def __init__(self, lanes: GatewayLanes) -> None:
        self._lanes = lanes

    async def Connect(self, request_iterator: object, context: Context) -> None:  # type: ignore[override]
        """Serve one gateway lane until it ends."""
        await self._lanes.serve(context)


class PeerLaneServer(PeerLaneServiceServicer):
    """Lanes of other replicas."""

    def __init__(self, lanes: PeerLanes) -> None:
        self._lanes = lanes

    async def Connect(self, request_iterator: object, context: Context) -> None:  # type: ignore[override]
        """Serve one peer lane until it ends."""
        await self._lanes.serve(context)


class FleetServer(FleetServiceServicer):
    """Reads over the live fleet."""

    def __init__(self, reads: FleetReads) -> None:
        self._reads = reads

    async def ListProviders(
        self, request: fleet_rpc.ListProvidersRequest, context: Context
    ) -> fleet_rpc.ListProvidersResponse:
        """Return one page of providers."""
        providers, token = self._reads.providers(
            request.page.page_size, request.page.page_token, public_only=request.public_only
        )
        return fleet_rpc.ListProvidersResponse(providers=providers, next_page_token=token)

    async def ExplainProvider(
        self, request: fleet_rpc.ExplainProviderRequest, context: Context
    ) -> fleet_rpc.ExplainProviderResponse:
        """Return why a provider does or does not get requests."""
        explanations: Sequence[fleet_pb2.Explanation] = self._reads.explain(
            request.provider, _key(request.provider), request.build, request.trust_floor
        )
        return fleet_rpc.ExplainProviderResponse(explanations=explanations)

    async def ListBuildCapacity(
        self, request: fleet_rpc.ListBuildCapacityRequest, context: Context
    ) -> fleet_rpc.ListBuildCapacityResponse:
        """Return live capacity."""
        return fleet_rpc.ListBuildCapacityResponse(builds=self._reads.capacity(request.builds))


def _key(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        return b""
