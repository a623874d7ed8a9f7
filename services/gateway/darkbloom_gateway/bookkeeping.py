"""What the meters are told about an answer."""

from darkbloom_gateway.answer import Answer
from darkbloom_gateway.meters import Meters
from darkbloom_gateway.stage import Stage


def note_first(stage: Stage, build: str, answer: Answer, seconds: float) -> None:
    """Note the first content, `seconds` after the request was planned, and where they went."""
    timing, meters = answer.timing, stage.meters
    stage.spans.began(seconds)
    meters.first_content(build, seconds)
    meters.phase("reserve", timing.reserve_us / 1e6)
    meters.phase("route", timing.route_us / 1e6)
    meters.phase("encrypt", timing.encrypt_us / 1e6)
    meters.phase("queue_wait", timing.queue_us / 1e6)
    meters.phase("dispatch", timing.dispatch_us / 1e6)


def note_end(
    meters: Meters, build: str, answer: Answer, *, total_s: float, content_s: float
) -> None:
    """Note a complete answer.

    Args:
        meters: told.
        build: that was asked for.
        answer: concluded.
        total_s: since the request was planned.
        content_s: since the first content.
    """
    last = answer.winner.last
    meters.phase("total", total_s)
    meters.tokens(
        build,
        prompt=last.prompt_tokens,
        cached=last.cached_tokens,
        completion=last.completion_tokens,
        reasoning=last.reasoning_tokens,
    )
    if last.completion_tokens > 1 and content_s > 0:
        meters.decode_rate(build, (last.completion_tokens - 1) / content_s)
