"""A provider that moves while it answers: what it says twice is believed once and lost never."""

import pytest
from darkbloom.router.v1 import provider_link_pb2 as pl

from tests.component.router.harness import K, World


@pytest.mark.parametrize("finished", [True, False], ids=["after the last chunk", "before it"])
async def test_a_terminal_that_overtakes_its_answer_on_a_new_stream_reaches_the_edge_once(
    mesh: World, *, finished: bool
) -> None:
    """What nobody acknowledged is sent again at once on a new stream; the old one goes on."""
    provider, gateway = await mesh.provider(), await mesh.gateway()
    _, request_id, offer = await gateway.dispatched()
    stream, request = await provider.request()
    provider.accept(stream)
    provider.chunk(stream, 0, 1)
    await gateway.box.take(K.FRAME_KIND_CHUNK, stream=offer.attempt_stream)
    if finished:
        provider.chunk(stream, 1, 2, kind=K.FRAME_KIND_CHUNK_FINAL)
        await gateway.box.take(K.FRAME_KIND_CHUNK_FINAL, stream=offer.attempt_stream)

    moved = await mesh.provider(provider.name)
    moved.terminal(0, request.attempt_id)
    moved.heartbeat()
    await mesh.turn(0.1)
    if not finished:
        assert K.FRAME_KIND_TERMINAL not in gateway.box.kinds()
        provider.chunk(stream, 1, 2, kind=K.FRAME_KIND_CHUNK_FINAL)
        await gateway.box.take(K.FRAME_KIND_CHUNK_FINAL, stream=offer.attempt_stream)
    await gateway.box.take(K.FRAME_KIND_TERMINAL, stream=offer.attempt_stream)

    provider.terminal(stream, request.attempt_id)
    await mesh.turn(0.1)
    assert K.FRAME_KIND_TERMINAL not in gateway.box.kinds()
    gateway.close(offer.attempt_stream)
    assert await mesh.ledger.ending(request_id) == "settled"
    assert len(mesh.ledger.settlements) == 1
    ack = await provider.box.message(K.FRAME_KIND_TERMINAL_ACK, pl.TerminalAck)
    assert ack.attempt_id == request.attempt_id
