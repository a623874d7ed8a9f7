"""A consumer who never sleeps: asks for a short answer again and again, and says when he had one.

`python -m darkbloom_gateway.probe --url http://gateway:8080 --secrets DIRECTORY`. Whoever watches
sees that the mesh answers when nobody else asks, and that it does not when requests never reach a
gateway's own counters. It is a consumer like any other: it has a key, and it pays.
"""

import argparse
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event

import httpcore
import orjson
from darkbloom_mesh import telemetry
from darkbloom_mesh.clock import Clock, SystemClock
from darkbloom_mesh.closed import serve
from darkbloom_mesh.config import Secret

_ERRORS = (
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.TimeoutException,
    httpcore.UnsupportedProtocol,
)
_TIMEOUTS = {"connect": 5.0, "read": 60.0, "write": 5.0, "pool": 5.0}
_OK = 200
_OURS = 500
_REFUSED = 2


@dataclass(frozen=True, slots=True)
class Question:
    """Where to ask, for what, and as whom."""

    url: str
    model: str
    key: Secret

    def ask(self) -> str:
        """Return how it went: `answered`, `refused` (4xx), `failed` or `unreachable`."""
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": "Say one word."}],
            "max_tokens": 8,
        }
        headers = [
            ("Authorization", f"Bearer {self.key.reveal()}"),
            ("Content-Type", "application/json"),
        ]
        try:
            # A connection of its own each time: a kept one would hide that nobody gets in.
            response = httpcore.request(
                "POST",
                f"{self.url.rstrip('/')}/v1/chat/completions",
                headers=headers,
                content=orjson.dumps(body),
                extensions={"timeout": _TIMEOUTS},
            )
        except _ERRORS:
            return "unreachable"
        if response.status != _OK:
            return "refused" if response.status < _OURS else "failed"
        return "answered" if _answers(response.content) else "failed"


def _answers(content: bytes) -> bool:
    """Say whether a body has tokens of an answer; words of thought count."""
    try:
        return bool(orjson.loads(content)["usage"]["completion_tokens"] > 0)
    except (ValueError, KeyError, TypeError):
        return False


class Prober:
    """Asks, and keeps count.

    Args:
        question: What to ask.
        metrics: Where it shows.
        clock: Time of the last answer.
    """

    def __init__(self, question: Question, metrics: telemetry.Metrics, clock: Clock) -> None:
        self._question = question
        self._asked = metrics.counter(telemetry.SYNTHETIC)
        self._last = metrics.gauge(telemetry.SYNTHETIC_SUCCESS)
        self._clock = clock

    def once(self) -> str:
        """Ask once, and return how it went."""
        outcome = self._question.ask()
        self._asked.labels(outcome).inc()
        if outcome == "answered":
            self._last.set(self._clock.now().timestamp())
        return outcome


def main(arguments: Sequence[str], clock: Clock, stop: Event) -> int:
    """Run until stopped; returns the exit code."""
    given = _parser().parse_args(arguments)
    try:
        model, key = ((given.secrets / name).read_text("utf-8").strip() for name in _FILES)
    except (OSError, UnicodeDecodeError) as error:
        sys.stderr.write(f"{given.secrets}: {type(error).__name__}\n")
        return _REFUSED
    metrics = telemetry.Metrics(version=given.version)
    prober = Prober(Question(given.url, model, Secret(key)), metrics, clock)
    server, thread = serve(metrics.registry, given.metrics)
    try:
        while not stop.is_set():
            prober.once()
            stop.wait(given.every)
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=5)
    return 0


_FILES = ("model", "api-key")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="darkbloom_gateway.probe", description="Ask for an answer again and again."
    )
    parser.add_argument("--url", required=True, help="where consumers ask, without /v1")
    parser.add_argument(
        "--secrets", type=Path, required=True, help="directory with files `model` and `api-key`"
    )
    parser.add_argument("--every", type=float, default=30.0, help="seconds between two questions")
    parser.add_argument("--metrics", default="0.0.0.0:9090", help="host:port of /metrics")
    parser.add_argument("--version", default=telemetry.UNKNOWN, help="shown in build_info")
    return parser


def _run() -> int:
    stop = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return main(sys.argv[1:], SystemClock(), stop)


if __name__ == "__main__":
    sys.exit(_run())
