"""One choice of one request: offers, failover, the sealed stream and its proof."""

from datetime import timedelta
from typing import Any, final

import msgspec
import orjson
from darkbloom_edge.delta import Delta
from darkbloom_edge.documents import encode_document
from darkbloom_edge.errors import MalformedError
from darkbloom_edge.offers import OfferDocument
from darkbloom_edge.receipt import parse_receipt
from darkbloom_edge.records import (
    NEW_OFFER,
    OFFER_HEADER,
    RETRY_HEADER,
    SEALED_MEDIA_TYPE,
    Record,
    RecordKind,
    RecordReader,
)

from darkbloom_client.asking import Asked
from darkbloom_client.attempt import Attempt
from darkbloom_client.desk import Desk
from darkbloom_client.evidence import check_verdict
from darkbloom_client.offered import Offered, check_offer, read_offered, read_promise
from darkbloom_client.receipts import bad_receipt, check_receipt
from darkbloom_client.refusal import Reason, RefusedError
from darkbloom_client.steps import (
    Call,
    Flow,
    Headers,
    LineBrokenError,
    Open,
    Read,
    Reply,
    Shut,
)

_OK, _GONE = 200, 410
_JSON = ("content-type", "application/json")
_BAD_GATEWAY = 502
_TOO_LATE = Reply(
    _GONE,
    {},
    orjson.dumps(
        {
            "error": {
                "message": "the offer was over before all of it was checked",
                "type": "offer_expired",
                "code": "offer_expired",
            }
        }
    ),
)
"""What the gateway would say; said here, so that nothing is sealed under an offer that is over."""
_PASSED_ON = ("x-inference-job-id", "x-request-id")
_CHUNKS = frozenset({RecordKind.PREAMBLE, RecordKind.CONTENT, RecordKind.FINAL})


