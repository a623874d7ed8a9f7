"""What is measured: the same requests for every system."""

import json
from dataclasses import dataclass, replace

WARMUP_S = 1.0
CLEAN_SHARE = 0.95
"""A level holds if so many of its streams are clean."""
_CLEAN_INTERVAL_S = 0.02


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One dialect of the surface: where it is, and what ends a stream of it."""

    name: str
    path: str
    done: str


CHAT = Endpoint("chat", "/v1/chat/completions", "data: [DONE]")
ENDPOINTS = (
    CHAT,
    # Every answer reaches its limit.
    Endpoint("responses", "/v1/responses", "event: response.incomplete"),
    Endpoint("messages", "/v1/messages", "event: message_stop"),
    Endpoint("completions", "/v1/completions", "data: [DONE]"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Scenario:
    """One kind of load."""

    name: str
    tokens: int
    concurrency: int
    seconds: float = 0.0
    stream: bool = False
    interval_s: float = 0.0
    stagger_s: float = 0.0
    requests_each: int = 0
    endpoint: Endpoint = CHAT

    def body(self, model: str) -> str:
        """Return the request: the script travels as the user message, to both upstreams."""
        script: dict[str, float] = {"tokens": self.tokens}
        if self.interval_s:
            script["interval_s"] = self.interval_s
        said = f"/script {json.dumps(script)}"
        turns = [{"role": "user", "content": said}]
        limit = "max_tokens"
        request: dict[str, object] = {"model": model, "stream": self.stream}
        match self.endpoint.name:
            case "responses":
                request["input"] = said
                limit = "max_output_tokens"
            case "completions":
                request["prompt"] = said
            case _:
                request["messages"] = turns
        return json.dumps({**request, limit: self.tokens})


WHOLE_1 = Scenario(name="whole, 16 tokens, 1 at a time", tokens=16, concurrency=1)
WHOLE_32 = Scenario(name="whole, 16 tokens, 32 at a time", tokens=16, concurrency=32)
FIRST = Scenario(name="stream, 16 tokens, 1 at a time", tokens=16, concurrency=1, stream=True)
CHUNKS = Scenario(name="stream, 256 tokens, 32 at a time", tokens=256, concurrency=32, stream=True)
LOAD = (WHOLE_1, WHOLE_32, FIRST, CHUNKS)


def at(scenario: Scenario, endpoint: Endpoint) -> Scenario:
    """Return the same load for another endpoint."""
    if endpoint is CHAT:
        return scenario
    return replace(scenario, name=f"{endpoint.name}: {scenario.name}", endpoint=endpoint)


EVERYWHERE = tuple(at(scenario, endpoint) for endpoint in ENDPOINTS for scenario in LOAD)
"""The same load at all endpoints, those of chat first."""


def timed(scenario: Scenario, seconds: float) -> Scenario:
    """Return the scenario as it runs for so long."""
    return replace(scenario, seconds=seconds)


def clean_streams(level: int, seconds: float) -> Scenario:
    """Return `level` streams at one chunk per 20 ms.

    They begin evenly over half the time that one lasts, as a load that has grown would be.
    """
    return Scenario(
        name=f"{level} streams, a chunk per 20 ms",
        tokens=int(seconds / _CLEAN_INTERVAL_S),
        concurrency=level,
        seconds=2 * seconds,
        stream=True,
        interval_s=_CLEAN_INTERVAL_S,
        stagger_s=seconds / 2,
        requests_each=1,
    )
