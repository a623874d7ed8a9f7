"""The streams of mlx, taken by one engine thread after the other.

Each stream of a CPU is a thread of mlx that lives as long as the process, even when the thread that
it was made for has ended and has cleared its streams. So an engine thread takes those that another
has left, and an agent that loads models for months has as many as it ever had models at once.
"""

import threading
from collections import deque
from typing import NamedTuple

import mlx.core as mx


class _Pair(NamedTuple):
    cpu: mx.Stream
    """Files are read on it, whatever computes."""
    default: mx.Stream


class Streams:
    """Streams by thread; safe to share between threads."""

    def __init__(self) -> None:
        self._idle: deque[_Pair] = deque()
        self._taken = threading.local()

    def take(self) -> None:
        """Let the calling thread compute on streams that no other uses."""
        if getattr(self._taken, "pair", None) is not None:
            return
        try:
            pair = self._idle.pop()
        except IndexError:
            pair = _new_pair()
        for stream in pair:
            mx.set_default_stream(stream)
        self._taken.pair = pair

    def leave(self) -> None:
        """Wait for the calling thread's work and let another have its streams; its last act."""
        mx.synchronize()
        mx.clear_streams()
        pair: _Pair | None = getattr(self._taken, "pair", None)
        if pair is not None:
            self._taken.pair = None
            self._idle.append(pair)


def _new_pair() -> _Pair:
    device = mx.default_device()
    cpu = mx.new_thread_unsafe_stream(mx.Device(mx.DeviceType.cpu))
    if device.type == mx.DeviceType.cpu:
        return _Pair(cpu, cpu)
    return _Pair(cpu, mx.new_thread_unsafe_stream(device))
