"""OpenAI chat completion bodies, lowered to the canonical request (spec of the HTTP API §6-§8).

Dropped because they would tell the provider who asks: `user`, `metadata`, `safety_identifier`,
`prompt_cache_key`, `provider`, `provider_serial(s)`. Fields that nobody here knows are dropped too,
because clients send fields of other vendors along.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from darkbloom_edge.dialects.chat_messages import lower_messages
from darkbloom_edge.dialects.chat_sampling import MAX_STOPS_BESIDE_GRAMMAR, lower_sampling
from darkbloom_edge.dialects.chat_tools import ToolPolicy, lower_tools
from darkbloom_edge.dialects.fields import Fields
from darkbloom_edge.dialects.media import MAX_REMOTE, RemoteMedia
from darkbloom_edge.errors import MalformedError, RequestError
from darkbloom_edge.messages import check_messages, media_of
from darkbloom_edge.request import ChatRequest, prompt_bound_of
from darkbloom_edge.schema import check_schema
from darkbloom_edge.strict_json import parse_json_object

MAX_BODY_BYTES = 16 * 1024 * 1024
"""Largest HTTP body that is read."""

MAX_CHOICES = 8
"""Most answers to one request; each is a job of its own, with its own hold."""

_OUTPUT_BOUNDS = ("max_tokens", "max_completion_tokens", "max_output_tokens")
_MAX_MODEL_CHARS = 256


@dataclass(frozen=True, slots=True, repr=False)
class Lowered:
    """A chat completion request after parsing; repr shows no content."""

    requested_model: str
    """Exactly what the caller sent, alias included."""
    stream: bool
    include_usage: bool
    """`stream_options.include_usage`."""
    metadata_details: bool
    """The caller asks for provider metadata in the answer."""
    explicit_output_bound: int | None
    """The caller's output bound in tokens; absent means the model's default."""
    n: int
    """How many answers are wanted."""
    tool_policy: ToolPolicy
    has_tools: bool
    has_media: bool
    """Whether there are images or videos, so that only a `vision` build can answer."""
    needs: frozenset[str]
    """Capabilities that a build must list: `tools`, `tool_grammar`, `json_mode`,
    `structured_outputs`, `logprobs`, `vision`."""
    fields: Mapping[str, Any]
    """Fields of a `ChatRequest` that need no decision of the gateway."""
    echo: Mapping[str, Any] = field(default_factory=dict)
    """What the answer repeats, in dialects that repeat anything."""
    remote: tuple[RemoteMedia, ...] = ()
    """What is still to be fetched, in the order of the messages."""
    others: tuple["Lowered", ...] = ()
    """More prompts of the same body, each wanted `n` times, in dialects that take several."""

    @property
    def jobs(self) -> list[tuple["Lowered", int]]:
        """Every answer that is wanted, in the order of its index: of which prompt, which choice."""
        return [(one, choice) for one in (self, *self.others) for choice in range(self.n)]

    def with_media(self, fetched: Sequence[Mapping[str, Any]]) -> "Lowered":
        """Return the request with parts in the places of what was fetched.

        Args:
            fetched: one part for each of `remote`, made by `media.part_of`.

        Raises:
            RequestError: all media together are too many bytes.
        """
        waiting = iter(fetched)
        messages = [_filled(message, waiting) for message in self.fields["messages"]]
        try:
            check_messages(messages)
        except MalformedError as error:
            raise RequestError(str(error), error.field) from None
        return replace(self, fields={**self.fields, "messages": messages}, remote=())

    def to_request(
        self, build: str, output_bound: int, prompt_date: str, choice: int = 0
    ) -> ChatRequest:
        """Return the canonical request.

        Args:
            build: the build that the model resolved to.
            output_bound: tokens, already clamped to what the model can do.
            prompt_date: UTC date, `YYYY-MM-DD`, the same for every attempt of a request.
            choice: which of `n` answers it asks for. A seed counts on from the first one, or else
                all of them would be the same.

        Raises:
            RequestError: something is still to be fetched, and nobody here does that.
        """
        if self.remote:
            raise RequestError("nothing is fetched here, use a data: url", self.remote[0].param)
        fields = self.fields
        if choice and "seed" in fields:
            fields = {**fields, "seed": _later_seed(fields["seed"], choice)}
        return ChatRequest(model=build, max_tokens=output_bound, prompt_date=prompt_date, **fields)

    def __repr__(self) -> str:
        return f"Lowered(requested_model={self.requested_model!r}, <redacted>)"


def lower(body: bytes, *, max_bytes: int = MAX_BODY_BYTES) -> Lowered:
    """Parse a chat completion body.

    Raises:
        RequestError: not JSON, a field missing, of the wrong type or out of range, or something
            that this mesh does not do (media, server-side state).
    """
    return lower_fields(parse_body(body, max_bytes))


def lower_fields(values: Mapping[str, Any], echo: Mapping[str, Any] | None = None) -> Lowered:
    """Lower the parsed members of a chat completion body; errors as `lower`.

    Args:
        values: the members; other dialects bring theirs into this shape.
        echo: what the answer repeats of them.
    """
    fields = Fields(values)
    model = fields.text("model")
    if not model:
        raise RequestError("model is required", "model")
    if len(model) > _MAX_MODEL_CHARS:
        raise RequestError("model is too long", "model")
    _refuse_unsupported(fields)

    messages = lower_messages(fields.array("messages"))
    media = list(media_of(messages))
    tools = lower_tools(fields)
    sampling = lower_sampling(fields)
    if tools.tools and tools.policy != "auto":
        _check_stops(sampling["stop"])
    response_format = _lower_format(fields)
    content = {
        "messages": messages,
        "tools": tools.tools,
        "tool_choice": tools.choice,
        "parallel_tool_calls": tools.parallel,
        "response_format": response_format,
        **sampling,
    }
    options = Fields(fields.object("stream_options") or {})

    return Lowered(
        requested_model=model,
        stream=bool(fields.flag("stream")),
        include_usage=bool(options.flag("include_usage")),
        metadata_details=bool(fields.flag("metadata_details")),
        explicit_output_bound=_output_bound(fields),
        n=fields.integer("n", 1, MAX_CHOICES) or 1,
        tool_policy=tools.policy,
        has_tools=tools.tools is not None,
        has_media=bool(media),
        needs=_needs(tools.policy if tools.tools else None, response_format, sampling, media),
        fields={name: value for name, value in content.items() if value is not None},
        echo=echo or {},
        remote=_remote(media),
    )


def prompt_bound(request: Lowered | ChatRequest) -> int:
    """Bound the prompt's tokens from above; the rule is that of `request.prompt_bound_of`."""
    if isinstance(request, Lowered):
        fields = request.fields
        return prompt_bound_of(
            fields["messages"], fields.get("tools"), fields.get("response_format")
        )

    return prompt_bound_of(request.messages, request.tools, request.response_format)


