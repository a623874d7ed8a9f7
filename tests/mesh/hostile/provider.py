"""The real agent on the machine of somebody who cheats.

It is patched at what leaves it: sealed chunks, frames, signatures. Keys, engine, registration and
challenges stay real.
"""

import sys
from typing import Any

import darkbloom_edge.envelope
import darkbloom_mesh.lane
from darkbloom.common.v1.frame_pb2 import Frame, FrameKind
from darkbloom.router.v1.provider_link_pb2 import AttestationResponse, Terminal
from darkbloom_edge.signatures import P256Signer
from google.protobuf.message import Message

from tests.mesh.hostile.mischief import Mischief

mischief = Mischief()
STRANGER = P256Signer.generate()
"""An identity that nobody has registered."""
_honest_seal = darkbloom_edge.envelope.ProviderSession.seal_chunk


def seal_chunk(session: Any, delta: bytes, *, final: bool = False) -> bytes:
    """Seal a chunk, more or less."""
    if mischief.wanted("plaintext"):
        _honest_seal(session, delta, final=final)
        return delta
    if mischief.wanted("mis_keyed"):
        session._sealer._shared = bytes(32)
    return _honest_seal(session, delta, final=final)


class HostileLane(darkbloom_mesh.lane.Lane):
    """The agent's lane, through which its owner cheats."""

    _kept: Frame | None = None

    def send_chunk(
        self, kind: int, stream: int, sequence: int, payload: bytes, tokens: int
    ) -> bool:
        """Send a chunk, or do something else with it."""
        if mischief.wanted("lying_counts"):
            tokens += 100
        if self._kept is None and mischief.wanted("reordered"):
            self._kept = Frame(
                kind=kind, stream=stream, sequence=sequence, payload=payload, tokens=tokens
            )
            return True
        sent = super().send_chunk(kind, stream, sequence, payload, tokens)
        if self._kept is not None:
            kept, self._kept = self._kept, None
            return self.send_frame(kept)
        if sequence > 1 and mischief.wanted("replayed"):
            super().send_chunk(kind, stream, sequence + 1, payload, tokens)
        return sent

    def send_ordered(self, kind: int, stream: int, message: Message | bytes) -> bool:
        """Send a terminal, perhaps with somebody else's signature."""
        if isinstance(message, Terminal) and mischief.wanted("strange_terminal"):
            message.terminal.signature = STRANGER.sign("terminal", message.terminal.document)
        return super().send_ordered(kind, stream, message)

    def send_control(self, kind: int, stream: int, message: Message | bytes) -> None:
        """Answer challenges badly, or not at all."""
        if isinstance(message, AttestationResponse):
            if mischief.wanted("silent"):
                mischief.note("silent")
                return
            if mischief.wanted("forged_answer"):
                message.status_signature = STRANGER.sign_raw(message.status)
            if mischief.wanted("old_answer"):
                message = self._first_answer or message
            self._first_answer = self._first_answer or message
        super().send_control(kind, stream, message)

    _first_answer: AttestationResponse | None = None


def main() -> int:
    """Patch what leaves the process, then run the real command line."""
    darkbloom_mesh.lane.Lane = HostileLane  # type: ignore[misc]
    darkbloom_edge.envelope.ProviderSession.seal_chunk = seal_chunk  # type: ignore[method-assign]
    from darkbloom_provider.cli import run

    return run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
