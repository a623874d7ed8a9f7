"""Claims about content: the request that was sent and the answer that was saved.

All of them compare keyed digests. The provider's are in its terminal, the body's in the gateway's
countersign, and the receipt key is in the receipt.
"""

import hmac
from collections.abc import Iterator

from darkbloom_edge.answers import Answer
from darkbloom_edge.dialects.chat import CHAT
from darkbloom_edge.dialects.chat_request import Lowered
from darkbloom_edge.dialects.completions import COMPLETIONS
from darkbloom_edge.dialects.messages import MESSAGES
from darkbloom_edge.dialects.responses import RESPONSES
from darkbloom_edge.errors import EdgeError
from darkbloom_edge.receipt import Countersign
from darkbloom_edge.report import GATEWAY, PROVIDER, Claim
from darkbloom_edge.request import canonical_bytes
from darkbloom_edge.terminal import Terminal
from darkbloom_edge.transcript import body_digest, keyed_digest, tool_call_digest

_NO_KEY = "this copy has no receipt key, which came with the answer only"


def request_claims(
    body: bytes | None, receipt_key: bytes | None, terminal: Terminal, countersign: Countersign
) -> Iterator[Claim]:
    """Say whether this body was received, and whether the provider read just that.

    Args:
        body: the HTTP body; None where it was not given.
        receipt_key: key of all digests; None where this copy has none.
        terminal: what the provider says.
        countersign: what the gateway says.
    """
    if body is None or receipt_key is None:
        detail = "no request was given" if body is None else _NO_KEY
        yield Claim("request_body", holds=None, detail=detail, backed_by=GATEWAY)
        yield Claim("provider_request", holds=None, detail=detail, backed_by=PROVIDER)
        return

    yield _request_body(body, receipt_key, countersign)
    yield _provider_request(body, receipt_key, terminal, countersign)


def answer_claims(
    answer: Answer | None, receipt_key: bytes | None, terminal: Terminal, countersign: Countersign
) -> Iterator[Claim]:
    """Say whether the provider wrote this answer.

    Args:
        answer: the saved answer; None where it was not given.
        receipt_key: key of all digests; None where this copy has none.
        terminal: what the provider says.
        countersign: what the gateway says.
    """
    if answer is None or receipt_key is None:
        detail = "no answer was given" if answer is None else _NO_KEY
        for name in ("content", "reasoning", "tool_calls"):
            yield Claim(name, holds=None, detail=detail, backed_by=PROVIDER)
        return

    yield _content(answer, receipt_key, terminal)
    yield _reasoning(answer, receipt_key, terminal)
    yield _tool_calls(answer, receipt_key, terminal)
    if answer.model is not None:
        same = answer.model == countersign.requested_model
        detail = "answered under the requested name" if same else "answered under another name"
        yield Claim("requested_model", same, detail, GATEWAY)
    if not answer.complete:
        detail = "the saved stream has no end marker"
        yield Claim("complete", holds=False, detail=detail, backed_by="the saved answer")


def _request_body(body: bytes, receipt_key: bytes, countersign: Countersign) -> Claim:
    name = "request_body"
    if countersign.body_digest is None and countersign.mode == "end_to_end":
        detail = "end-to-end mode: the gateway has seen no body"
        return Claim(name, holds=None, detail=detail, backed_by=GATEWAY)
    same = hmac.compare_digest(body_digest(receipt_key, body), countersign.body_digest or "")
    detail = "the gateway received exactly this body" if same else "the gateway received another"

    return Claim(name, same, detail, GATEWAY)


def _provider_request(
    body: bytes, receipt_key: bytes, terminal: Terminal, countersign: Countersign
) -> Claim:
    """Rebuild the canonical request from the body, with the gateway's bound and date."""
    name = "provider_request"
    bound, date = countersign.output_bound, countersign.prompt_date
    if bound is None or date is None:
        detail = "the receipt does not say output bound and date, so it cannot be rebuilt"
        return Claim(name, holds=None, detail=detail, backed_by=PROVIDER)

    readings = list(_readings(body))
    if not readings:
        detail = "the body is no request of any dialect"
        return Claim(name, holds=False, detail=detail, backed_by=PROVIDER)
    digests = [
        keyed_digest(receipt_key, "request", canonical_bytes(request))
        for lowered in readings
        for request in (
            lowered.to_request(terminal.build, bound, date, choice) for choice in range(lowered.n)
        )
    ]
    same = any(hmac.compare_digest(digest, terminal.digests.request) for digest in digests)
    detail = "the provider read exactly this" if same else "the provider read another request"

    return Claim(name, same, detail, PROVIDER)


def _readings(body: bytes) -> Iterator[Lowered]:
    """Read a body in every dialect that takes it: the receipt does not say by which it came."""
    for dialect in (CHAT, RESPONSES, MESSAGES, COMPLETIONS):
        try:
            yield dialect.lower(body)
        except EdgeError:
            continue


def _content(answer: Answer, receipt_key: bytes, terminal: Terminal) -> Claim:
    expected = terminal.digests.content
    texts = [answer.content]
    if answer.form == "text" and answer.content.endswith("\n"):
        # Editors and shells end a file with a line feed that was never sent.
        texts.append(answer.content[:-1])
    same = any(
        hmac.compare_digest(keyed_digest(receipt_key, "content", text.encode()), expected)
        for text in texts
    )
    detail = "the provider wrote exactly this text" if same else "the provider wrote another text"

    return Claim("content", same, detail, PROVIDER)


def _reasoning(answer: Answer, receipt_key: bytes, terminal: Terminal) -> Claim:
    if answer.reasoning is None:
        detail = "plain text holds no reasoning"
        return Claim("reasoning", holds=None, detail=detail, backed_by=PROVIDER)

    digest = keyed_digest(receipt_key, "reasoning", answer.reasoning.encode())
    same = hmac.compare_digest(digest, terminal.digests.reasoning)
    detail = "the provider reasoned exactly so" if same else "the provider reasoned otherwise"

    return Claim("reasoning", same, detail, PROVIDER)


def _tool_calls(answer: Answer, receipt_key: bytes, terminal: Terminal) -> Claim:
    expected = terminal.digests.tool_calls
    if answer.tool_calls is None:
        detail = f"plain text holds no tool calls; the provider made {len(expected)}"
        return Claim("tool_calls", holds=None, detail=detail, backed_by=PROVIDER)

    digests = tuple(
        tool_call_digest(receipt_key, index, name, arguments)
        for index, (name, arguments) in enumerate(answer.tool_calls)
    )
    same = digests == expected
    detail = f"{len(expected)} call(s), as the provider made them" if same else "the calls differ"

    return Claim("tool_calls", same, detail, PROVIDER)