def parse_body(body: bytes, max_bytes: int = MAX_BODY_BYTES) -> dict[str, Any]:
    """Parse a request body.

    Raises:
        RequestError: too large, or no JSON object that can be read in one way only.
    """
    if len(body) > max_bytes:
        raise RequestError(f"body is larger than {max_bytes} bytes", status=413)

    try:
        return parse_json_object(body, max_bytes=max_bytes)
    except MalformedError as error:
        raise RequestError(f"body: {error}") from None


def _refuse_unsupported(fields: Fields) -> None:
    """Refuse what would otherwise be answered without the effect that was asked for."""
    for name in ("store", "background"):
        if fields.flag(name):
            raise RequestError(f"{name} is not supported, nothing is kept here", name)
    if fields.get("previous_response_id") is not None:
        raise RequestError(
            "previous_response_id is not supported, nothing is kept here", "previous_response_id"
        )
    modalities = fields.array("modalities")
    if modalities is not None and modalities != ["text"]:
        raise RequestError("modalities must be text only", "modalities")


def _later_seed(seed: int, choice: int) -> int:
    """Return the seed of a later choice, in the range of seeds."""
    return (seed + choice + 2**63) % 2**64 - 2**63


def _output_bound(fields: Fields) -> int | None:
    """Return the first positive bound; zero and null mean the default."""
    bounds = [fields.integer(name, 0) for name in _OUTPUT_BOUNDS]

    return next((bound for bound in bounds if bound), None)


def _check_stops(stops: list[str] | None) -> None:
    if stops and len(stops) > MAX_STOPS_BESIDE_GRAMMAR:
        raise RequestError(
            f"stop has more than {MAX_STOPS_BESIDE_GRAMMAR} entries beside this tool_choice", "stop"
        )


def _lower_format(fields: Fields) -> dict[str, Any] | None:
    form = fields.object("response_format")
    if form is None or form.get("type") == "text":
        return None

    if form.get("type") == "json_object":
        return {"type": "json_object"}
    schema = form.get("json_schema")
    if form.get("type") != "json_schema" or not isinstance(schema, dict):
        raise RequestError(
            "response_format must be text, json_object or json_schema", "response_format"
        )
    named = isinstance(schema.get("name"), str) and schema["name"]
    if not named or not isinstance(schema.get("schema"), dict):
        raise RequestError("response_format.json_schema needs name and schema", "response_format")
    try:
        check_schema(schema["schema"])
    except MalformedError as error:
        raise RequestError(
            f"response_format.json_schema.schema: {error.what}", "response_format"
        ) from None

    return {"type": "json_schema", "json_schema": schema}


def _needs(
    policy: ToolPolicy | None,
    response_format: dict[str, Any] | None,
    sampling: dict[str, Any],
    media: Sequence[Mapping[str, Any]],
) -> frozenset[str]:
    needs = {"vision"} if media else set()
    if policy is not None:
        needs.add("tools")
    if policy not in (None, "auto"):
        needs.add("tool_grammar")
    if response_format is not None:
        structured = response_format["type"] == "json_schema"
        needs.add("structured_outputs" if structured else "json_mode")
    if sampling["logprobs"] or sampling["logit_bias"]:
        needs.add("logprobs")

    return frozenset(needs)


def _remote(media: Sequence[Mapping[str, Any]]) -> tuple[RemoteMedia, ...]:
    remote = tuple(part["remote"] for part in media if "remote" in part)
    if len(remote) > MAX_REMOTE:
        raise RequestError(f"messages name more than {MAX_REMOTE} urls", "messages")
    return remote


def _filled(message: dict[str, Any], fetched: Iterator[Mapping[str, Any]]) -> dict[str, Any]:
    content = message["content"]
    if not isinstance(content, list):
        return message
    parts = [dict(next(fetched)) if "remote" in part else part for part in content]
    return {**message, "content": parts}
