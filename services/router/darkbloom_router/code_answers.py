"""What the signed app of one provider answers to code challenges, handed in to attestation."""

import asyncio
from typing import final

import structlog
from darkbloom.router.v1.provider_link_pb2 import CodeAttestationResponse
from darkbloom_mesh.errors import MeshError

from darkbloom_router.meter import Meter
from darkbloom_router.ports import Attestation
from darkbloom_router.provider import Provider

MAX_ANSWER_BYTES = 256
"""A nonce of 32 bytes and a signature of at most 72, with room."""

_log = structlog.get_logger()


@final
class CodeAnswers:
    """One waits at most: only one challenge is ever outstanding."""

    def __init__(self, attestation: Attestation, meter: Meter) -> None:
        self._attestation = attestation
        self._meter = meter
        self._waiting: asyncio.Queue[tuple[str, CodeAttestationResponse]] = asyncio.Queue(1)

    def receive(self, provider: Provider, payload: bytes) -> None:
        """Keep an answer for `run`; one that is too large or comes too fast is ignored.

        Raises:
            DecodeError: it is no answer.
        """
        if len(payload) > MAX_ANSWER_BYTES or self._waiting.full():
            self._meter.ignored("provider", "code_answer")
            return
        message = CodeAttestationResponse.FromString(payload)
        self._waiting.put_nowait((provider.provider_id, message))

    async def run(self) -> None:
        """Hand in, for ever; one that is lost is asked for again by attestation."""
        while True:
            provider_id, message = await self._waiting.get()
            try:
                accepted = await self._attestation.code_answered(
                    provider_id, message.nonce, message.signature
                )
            except MeshError as error:
                _log.warning("code_answer_lost", reason=error.reason_name)
                continue
            _log.info("code_answered", provider_id=provider_id, accepted=accepted)
