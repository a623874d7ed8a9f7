"""Frame kinds as plain numbers: an attribute of a protobuf enum costs a microsecond each time."""

from typing import Final

from darkbloom.common.v1.frame_pb2 import FrameKind

GO_AWAY: Final = int(FrameKind.FRAME_KIND_GO_AWAY)
LANE_HELLO: Final = int(FrameKind.FRAME_KIND_LANE_HELLO)
LANE_WELCOME: Final = int(FrameKind.FRAME_KIND_LANE_WELCOME)
OPEN: Final = int(FrameKind.FRAME_KIND_OPEN)
OFFER: Final = int(FrameKind.FRAME_KIND_OFFER)
REFUSED: Final = int(FrameKind.FRAME_KIND_REFUSED)
SEALED: Final = int(FrameKind.FRAME_KIND_SEALED)
COMMITTED: Final = int(FrameKind.FRAME_KIND_COMMITTED)
PREAMBLE: Final = int(FrameKind.FRAME_KIND_PREAMBLE)
CHUNK: Final = int(FrameKind.FRAME_KIND_CHUNK)
CHUNK_FINAL: Final = int(FrameKind.FRAME_KIND_CHUNK_FINAL)
TERMINAL: Final = int(FrameKind.FRAME_KIND_TERMINAL)
CREDIT: Final = int(FrameKind.FRAME_KIND_CREDIT)
CANCEL: Final = int(FrameKind.FRAME_KIND_CANCEL)
CLOSE: Final = int(FrameKind.FRAME_KIND_CLOSE)
VIOLATION: Final = int(FrameKind.FRAME_KIND_VIOLATION)
ABANDON: Final = int(FrameKind.FRAME_KIND_ABANDON)
DECLINE: Final = int(FrameKind.FRAME_KIND_DECLINE)
SETTLE_OPENED: Final = int(FrameKind.FRAME_KIND_SETTLE_OPENED)
CLAIM: Final = int(FrameKind.FRAME_KIND_CLAIM)
ATTEMPT_FAILED: Final = int(FrameKind.FRAME_KIND_ATTEMPT_FAILED)
CONTENT: Final = (CHUNK, CHUNK_FINAL)
"""Kinds that commit."""
