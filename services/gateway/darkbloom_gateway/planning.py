"""From a lowered request and a key to a plan: which build, and within which bounds."""

from datetime import datetime
from itertools import chain

from darkbloom_edge.dialects.chat import Lowered, prompt_bound
from darkbloom_edge.media import estimate_tokens
from darkbloom_edge.messages import media_of, texts_of

from darkbloom_gateway.catalog import Build, Catalog
from darkbloom_gateway.errors import bad_request, model_not_allowed, prompt_too_large
from darkbloom_gateway.hints import prefix_hint
from darkbloom_gateway.model import MAX_BOUND, KeyRecord, Plan
from darkbloom_gateway.self_route import Route
from darkbloom_gateway.tiers import Tiers
from darkbloom_gateway.tokenizers import Tokenizers

BYTES_PER_TOKEN = 4
"""Routing estimate of text."""
COUNT_MARGIN = 16
"""One part in so many is added to a tokenizer's count for the bound."""
MAX_COUNTED_BYTES = 1 << 20
"""Longest texts of one prompt that a tokenizer counts (about half a second); the bound of longer
ones is their bytes, which is never too low, so that a refusal costs nobody much."""
TOKENS_PER_MESSAGE = 4
"""Routing estimate of a message's frame."""


def make_plan(
    lowered: Lowered,
    key: KeyRecord,
    catalog: Catalog,
    tiers: Tiers,
    *,
    default_bound: int,
    now: datetime,
    route: Route = Route.PUBLIC,
    machine: str = "",
    hint_secret: bytes = b"",
    tokenizers: Tokenizers | None = None,
    choices: int = 1,
) -> Plan:
    """Decide everything that does not need another room.

    Args:
        lowered: the parsed body.
        key: who asks.
        catalog: the newest one.
        tiers: limits of key and account.
        default_bound: tokens, where neither request nor build has an output bound.
        route: whose machines may serve.
        machine: the one that is wanted; empty for any.
        hint_secret: keys the prefix hint; empty makes none.
        tokenizers: of builds; without one, or where texts are too long to be counted, the prompt's
            bound is that of its bytes.
        now: for the prompt's date, set once so that a retry renders the same prompt.
        choices: answers that the whole request wants, each with a claim of its own.

    Raises:
        ApiError: 400, 403, 404, 413 or 503.
    """
    name = lowered.requested_model
    if not key.allows(name):
        raise model_not_allowed()
    found = catalog.resolve(name, key.account_id)
    _check_needs(lowered, found.build)

    bound, estimate = prompt_bound(lowered), _estimate(lowered)
    builds = found.builds
    counted = None
    if tokenizers is not None and _text_bytes(lowered) <= MAX_COUNTED_BYTES:
        counted = tokenizers.count(builds, _texts(lowered))
    if counted is not None:
        bound, estimate = _by_count(lowered, counted, bound)
    if bound > MAX_BOUND:
        raise prompt_too_large()
    estimate = min(bound, estimate)
    most = min(found.build.max_output_length or MAX_BOUND, MAX_BOUND)
    asked = lowered.explicit_output_bound
    output_bound = min(asked or found.build.max_output_length or default_bound, most)
    return Plan(
        account_id=key.account_id,
        key_id=key.key_id,
        requested_model=name,
        build=found.build.build_id,
        fallback_build=found.fallback_build,
        prompt_bound=bound,
        output_bound=output_bound,
        prompt_estimate=estimate,
        prompt_date=now.strftime("%Y-%m-%d"),
        counted=counted is not None,
        tools=lowered.has_tools,
        tool_choice_mode=lowered.tool_policy if lowered.has_tools else "",
        parallel_tool_calls=lowered.fields.get("parallel_tool_calls") is not False,
        json_schema="structured_outputs" in lowered.needs,
        vision=lowered.has_media,
        claim=tiers.claim(
            key,
            prompt_estimate=estimate,
            output_bound=output_bound,
            asked=bool(asked),
            choices=choices,
        ),
        route=route,
        machine=machine,
        prefix_hint=prefix_hint(
            hint_secret,
            account_id=key.account_id,
            build=found.build.build_id,
            fields=lowered.fields,
            prompt_tokens=estimate,
        )
        if hint_secret and not lowered.has_media
        else b"",
    )


def _check_needs(lowered: Lowered, build: Build) -> None:
    """Refuse what the build says that it cannot do; a build without a list is asked anyway.

    Not for media: only who says that it sees is shown anything.
    """
    if lowered.has_media:
        if "vision" not in build.capabilities:
            raise bad_request("the model takes text only, no media", param="messages")
        if lowered.has_tools and lowered.tool_policy != "auto":
            raise bad_request(
                "the model cannot be held to a tool choice when there are media",
                param="tool_choice",
            )
    if not build.capabilities:
        return
    for need, param in (
        ("tools", "tools"),
        ("json_mode", "response_format"),
        ("structured_outputs", "response_format"),
        ("logprobs", "logprobs"),
    ):
        if need in lowered.needs and need not in build.capabilities:
            raise bad_request(f"the model does not support {need}", param=param)


def _texts(lowered: Lowered) -> list[str]:
    return [text for message in lowered.fields["messages"] for text in texts_of(message)]


def _text_bytes(lowered: Lowered) -> int:
    return sum(len(text.encode()) for text in _texts(lowered))


def _by_count(lowered: Lowered, counted: int, bound: int) -> tuple[int, int]:
    """Return bound and estimate of a prompt whose texts were counted.

    A provider refuses a prompt above the bound, and counts it within its template: where texts meet
    markers, tokens may be cut otherwise, so the texts' count is taken with a margin.
    """
    texts = _texts(lowered)
    margin = counted // COUNT_MARGIN + TOKENS_PER_MESSAGE * len(texts)
    tools = sum(len(str(tool)) for tool in lowered.fields.get("tools") or ())
    estimate = counted + TOKENS_PER_MESSAGE * len(texts) + tools // BYTES_PER_TOKEN
    estimate += _media_tokens(lowered)

    return min(bound, bound - _text_bytes(lowered) + counted + margin), max(1, estimate)


def _estimate(lowered: Lowered) -> int:
    """Guess the prompt's tokens for routing, never below one."""
    messages = lowered.fields["messages"]
    texts = chain(
        _texts(lowered),
        (str(tool) for tool in lowered.fields.get("tools") or ()),
    )
    characters = sum(map(len, texts))
    text = max(1, characters // BYTES_PER_TOKEN) + TOKENS_PER_MESSAGE * len(messages)
    return text + _media_tokens(lowered)


def _media_tokens(lowered: Lowered) -> int:
    return sum(map(estimate_tokens, media_of(lowered.fields["messages"])))
