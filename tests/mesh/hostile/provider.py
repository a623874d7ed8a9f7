"""The real agent on the machine of somebody who cheats.

It is patched at what leaves it: sealed chunks, frames, signatures. Keys, engine, registration and
challenges stay real.
"""

import sys
from typing import Any

import darkbloom_edge.envelope
import darkbloom_mesh.lane
from darkbloom.common.v1.frame_pb2 import Frame
from darkbloom.router.v1.provider_link_pb2 import AttestationResponse, Terminal
from darkbloom_edge.signatures import P256Signer
from google.protobuf.message import Message

from tests.mesh.hostile.mischief import Mischief

mischief = Mischief()
STRANGER = P256Signer.generate()
"""An identity that nobody has registered."""
_honest_seal = darkbloom_edge.envelope.ProviderSession.seal_chunk


def seal_chunk(session: Any, delta: bytes | bytearray, *, final: bool = False) -> bytes:
    """Seal a chunk, more or less."""
    if mischief.wanted("plaintext"):
        _honest_seal(session, delta, final=final)
        return bytes(delta)
    if mischief.wanted("mis_keyed"):
        session._sealer._shared = bytes(32)
    return _honest_seal(session, delta, final=final)


class HostileLane(darkbloom_mesh.lane.Lane):
    """The agent's lane, through which its owner cheats."""

    _kept: Frame | None = None
    _lying_on = 0
    _first_answer: AttestationResponse | None = None

    def send_chunk(
        self, kind: int, stream: int, sequence: int, payload: bytes, tokens: int
    ) -> bool:
        """Send a chunk, or do something else with it."""
        frame = Frame(stream=stream, kind=kind, sequence=sequence, payload=payload, tokens=tokens)
        if self._lying_on == stream or mischief.wanted("lying_counts"):
            self._lying_on = stream
            frame.tokens += 100
        if self._kept is None and mischief.wanted("reordered"):
            self._kept = frame
            return True
        if self._kept is not None:
            # Only the boxes change places: a router that cannot open them sees nothing.
            kept, self._kept = self._kept, None
            kept.payload, frame.payload = frame.payload, kept.payload
            self.send_frame(kept)
        sent = self.send_frame(frame)
        if sequence > 1 and mischief.wanted("replayed"):
            frame.sequence += 1
            self.send_frame(frame)
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


def main() -> int:
    """Patch what leaves the process, then run the real command line."""
    darkbloom_mesh.lane.Lane = HostileLane  # type: ignore[misc]
    darkbloom_edge.envelope.ProviderSession.seal_chunk = seal_chunk  # type: ignore[method-assign]
    from darkbloom_provider.cli import run

    return run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
