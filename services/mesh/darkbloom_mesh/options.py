"""The gRPC channel and server arguments of the mesh, in one place.

gRPC turns Nagle off on every TCP socket by itself. Keep-alive runs both ways every 20 s, and the
server's limits on pings are relaxed to match, or it answers GOAWAY `too_many_pings`.
"""

from darkbloom_mesh.repeating import service_config

MAX_UNARY_BYTES = 4 * 1024 * 1024
# One batch holds 256 KiB of payload or a single frame of 1 MiB; the rest is room for its headers.
MAX_LANE_BYTES = 1024 * 1024 + 64 * 1024

Options = list[tuple[str, int | str]]

_RECONNECT_MS = 2_000
"""Longest wait before a lost replica is dialled again. It has to be well below the time between
two replicas of a deploy, or the second one goes while nobody has found the first one again.
"""
_KEEPALIVE: Options = [
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
]


def server_options(
    *, max_message_bytes: int = MAX_UNARY_BYTES, connection_age_s: float = 0.0
) -> Options:
    """Return the arguments of a listener.

    Args:
        max_message_bytes: Bound of what it accepts.
        connection_age_s: A connection that is older takes no new calls, so that its caller looks
            names up again and finds new replicas; calls and streams on it go on. 0: any age.
    """
    aging: Options = [("grpc.max_connection_age_ms", int(connection_age_s * 1000))]
    return [
        *(aging if connection_age_s else ()),
        *_KEEPALIVE,
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
        ("grpc.http2.max_ping_strikes", 0),
        # Two processes on one port would split the providers between them in silence.
        ("grpc.so_reuseport", 0),
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.max_send_message_length", MAX_UNARY_BYTES),
    ]


def channel_options(*, max_message_bytes: int = MAX_UNARY_BYTES) -> Options:
    """Return the arguments of a channel: round robin, repeats, keep-alive, bounds."""
    return [
        *_KEEPALIVE,
        ("grpc.service_config", service_config()),
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.max_send_message_length", MAX_UNARY_BYTES),
        ("grpc.min_reconnect_backoff_ms", 500),
        ("grpc.max_reconnect_backoff_ms", _RECONNECT_MS),
    ]
