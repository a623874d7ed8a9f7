"""Two routers in this process that know each other: the holder of providers, and an asker."""

from dataclasses import dataclass

from darkbloom.router.v1 import provider_link_pb2 as pl
from darkbloom_router.gateway_lane import GatewayLanes
from darkbloom_router.replicas.cluster import Cluster

from tests.component.router.harness import ScriptedProvider, World


@dataclass
class Pair:
    """A holder, whose provider it is, and an asker, whose gateway it is."""

    holder: World
    asker: World

    async def met(self) -> None:
        """Return once each has a lane to the other, and takes requests."""
        for one in (self.holder, self.asker):
            cluster, lanes = one.router.replicas.cluster, one.router.lanes
            assert cluster is not None

            def together(cluster: Cluster = cluster, lanes: GatewayLanes = lanes) -> bool:
                peers = cluster.peers
                return lanes.admits and len(peers) == 1 and all(peer.connected for peer in peers)

            while not together():
                await one.turn(1.0)

    async def provider(self, name: str = "one") -> ScriptedProvider:
        """Admit a provider at the holder, and wait until the asker knows it."""
        provider = await self.holder.provider(name)
        provider.heartbeat(slots=[slot()])
        await self.told()
        await self.asker.until(lambda: provider.provider_id in self.asker.router.fleet.providers)
        return provider

    async def told(self) -> None:
        """Let the holder tell what has changed."""
        await self.holder.turn(0.3)

    def places(self, provider: ScriptedProvider) -> tuple[int, int]:
        """Return the attempts in flight as holder and asker count them."""
        name = provider.provider_id
        return (
            self.holder.router.fleet.providers[name].inflight,
            self.asker.router.fleet.providers[name].inflight,
        )


def slot(**changes: int) -> pl.Slot:
    fields = {"max_concurrency": 1, "active_token_budget_max": 100_000, **changes}
    return pl.Slot(model="dev/scripted", state=pl.SLOT_STATE_IDLE, **fields)
