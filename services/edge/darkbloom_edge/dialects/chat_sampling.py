"""Sampling parameters of the OpenAI chat dialect (ranges as OpenAI documents them)."""

import re
from typing import Any

from darkbloom_edge.dialects.fields import Fields, number_between
from darkbloom_edge.errors import RequestError

MAX_STOPS = 16
"""Most stop strings of one request."""
MAX_STOPS_BESIDE_GRAMMAR = 4
"""The same where a tool choice is held by a grammar."""
MAX_STOP_BYTES = 256
"""Longest stop string in UTF-8 bytes."""
MAX_BIASES = 1024
"""Most entries of `logit_bias`."""
EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
"""Values of `reasoning_effort`."""

_TOKEN_ID = re.compile(r"(0|[1-9]\d{0,9})\Z", re.ASCII)


def lower_sampling(fields: Fields) -> dict[str, Any]:
    """Return the fields of a `ChatRequest` that say how to sample; absent ones are None.

    Raises:
        RequestError: a field of the wrong type or outside its range.
    """
    top_logprobs = fields.integer("top_logprobs", 0, 20)
    logprobs = fields.flag("logprobs")
    if top_logprobs and not logprobs:
        raise RequestError("top_logprobs needs logprobs", "top_logprobs")

    return {
        "temperature": fields.number("temperature", 0, 2),
        "top_p": fields.number("top_p", 0, 1),
        "top_k": fields.integer("top_k", 0, 1_000_000),
        "min_p": fields.number("min_p", 0, 1),
        "frequency_penalty": fields.number("frequency_penalty", -2, 2),
        "presence_penalty": fields.number("presence_penalty", -2, 2),
        "repetition_penalty": fields.number("repetition_penalty", 0.01, 10),
        "seed": fields.integer("seed", -(2**63)),
        "stop": _lower_stop(fields.get("stop")),
        "logprobs": logprobs,
        "top_logprobs": top_logprobs if logprobs else None,
        "logit_bias": _lower_bias(fields.object("logit_bias")),
        "reasoning_effort": _lower_effort(fields),
    }


def _lower_stop(stop: Any) -> list[str] | None:
    if stop is None:
        return None

    strings = stop if isinstance(stop, list) else [stop]
    if len(strings) > MAX_STOPS:
        raise RequestError(f"stop has more than {MAX_STOPS} entries", "stop")
    for string in strings:
        if not isinstance(string, str) or not string:
            raise RequestError("stop must be a string or an array of strings, none empty", "stop")
        if len(string.encode()) > MAX_STOP_BYTES:
            raise RequestError(f"stop has a string of more than {MAX_STOP_BYTES} bytes", "stop")

    return strings or None


def _lower_bias(bias: dict[str, Any] | None) -> dict[str, float] | None:
    if not bias:
        return None

    if len(bias) > MAX_BIASES:
        raise RequestError(f"logit_bias has more than {MAX_BIASES} entries", "logit_bias")
    for token in bias:
        if _TOKEN_ID.match(token) is None:
            raise RequestError("logit_bias must have token ids as keys", "logit_bias")

    return {token: number_between(value, -100, 100, "logit_bias") for token, value in bias.items()}


def _lower_effort(fields: Fields) -> str | None:
    """Read `reasoning_effort`, or `reasoning.effort` where the first is absent."""
    name, effort = "reasoning_effort", fields.get("reasoning_effort")
    reasoning = fields.object("reasoning")
    if effort is None and reasoning is not None:
        name, effort = "reasoning.effort", reasoning.get("effort")
    if effort is None:
        return None
    if not isinstance(effort, str) or effort not in EFFORTS:
        raise RequestError(f"{name} must be one of {', '.join(EFFORTS)}", name)

    return effort