class GatewayError(Exception):
    """The gateway said no before any content; its reply goes to the caller."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(f"the gateway answered {reply.status}")
        self.reply = reply

    @property
    def kind(self) -> str:
        """`type` of an in-band error."""
        return "provider_error"


class BrokenAnswerError(Exception):
    """The gateway ended the answer in band: no proof, no end."""

    def __init__(self, message: str, kind: str) -> None:
        super().__init__(message)
        self.kind = kind

    def as_reply(self) -> Reply:
        """Return it as the error that it is for a caller who has not been given anything."""
        details = {"message": str(self), "type": self.kind, "code": self.kind}
        return Reply(_BAD_GATEWAY, {}, orjson.dumps({"error": details}))


@final
class Relay:
    """Use: `begin`, then `take` and `more` until `final`, then `conclude`.

    Args:
        asked: what is to be sealed.
        headers: that go with every call.
        desk: decides who may read it.
    """

    def __init__(self, asked: Asked, headers: Headers, desk: Desk) -> None:
        self._asked = asked
        self._sent = headers
        self._desk = desk
        self._excluded: list[str] = []
        self._sealed_to = 0
        self._attempt: Attempt | None = None
        self._reader = RecordReader()
        self._deltas: list[Delta] = []
        self._alive = False
        self._end = b""
        self.headers: Headers = []
        """What the response says about who answers."""
        self.receipt = b""
        """The verified receipt, JSON, with its key."""

    @property
    def attempt(self) -> Attempt:
        """The one that answers; only after `begin`."""
        if self._attempt is None:
            raise RuntimeError("the request has no answer yet")
        return self._attempt

    @property
    def final(self) -> bool:
        """Whether the final chunk was opened."""
        return self.attempt.final

    @property
    def last(self) -> Delta:
        """The newest delta."""
        return self.attempt.last

    @property
    def job(self) -> str:
        """Bare id of the attempt."""
        return self.attempt.offer.attempt_id.partition("_")[2]

    @property
    def output_bound(self) -> int:
        """Most tokens of the answer."""
        return self.attempt.offer.output_bound

    @property
    def facts(self) -> dict[str, Any]:
        """What is proven about the one who answers."""
        machine, offer = self.attempt.machine, self.attempt.offer
        return {
            "provider_id": offer.provider_id,
            "build": offer.build,
            "provider_trust_level": machine.verdict.trust_level,
            "provider_attested": machine.apple,
            "code_release": machine.verdict.code_release,
            "identity_key": machine.verdict.identity_key,
            "job_id": offer.attempt_id,
            "mode": "end_to_end",
        }

    def take(self) -> list[Delta]:
        """Return what was opened since the last call."""
        deltas, self._deltas = self._deltas, []
        return deltas

    def take_keep_alive(self) -> bool:
        """Tell whether the gateway has said that the line is alive since the last call."""
        alive, self._alive = self._alive, False
        return alive

    def begin(self) -> Flow[None]:
        """Return with the first content; asks for new offers where that may help.

        Raises:
            RefusedError: nobody was offered who satisfies the policy.
            GatewayError: the gateway has nobody, or refuses.
        """
        refused: RefusedError | None = None
        reply: Reply | None = None
        for _ in range(self._desk.policy.max_attempts):
            try:
                reply = yield from self._try()
            except RefusedError as error:
                # Said again, it would be of a machine that we have just excluded.
                refused = refused or error
                yield Shut()
                continue
            if reply is None:
                return
            if not _worth_another(reply):
                break
        # A gateway that has nobody else to offer does not make the refusal its own.
        if refused is not None:
            raise refused
        if reply is None:
            raise RuntimeError("an exchange ended without a result")
        raise GatewayError(reply)

    def more(self) -> Flow[None]:
        """Read what has come, and open it.

        Raises:
            RefusedError: it does not hold.
            BrokenAnswerError: the gateway has ended the answer.
        """
        records = yield from self._read()
        self._open(records)

    def conclude(self) -> Flow[None]:
        """Wait for the receipt and verify it.

        Raises:
            RefusedError: it is missing, or does not hold.
            BrokenAnswerError: the gateway has ended the answer.
        """
        while not self._end:
            try:
                yield from self.more()
            except RefusedError as error:
                if error.reason is not Reason.ANSWER_TRUNCATED:
                    raise
                raise RefusedError(
                    Reason.RECEIPT_MISSING, expected="a receipt", found="the end of the stream"
                ) from None
        yield Shut()
        try:
            receipt = parse_receipt(self._end)
        except MalformedError as error:
            raise bad_receipt("a receipt", str(error)) from None
        if not receipt.terminal:
            raise RefusedError(
                Reason.TERMINAL_MISSING, expected="the provider's last word", found="none"
            )
        terminal = self.attempt.conclude(receipt.terminal, receipt.terminal_signature)
        key = yield from self._desk.gateway_key(receipt.gateway_key_id)
        check_receipt(receipt, terminal, self.attempt, key)
        keyed = msgspec.structs.replace(receipt, receipt_key=self.attempt.receipt_key)
        self.receipt = encode_document(keyed)

    def _try(self) -> Flow[Reply | None]:
        """Try one offer; None where it has content, else the gateway's refusal."""
        desk, policy = self._desk, self._desk.policy
        asked = self._asked.offer_request(
            desk.entropy(32),
            exclude=tuple(self._excluded),
            floor=None if policy.allow_unattested else policy.trust,
        )
        reply: Reply = yield Call(
            "POST", "/v1/offers", [*self._sent, _JSON], msgspec.json.encode(asked)
        )
        if reply.status != _OK:
            return reply
        arrived = desk.clock.now()
        offered = read_offered(reply.content)
        promise, key = read_promise(offered), b""
        try:
            key = yield from desk.gateway_key(offered.offer.key_id)
            offer = check_offer(offered, asked, key, policy)
            machine = yield from desk.machine(offered, offer.provider_id)
            # Whoever is not trusted has chosen how long all that took.
            check_verdict(offered.verdict, policy, desk.clock.now())
        except RefusedError:
            # A gateway whose key is not known is no machine's fault; the place is free anyhow.
            if promise is not None:
                if key:
                    self._exclude(promise.provider_id)
                name = (OFFER_HEADER, promise.offer_id)
                yield Call("POST", "/v1/offers/decline", [*self._sent, name])
            raise
        if not timedelta(0) <= desk.clock.now() - arrived <= _kept(offer):
            return _TOO_LATE
        named = [*self._sent, (OFFER_HEADER, offer.offer_id)]
        self._sealed_to += 1
        attempt = Attempt(offer, machine, sealed_to=self._sealed_to, entropy=desk.entropy)
        return (yield from self._send(attempt, offered, named))

    def _send(self, attempt: Attempt, offered: Offered, named: Headers) -> Flow[Reply | None]:
        """Seal, post, and wait for the first content."""
        asked, offer = self._asked, attempt.offer
        sealed = attempt.seal(
            asked.canonical(offer.build, offer.output_bound),
            now_ms=int(self._desk.clock.now().timestamp() * 1000),
            whole=not asked.lowered.stream,
            cache_scope=offered.cache_scope,
        )
        reply: Reply = yield Open(
            "POST", "/v1/offers/answer", [*named, ("content-type", SEALED_MEDIA_TYPE)], sealed
        )
        if reply.status != _OK:
            # Late is nobody's fault; the next offer finds us with everything checked.
            if reply.status != _GONE:
                self._exclude(reply.headers.get("x-provider-id", offer.provider_id))
            return reply
        self._attempt, self._reader = attempt, RecordReader()
        self._deltas, self._end = [], b""
        try:
            while not any(delta.has_content for delta in self._deltas) and not attempt.final:
                yield from self.more()
        except RefusedError:
            self._exclude(offer.provider_id)
            raise
        except BrokenAnswerError as error:
            self._exclude(offer.provider_id)
            return error.as_reply()
        self.headers = [
            (name, value)
            for name, value in reply.headers.items()
            if name in _PASSED_ON or name.startswith("x-provider-")
        ]
        self.headers += [
            ("x-hold-micro-usd", str(offer.hold_micro_usd)),
            ("x-darkbloom-mode", "end-to-end"),
        ]
        return None

    def _read(self) -> Flow[list[Record]]:
        """Read at least one record."""
        while True:
            try:
                data: bytes = yield Read()
                records = list(self._reader.feed(data))
            except LineBrokenError:
                data, records = b"", []
            except MalformedError as error:
                raise RefusedError(
                    Reason.CHUNK_ALTERED, expected="a record", found=error.what
                ) from None
            if records:
                return records
            if not data:
                raise RefusedError(
                    Reason.ANSWER_TRUNCATED,
                    expected="the rest of the answer",
                    found=f"the end after {self.attempt.frames} chunks",
                )

    def _open(self, records: list[Record]) -> None:
        for record in records:
            if record.kind in _CHUNKS:
                self._deltas.append(self.attempt.open(record))
            elif record.kind is RecordKind.END:
                if not self.attempt.final:
                    raise RefusedError(
                        Reason.ANSWER_TRUNCATED,
                        expected="the final chunk",
                        found=f"the end after {self.attempt.frames} chunks",
                    )
                self._end = record.payload
            elif record.kind is RecordKind.ERROR:
                raise BrokenAnswerError(*_told(record.payload))
            else:
                self._alive = True

    def _exclude(self, provider_id: str) -> None:
        if provider_id not in self._excluded:
            self._excluded.append(provider_id)


def _kept(offer: OfferDocument) -> timedelta:
    """Return how long an offer may be used after it came."""
    return timedelta(milliseconds=offer.reserve_ms)


def _worth_another(reply: Reply) -> bool:
    return reply.status == _GONE or reply.headers.get(RETRY_HEADER) == NEW_OFFER


def _told(payload: bytes) -> tuple[str, str]:
    """Return message and type of an in-band error."""
    try:
        error = orjson.loads(payload)["error"]
        return str(error["message"]), str(error["type"])
    except (ValueError, KeyError, TypeError):
        return "the answer broke", "provider_error"
