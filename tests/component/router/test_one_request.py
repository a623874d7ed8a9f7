"""A request from OPEN to its money, over real lanes."""

from darkbloom.router.v1 import provider_link_pb2 as pl

from tests.component.router.harness import K, World


async def test_a_request_is_offered_sealed_relayed_and_settled(mesh: World) -> None:
    provider, gateway = await mesh.provider(), await mesh.gateway()
    _, request_id, offer = await gateway.dispatched()
    stream, request = await provider.serve()

    assert stream == offer.attempt_stream
    assert request.request_id == request_id
    assert (await provider.box.take(K.FRAME_KIND_BODY_PART)).payload == b"ciphertext"
    assert await gateway.whole(stream) == [
        K.FRAME_KIND_COMMITTED,
        K.FRAME_KIND_CHUNK,
        K.FRAME_KIND_CHUNK,
        K.FRAME_KIND_CHUNK,
        K.FRAME_KIND_CHUNK_FINAL,
        K.FRAME_KIND_TERMINAL,
    ]
    gateway.close(stream)
    ack = await provider.box.message(K.FRAME_KIND_TERMINAL_ACK, pl.TerminalAck)

    assert ack.disposition == pl.DISPOSITION_SETTLED
    [settlement] = mesh.ledger.settlements
    assert settlement.attempt_id == offer.attempt_id
    assert settlement.verdict == offer.verdict
    assert settlement.opened.completion_tokens == 3
    assert mesh.router.dispatcher.live == 0
    assert mesh.provider_state(provider).inflight == 0
