"""One inference request, from the caller's body to a verified answer, as a flow of steps.

Offer, check, seal, read, open, render, verify. A machine that the policy refuses, or that fails
before its first content, is excluded and another offer is asked for, a bounded number of times.
After the first content there is no failover: what does not hold ends the answer by name.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import final

import orjson
from darkbloom_edge.delta import Delta
from darkbloom_edge.dialects.chat_request import Lowered
from darkbloom_edge.dialects.dialect import AnswerCollector, AnswerStream, Dialect, Setting
from darkbloom_edge.errors import MalformedError, RequestError
from darkbloom_edge.usage import Usage, usage_of

from darkbloom_client.asking import ask
from darkbloom_client.desk import Desk
from darkbloom_client.refusal import Reason, RefusedError
from darkbloom_client.relay import BrokenAnswerError, GatewayError, Relay
from darkbloom_client.shapes import gateway_error, own_error, refusal
from darkbloom_client.steps import Begin, Emit, Flow, Headers, Shut

_EVENT_STREAM: Headers = [
    ("content-type", "text/event-stream; charset=utf-8"),
    ("cache-control", "no-store"),
]
_OK = 200
_KEPT_OF_ERRORS = ("retry-after", "x-request-id", "x-provider-id")


@dataclass(frozen=True, slots=True, repr=False)
class Body:
    """What a caller has sent to an inference path."""

    path: str
    """From `/v1` on."""
    dialect: Dialect
    content: bytes
    headers: Headers = field(default_factory=list)
    """That go with the calls: credential, request id, route. Nothing else leaves."""

    def __repr__(self) -> str:
        return f"Body({self.path!r}, <redacted>)"


def exchange(body: Body, desk: Desk) -> Flow[None]:
    """Answer one request; begins exactly once, whatever happens."""
    try:
        lowered = body.dialect.lower(body.content)
        work = _Exchange(body, lowered, desk)
        yield from work.stream() if lowered.stream else work.whole()
    except RequestError as error:
        yield from _tell(
            own_error(
                body.path,
                error.status,
                error.message,
                kind=error.type,
                code=error.code,
                param=error.param,
            )
        )
    except RefusedError as error:
        yield from _tell(refusal(body.path, error))
    except GatewayError as error:
        reply = error.reply
        kept = [(name, reply.headers[name]) for name in _KEPT_OF_ERRORS if name in reply.headers]
        content = gateway_error(body.path, reply.status, reply.content)
        yield from _tell((reply.status, [("content-type", "application/json"), *kept], content))


def _tell(said: tuple[int, Headers, bytes]) -> Flow[None]:
    status, headers, content = said
    yield Shut()
    yield Begin(status, headers)
    yield Emit(content)


@final
class _Exchange:
    """The answers to one request; several choices come one after the other."""

    def __init__(self, body: Body, lowered: Lowered, desk: Desk) -> None:
        self._dialect = body.dialect
        self._lowered = lowered
        now = desk.clock.now()
        self._created = int(now.timestamp())
        self._relays = [
            Relay(ask(one, choice, now), body.headers, desk) for one, choice in lowered.jobs
        ]

    def whole(self) -> Flow[None]:
        """Answer in one piece: nothing is handed out before all of it is verified."""
        collectors: list[AnswerCollector] = []
        for index, relay in enumerate(self._relays):
            yield from relay.begin()
            collector = self._dialect.collector(self._setting(), index)
            collectors.append(collector)
            try:
                while not relay.final:
                    for delta in relay.take():
                        _feed(collector, delta)
                    yield from relay.more()
                for delta in relay.take():
                    _feed(collector, delta)
                yield from relay.conclude()
            except BrokenAnswerError as error:
                raise GatewayError(error.as_reply()) from None
        try:
            first, *others = collectors
            content = first.whole(self._usage(), self._extras(), others)
        except MalformedError as error:
            raise _unrenderable(error) from None
        headers = [("content-type", "application/json"), *self._relays[0].headers]
        yield Begin(_OK, headers)
        yield Emit(content)

    def stream(self) -> Flow[None]:
        """Stream: status, headers and first events leave with the first content."""
        stream: AnswerStream | None = None
        for index, relay in enumerate(self._relays):
            try:
                yield from relay.begin()
                began, stream = stream, self._dialect.stream(self._setting(), index)
                if began is None:
                    yield Begin(_OK, [*_EVENT_STREAM, *relay.headers])
                yield from _pass_on(stream, relay)
            except (RefusedError, GatewayError, BrokenAnswerError) as error:
                if stream is None:
                    raise
                yield Shut()
                yield Emit(stream.broken(str(error), error.kind))
                return
        if stream is not None:
            yield Emit(stream.closing(self._usage(), self._extras()))

    def _setting(self) -> Setting:
        """All choices go by the name of the first."""
        return Setting(
            self._relays[0].job,
            self._created,
            self._lowered.requested_model,
            self._lowered.include_usage,
            self._relays[0].output_bound,
            self._lowered.echo,
        )

    def _usage(self) -> Usage:
        counts = [usage_of(relay.last) for relay in self._relays]
        return Usage(*map(sum, zip(*counts, strict=True)))

    def _extras(self) -> Mapping[str, bytes]:
        receipts: Sequence[bytes] = [relay.receipt for relay in self._relays]
        if len(receipts) == 1:
            extras = {"receipt": receipts[0]}
        else:
            extras = {"receipts": b"[%b]" % b",".join(receipts)}
        if self._lowered.metadata_details:
            extras["metadata"] = orjson.dumps([relay.facts for relay in self._relays])
        return extras


def _pass_on(stream: AnswerStream, relay: Relay) -> Flow[None]:
    """Hand on one choice as it comes; its end only once it is proven."""
    try:
        while True:
            events = b"".join(map(stream.chunk, relay.take()))
            if relay.take_keep_alive() and not events:
                events = stream.keep_alive
            if events:
                yield Emit(events)
            if relay.final:
                break
            yield from relay.more()
        yield from relay.conclude()
        yield Emit(stream.ending(relay.last, usage_of(relay.last)))
    except MalformedError as error:
        raise _unrenderable(error) from None


def _feed(collector: AnswerCollector, delta: Delta) -> None:
    try:
        collector.feed(delta)
    except MalformedError as error:
        raise _unrenderable(error) from None


def _unrenderable(error: MalformedError) -> RefusedError:
    return RefusedError(Reason.CHUNK_ALTERED, expected="a piece of an answer", found=error.what)
