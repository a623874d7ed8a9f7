"""What a request needs of a provider, told in sizes and abilities: nothing of its content."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import get_args

from darkbloom_edge.dialects.chat import Lowered, prompt_bound
from darkbloom_edge.envelope import MAX_REQUEST_BYTES
from darkbloom_edge.errors import MalformedError, RequestError
from darkbloom_edge.media import estimate_tokens
from darkbloom_edge.messages import media_of, texts_of
from darkbloom_edge.offers import BOUND_FACTOR, BOUND_SLACK, Need, OfferRequest
from darkbloom_edge.request import canonical_bytes
from darkbloom_edge.signatures import to_base64
from darkbloom_edge.verdict import TrustLevel

MAX_BOUND = 1 << 24
"""Most tokens of a prompt or of an answer."""
_NEEDS: tuple[Need, ...] = get_args(Need)
_BYTES_PER_TOKEN = 4
_TOKENS_PER_MESSAGE = 4
_ENVELOPE_BYTES = 84 + 4096
"""What sealing adds at most: headers, nonce, box, and the request header."""
_NAME_BYTES = 1024
"""What the build's id and the bound may be longer than what stands for them before the offer."""


@dataclass(frozen=True, slots=True, repr=False)
class Asked:
    """One choice of one request, ready to be sealed as often as failover needs."""

    lowered: Lowered
    choice: int
    prompt_date: str
    prompt_tokens: int
    prompt_bound: int
    body_bytes: int

    def __repr__(self) -> str:
        return f"Asked(model={self.lowered.requested_model!r}, <redacted>)"

    def canonical(self, build: str, output_bound: int) -> bytes:
        """Write the canonical request for a build.

        Raises:
            RequestError: it cannot be written.
        """
        try:
            return canonical_bytes(
                self.lowered.to_request(build, output_bound, self.prompt_date, self.choice)
            )
        except MalformedError as error:
            raise RequestError(str(error), error.field) from None

    def offer_request(
        self, nonce: bytes, *, exclude: tuple[str, ...], floor: TrustLevel | None
    ) -> OfferRequest:
        """Return what is asked of the gateway."""
        lowered = self.lowered
        return OfferRequest(
            model=lowered.requested_model,
            nonce=to_base64(nonce),
            prompt_tokens=self.prompt_tokens,
            prompt_bound=self.prompt_bound,
            output_bound=lowered.explicit_output_bound,
            body_bytes=self.body_bytes,
            needs=tuple(need for need in _NEEDS if need in lowered.needs),
            tool_choice=lowered.tool_policy if lowered.has_tools else "",
            parallel_tool_calls=lowered.fields.get("parallel_tool_calls") is not False,
            trust_floor=floor,
            exclude=exclude,
        )


def ask(lowered: Lowered, choice: int, now: datetime) -> Asked:
    """Measure one choice of a request.

    Bytes bound tokens from above, so the hold is a few times what a tokenizer would say.

    Raises:
        RequestError: it is larger than any request may be.
    """
    if lowered.remote:
        raise RequestError(
            "images are not fetched here, where their host would learn who asks; send data: URLs",
            lowered.remote[0].param,
        )
    bound, tokens = prompt_bound(lowered), _estimate(lowered)
    # The gateway takes no bound that is many times the estimate.
    tokens = max(tokens, -(-(bound - BOUND_SLACK) // BOUND_FACTOR))
    asked = Asked(
        lowered,
        choice,
        now.strftime("%Y-%m-%d"),
        prompt_tokens=min(bound, tokens),
        prompt_bound=bound,
        body_bytes=0,
    )
    size = len(asked.canonical("b", MAX_BOUND)) + _NAME_BYTES + _ENVELOPE_BYTES
    if bound > MAX_BOUND or size > MAX_REQUEST_BYTES:
        raise RequestError("the prompt is too large", "messages", status=413)

    return replace(asked, body_bytes=size)


def _estimate(lowered: Lowered) -> int:
    """Guess the prompt's tokens, never below one."""
    messages = lowered.fields["messages"]
    texts = sum(len(text) for message in messages for text in texts_of(message))
    tools = sum(len(str(tool)) for tool in lowered.fields.get("tools") or ())
    media = sum(map(estimate_tokens, media_of(messages)))

    return max(1, (texts + tools) // _BYTES_PER_TOKEN) + media + _TOKENS_PER_MESSAGE * len(messages)
