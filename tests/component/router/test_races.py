"""A second offer over real lanes: the first content wins, one hold is settled."""

from pathlib import Path

from darkbloom.router.v1 import provider_link_pb2 as pl

from tests.component.router.harness import K, ScriptedProvider, World, world
from tests.fakes.registry import SCRIPTED_BUILD

PLACE = pl.Slot(
    model=SCRIPTED_BUILD,
    state=pl.SLOT_STATE_IDLE,
    max_concurrency=4,
    observed_decode_tps=50.0,
    observed_prefill_tps=1000.0,
)


async def measured(mesh: World, name: str) -> ScriptedProvider:
    """Connect a provider whose rates are known."""
    provider = await mesh.provider(name)
    provider.heartbeat(slots=[PLACE])
    await mesh.until(lambda: mesh.provider_state(provider).capacity is not None)
    return provider


async def test_the_second_wins_where_the_first_is_silent_and_is_paid_alone(tmp_path: Path) -> None:
    async with world(tmp_path, hedge_after_s=0.5, accept_timeout_s=30.0) as mesh:
        named = [await measured(mesh, name) for name in ("one", "two")]
        gateway = await mesh.gateway()
        stream, request_id, offer = await gateway.dispatched()
        first = next(one for one in named if one.provider_id == offer.provider.provider_id)
        second = next(one for one in named if one is not first)
        silent, _ = await first.request()
        await mesh.clock.advance(0.6)

        hedge = await gateway.offer(stream)
        assert hedge.hedge
        gateway.seal(hedge)
        await second.serve()
        await gateway.whole(hedge.attempt_stream)
        gateway.close(hedge.attempt_stream)

        cancel = await first.box.message(K.FRAME_KIND_CANCEL, pl.Cancel, stream=silent)
        assert cancel.reason == pl.CANCEL_REASON_LOST_RACE
        assert await mesh.ledger.ending(request_id) == "settled"
        assert len(mesh.ledger.settlements) == 1
        await mesh.until(lambda: not mesh.provider_state(first).inflight)
